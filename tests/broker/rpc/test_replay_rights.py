"""What was asked for before is given again to keys with the same scopes alone, as sharing has it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from broker.store.store import Store
from openline import ids
from openline.errors import OpenlineError
from openline.reasons import NO, Reason
from openline.v1 import admin_service_pb2, command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1.admin_service_pb2_grpc import AdminServiceStub
from openline.v1.command_service_pb2_grpc import CommandServiceStub

PATIENCE_S = 20.0
# The usual key of alice has execute, session and read.
NARROW, OTHER = "a-narrow-key-of-alice", "another-key-of-alice"
KEYS = [f"alice:{NARROW}:execute", f"alice:{OTHER}:read+execute+session"]


@pytest.fixture
async def broker(start_broker: Any) -> AsyncIterator[Any]:
    async with start_broker(extra_keys=KEYS) as running:
        yield running


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


async def refusal(asked: Any) -> OpenlineError:
    with pytest.raises(OpenlineError) as refused:
        await asked
    return refused.value


async def test_an_idempotency_key_is_for_the_same_scopes(broker: Any, frames: Any) -> None:
    """While the command runs and afterwards; it is not hurt. A key of one's own with the same scopes is as good."""
    executor = await broker.executor()
    asked = broker.execute(idempotency_key="k")
    name = await executor.begin_one()
    conflict = await refusal(broker.execute(idempotency_key="k", key=NARROW))
    assert (conflict.reason, conflict.error.executed) == (Reason.IDEMPOTENCY_CONFLICT, NO)
    same = broker.execute(idempotency_key="k", key=OTHER)
    await executor.send(frames.output(name, 0, b"once"), frames.finished(name))
    assert (await asked).result.stdout == (await same).result.stdout == b"once"
    await executor.expect("result_ack")
    await broker.inside.nothing_left()
    assert (await refusal(broker.execute(idempotency_key="k", key=NARROW))).reason is Reason.IDEMPOTENCY_CONFLICT
    stream = broker.stream(argv=["get", "pods"], idempotency_key="k", key=NARROW)
    assert (await refusal(stream.rest())).reason is Reason.IDEMPOTENCY_CONFLICT
    assert (await broker.execute(idempotency_key="k", key=OTHER)).replayed
    await executor.sync()


async def test_a_command_id_is_for_the_same_scopes(broker: Any, frames: Any) -> None:
    executor = await broker.executor()
    name = ids.new_id()
    asked = broker.execute(command_id=name)
    await executor.begin_one()
    for attach in (False, True):
        refused = await refusal(broker.execute(command_id=name, key=NARROW, attach=attach))
        assert (refused.reason, refused.error.executed) == (Reason.INVALID_COMMAND, NO)
    await executor.send(frames.output(name, 0, b"once"), frames.finished(name))
    assert (await asked).result.stdout == b"once"
    await executor.expect("result_ack")
    await broker.inside.nothing_left()
    assert (await refusal(broker.execute(command_id=name, key=NARROW))).reason is Reason.INVALID_COMMAND
    assert (await broker.execute(command_id=name, key=OTHER)).result.stdout == b"once"
    await executor.sync()


async def test_on_another_replica_it_is_the_same(start_broker: Any, frames: Any) -> None:
    """One of the same scopes is given what runs there; one of others is not, whichever way it asks for it."""
    async with (
        start_broker(replica_id="r1", extra_keys=KEYS) as here,
        start_broker(replica_id="r2", extra_keys=KEYS) as there,
    ):
        for each in (here, there):
            await until(lambda each=each: bool(each.inside.dispatcher._forwarding._peers.reachable))  # type: ignore[misc]
        executor = await there.executor()
        asked = there.execute(idempotency_key="k")
        name = await executor.begin_one()
        conflict = await refusal(here.execute(idempotency_key="k", key=NARROW))
        assert conflict.reason is Reason.IDEMPOTENCY_CONFLICT
        refused = await refusal(here.execute(command_id=name, key=NARROW, attach=True))
        assert refused.reason is Reason.INVALID_COMMAND
        same = here.execute(idempotency_key="k", key=OTHER)
        await until(lambda: name in here.inside.ledger.commands)
        await executor.send(frames.output(name, 0, b"once"), frames.finished(name))
        assert (await asked).result.stdout == (await same).result.stdout == b"once"


