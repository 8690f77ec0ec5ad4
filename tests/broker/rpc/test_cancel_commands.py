"""The kill switch for one's own conversation: what ends by it, what does not, and what is told of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from broker.core.credentials import Caller
from broker.core.whose import Whose
from broker.rpc import cancel_all
from openline.errors import CANCELLED_WITH, TAKEN_BACK, OpenlineError, error, from_rpc_error
from openline.ids import new_id
from openline.reasons import YES, Reason
from openline.v1 import admin_service_pb2, command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1.admin_service_pb2_grpc import AdminServiceStub
from openline.v1.command_service_pb2_grpc import CommandServiceStub
from openline.v1.session_service_pb2 import CreateSessionRequest
from openline.v1.session_service_pb2_grpc import SessionServiceStub

PATIENCE_S = 20.0
ALICE, BOB, CAROL, AUDITOR = "the-key-of-alice", "the-key-of-bob", "the-key-of-carol", "the-key-of-the-auditor"
OF_PROD = "a-key-of-alice-for-prod"


@pytest.fixture
async def broker(start_broker: Any) -> AsyncIterator[Any]:
    async with start_broker(extra_keys=[f"alice:{OF_PROD}:execute@prod*"]) as running:
        yield running


@pytest.fixture
async def replicas(start_broker: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Two that know each other."""
    async with start_broker(replica_id="r1") as one, start_broker(replica_id="r2") as other:
        for each in (one, other):
            await until(lambda each=each: bool(each.inside.dispatcher._forwarding._peers.reachable))  # type: ignore[misc]
        yield one, other


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


async def cancel(broker: Any, key: str = ALICE, **fields: Any) -> pb.CancelCommandsResponse:
    """Raises OpenlineError for a status."""
    method = CommandServiceStub(broker.channel()).CancelCommands
    try:
        answer: pb.CancelCommandsResponse = await method(
            pb.CancelCommandsRequest(**fields), metadata=(("x-api-key", key),), timeout=PATIENCE_S
        )
    except grpc.aio.AioRpcError as failure:
        raise from_rpc_error(failure) from failure
    return answer


async def refusal(asked: Any) -> OpenlineError:
    with pytest.raises(OpenlineError) as refused:
        await asked
    return refused.value


async def is_stopped(executor: Any, command_id: str, *, why: str) -> None:
    """The executor is told to stop it, which it does."""
    stop = await executor.expect("cancel")
    assert (stop.command_id, stop.why) == (command_id, why)
    error = command_pb2.Error(reason="CANCELLED", message=why)
    await executor.send(executor._say.finished(command_id, outcome=command_pb2.OUTCOME_CANCELLED, error=error))


async def audited(broker: Any, count: int) -> list[admin_service_pb2.AuditEntry]:
    """The entries of this action, once there are so many."""
    method = AdminServiceStub(broker.channel()).ListAuditEntries
    async with asyncio.timeout(PATIENCE_S):
        while True:
            page = await method(admin_service_pb2.ListAuditEntriesRequest(), metadata=(("x-api-key", AUDITOR),))
            found = [entry for entry in page.entries if entry.action == "cancel_commands"]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.02)


async def test_one_s_own_conversation_ends(broker: Any) -> None:
    """What runs and what waits; neither another one of one's own, nor somebody else's of the same name."""
    executor = await broker.executor()
    mine, first = broker.execute(correlation_id="c-1"), await executor.begin_one()
    other, second = broker.execute(correlation_id="c-2"), await executor.begin_one()
    his, third = broker.execute(correlation_id="c-1", key=BOB), await executor.begin_one()
    absent = broker.execute(cluster_id="staging", wait_for_cluster_s=20, correlation_id="c-1")
    await until(lambda: len(broker.inside.ledger.commands) == 4)
    answer = await cancel(broker, correlation_id="c-1", reason="the question was withdrawn")
    assert (answer.cancelled, answer.incomplete, list(answer.unreached_replica_ids)) == (2, False, [])
    refused = await refusal(absent)
    assert (refused.reason, refused.error.message) == (Reason.CANCELLED, "the question was withdrawn")
    await is_stopped(executor, first, why="the question was withdrawn")
    ended = await refusal(mine)
    assert ended.reason is Reason.CANCELLED
    # Whoever asked for them is told that it is all of it.
    assert [each.metadata[CANCELLED_WITH] for each in (refused, ended)] == ["conversation"] * 2
    assert (await executor.expect("result_ack")).command_id == first
    for name, asked in ((second, other), (third, his)):
        await executor.send(*executor._say.ran(name)[2:])
        assert (await asked).result.exit_code == 0
    [entry] = await audited(broker, 1)
    assert (entry.owner, entry.correlation_id) == ("alice", "c-1")
    assert entry.detail == "correlation c-1 owner alice: 2 commands: the question was withdrawn"


async def test_one_s_own_session_ends(broker: Any) -> None:
    """By whoever has made it alone; for others nothing runs in it, as in one that there is not."""
    executor = await broker.executor()
    metadata = (("x-api-key", ALICE),)
    made = await SessionServiceStub(broker.channel()).CreateSession(
        CreateSessionRequest(cluster_id="prod"), metadata=metadata
    )
    session_id = made.session.session_id
    asked = broker.execute(session_id=session_id)
    name = await executor.begin_one()
    for key, named in ((BOB, session_id), (ALICE, "no-such-session"), ("the-key-of-root", session_id)):
        assert (await cancel(broker, key, session_id=named)).cancelled == 0
    assert (await cancel(broker, session_id=session_id)).cancelled == 1
    await is_stopped(executor, name, why="cancelled by the caller")
    assert (await refusal(asked)).reason is Reason.CANCELLED
    again = broker.execute(session_id=session_id)
    await executor.run_one(b"x")
    assert (await again).result.stdout == b"x"  # nothing is forbidden by it


async def test_a_key_ends_what_it_sees(broker: Any) -> None:
    prod = await broker.executor()
    staging = broker.dial(token="the-token-of-staging")
    await staging.hello(cluster_id="staging")
    seen = broker.execute(correlation_id="c-1")
    hidden = broker.execute(correlation_id="c-1", cluster_id="staging")
    name, other = await prod.begin_one(), await staging.begin_one()
    assert (await cancel(broker, OF_PROD, correlation_id="c-1", reason="stop")).cancelled == 1
    await is_stopped(prod, name, why="stop")
    refused = await refusal(seen)
    assert refused.reason is Reason.CANCELLED
    # There is more of it, which was not meant.
    assert CANCELLED_WITH not in refused.metadata
    await staging.sync()
    await staging.send(*staging._say.ran(other)[2:])
    assert (await hidden).result.exit_code == 0


async def test_it_is_asked_of_one_replica_and_done_on_the_other(replicas: tuple[Any, Any]) -> None:
    here, there = replicas
    executor = await there.executor()
    asked = there.execute(correlation_id="c-1")
    name = await executor.begin_one()
    assert (await cancel(here, BOB, correlation_id="c-1")).cancelled == 0
    answer = await cancel(here, correlation_id="c-1", reason="stop")
    assert (answer.cancelled, answer.incomplete, list(answer.unreached_replica_ids)) == (1, False, [])
    await is_stopped(executor, name, why="stop")
    refused = await refusal(asked)
    assert (refused.reason, refused.metadata[CANCELLED_WITH]) == (Reason.CANCELLED, "conversation")


async def test_one_that_was_forwarded_is_told_of_what_it_is_one(replicas: tuple[Any, Any]) -> None:
    """By the replica that has its caller."""
    here, there = replicas
    executor = await there.executor()
    await until(lambda: bool(here.inside.dispatcher._ledger._routes._directory.place("prod", now=0.0)))
    asked = here.execute(correlation_id="c-1")
    name = await executor.begin_one()
    assert (await cancel(there, correlation_id="c-1", reason="stop")).cancelled == 1
    await is_stopped(executor, name, why="stop")
    assert (await refusal(asked)).metadata[CANCELLED_WITH] == "conversation"