async def test_who_comes_with_anothers_id_does_not_touch_its_record(
    start_broker: Any, frames: Any, store: Store
) -> None:
    """Also not where it is looked for on another replica, and where the other one ends without an exit code."""
    async with start_broker(replica_id="r1") as here, start_broker(replica_id="r2") as there:
        for each in (here, there):
            await until(lambda each=each: bool(each.inside.dispatcher._forwarding._peers.reachable))  # type: ignore[misc]
        executor = await there.executor()
        asked = there.execute()
        name = await executor.begin_one()
        refused = await refusal(here.execute(command_id=name, attach=True, key="the-key-of-bob"))
        assert (refused.reason, refused.error.executed) == (Reason.INVALID_COMMAND, NO)
        await here.inside.nothing_left()
        assert await store.behind.drain(PATIENCE_S)
        assert await store.results.get(name) is None
        await executor.send(frames.finished(name, outcome=command_pb2.OUTCOME_TIMED_OUT))
        assert (await refusal(asked)).reason is Reason.COMMAND_TIMEOUT
        await executor.expect("result_ack")
        record = await store.results.get(name)
        assert record is not None
        assert (record.owner, record.result.outcome) == ("alice", command_pb2.OUTCOME_TIMED_OUT)
        auditor, bob = (("x-api-key", "the-key-of-the-auditor"),), (("x-api-key", "the-key-of-bob"),)
        told: list[tuple[str, str]] = []
        async with asyncio.timeout(PATIENCE_S):
            while len(told) < 2:
                request = admin_service_pb2.ListAuditEntriesRequest()
                page = await AdminServiceStub(here.channel()).ListAuditEntries(request, metadata=auditor)
                told = sorted((entry.owner, entry.reason) for entry in page.entries if entry.command_id == name)
        assert told == [("alice", "COMMAND_TIMEOUT"), ("bob", "INVALID_COMMAND")]
        listed = await CommandServiceStub(here.channel()).ListCommands(pb.ListCommandsRequest(), metadata=bob)
        assert list(listed.commands) == []


async def test_a_record_of_before_is_given_again_to_whoever_asked_for_it(broker: Any, store: Store) -> None:
    """A replica of 0.1 does not write whose scopes it was asked for with: its callers retry on newer ones."""
    executor = await broker.executor()
    asked = broker.execute(idempotency_key="k")
    name = (await executor.run_one(b"once")).command_id
    await asked
    await executor.expect("result_ack")
    await broker.inside.nothing_left()
    record = await store.results.get(name)
    assert record is not None
    assert record.scopes == ["execute", "session", "read"]
    record.ClearField("scopes")
    store.results.put(record, lambda _stored: None)
    assert await store.behind.drain(PATIENCE_S)
    assert (await broker.execute(idempotency_key="k")).result.stdout == b"once"
    assert (await broker.execute(command_id=name)).result.stdout == b"once"


async def test_an_idempotency_key_never_stands_for_somebody_elses_command(broker: Any, frames: Any) -> None:
    """One that was claimed with the id of another one's command: whoever comes with it meanwhile is not shown that."""
    executor = await broker.executor()
    his = broker.execute(key="the-key-of-bob")
    name = await executor.begin_one()
    told = await asyncio.gather(
        *(refusal(broker.execute(idempotency_key="k", command_id=name)) for _ in range(20)),
    )
    assert {each.reason for each in told} <= {Reason.INVALID_COMMAND, Reason.IDEMPOTENCY_CONFLICT}
    await executor.send(frames.output(name, 0, b"his"), frames.finished(name))
    assert (await his).result.outcome == command_pb2.OUTCOME_EXITED