async def test_one_that_was_taken_back_with_its_call(broker: Any) -> None:
    """Is told of that by the broker, whether it ran or waited; what its executor says of more is nothing."""
    executor = await broker.executor()
    ran, command_id = broker.execute(), await executor.begin_one()
    waits = new_id()
    absent = broker.execute(cluster_id="staging", wait_for_cluster_s=20, command_id=waits)
    await until(lambda: len(broker.inside.ledger.commands) == 2)
    for each in (command_id, waits):
        await broker.cancel(each, why=TAKEN_BACK)
    await is_stopped(executor, command_id, why=TAKEN_BACK)
    assert [(await refusal(each)).metadata[CANCELLED_WITH] for each in (ran, absent)] == ["call", "call"]


async def test_what_an_executor_says_of_more_is_nothing(broker: Any) -> None:
    """One that is compromised would end what is none of its own."""
    executor = await broker.executor()
    asked, command_id = broker.execute(), await executor.begin_one()
    said = error(Reason.CANCELLED, TAKEN_BACK, executed=YES, metadata={CANCELLED_WITH: "owner"})
    await executor.send(executor._say.finished(command_id, outcome=command_pb2.OUTCOME_CANCELLED, error=said))
    refused = await refusal(asked)
    assert (refused.reason, CANCELLED_WITH in refused.metadata) == (Reason.CANCELLED, False)


async def test_whoever_asks_again_is_not_meant(broker: Any) -> None:
    """With the same idempotency key: who asked before the end is told that more was meant, who asks later is not."""
    executor = await broker.executor()
    same = {"correlation_id": "c-1", "idempotency_key": "again"}
    first, command_id = broker.execute(**same), await executor.begin_one()
    second = broker.execute(**same)
    await broker.inside.until_called(2)
    await cancel(broker, correlation_id="c-1", reason="stop")
    await is_stopped(executor, command_id, why="stop")
    assert [(await refusal(each)).metadata[CANCELLED_WITH] for each in (first, second)] == ["conversation"] * 2
    late = await refusal(broker.execute(**same))
    assert (late.reason, CANCELLED_WITH in late.metadata) == (Reason.CANCELLED, False)


async def test_a_replica_of_before_cancels_nothing_which_is_said(
    replicas: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.1.0 does not know of conversations: the request names nobody to it, which it refuses.

    Which replica that is, is told to an admin's key alone.
    """
    here, there = replicas
    executor = await there.executor()
    asked = there.execute(correlation_id="c-1")
    name = await executor.begin_one()
    read = cancel_all._whose

    def as_of_before(request: admin_service_pb2.CancelAllRequest, caller: Caller) -> Whose:
        request.ClearField("conversation")
        return read(request, caller)

    monkeypatch.setattr(cancel_all, "_whose", as_of_before)
    answer = await cancel(here, correlation_id="c-1")
    assert (answer.cancelled, answer.incomplete, list(answer.unreached_replica_ids)) == (0, True, [])
    [entry] = await audited(here, 1)
    assert entry.detail.endswith(": 0 commands, without r2: cancelled by the caller")
    answer = await cancel(here, "the-key-of-root", correlation_id="c-1")
    assert (answer.cancelled, answer.incomplete, list(answer.unreached_replica_ids)) == (0, True, ["r2"])
    await executor.send(*executor._say.ran(name)[2:])
    assert (await asked).result.exit_code == 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "conversation"),
        ({"correlation_id": ""}, "correlation_id"),
        ({"correlation_id": "two words"}, "correlation_id"),
        ({"session_id": "x" * 201}, "session_id"),
        ({"session_id": "s", "reason": "two\nlines"}, "reason"),
    ],
)
async def test_a_request_that_is_not_valid(broker: Any, fields: dict[str, Any], field: str) -> None:
    """A conversation without a name is not everything that one has."""
    refused = await refusal(cancel(broker, **fields))
    assert refused.reason is Reason.INVALID_COMMAND
    assert [violation.field for violation in refused.error.violations] == [field]


@pytest.mark.parametrize(("key", "reason"), [("wrong", Reason.UNAUTHENTICATED), (AUDITOR, Reason.SCOPE_MISSING)])
async def test_who_may(broker: Any, key: str, reason: Reason) -> None:
    """Whoever may ask for commands."""
    assert (await refusal(cancel(broker, key, correlation_id="c-1"))).reason is reason
