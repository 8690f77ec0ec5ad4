"""GetCommand and CancelCommand: a command by its id."""

import asyncio
import math
import uuid
from typing import Any

import pytest

from broker.store import keys
from broker.store.store import open_store
from openline import ids
from openline.errors import OpenlineError
from openline.limits import DEADLINE_ALLOWANCE_S
from openline.reasons import NO, UNKNOWN, YES, Reason
from openline.v1 import command_pb2

RUNNING, DONE = command_pb2.COMMAND_STATE_RUNNING, command_pb2.COMMAND_STATE_DONE


def old_id(age_s: float) -> str:
    """A UUIDv7 that was made so long ago."""
    made_ms = (uuid.UUID(ids.new_id()).int >> 80) - int(age_s * 1000)
    return str(uuid.UUID(int=(made_ms << 80) | (uuid.UUID(ids.new_id()).int & ((1 << 80) - 1))))


async def reason_of(call: Any) -> Reason:
    with pytest.raises(OpenlineError) as refusal:
        await call
    return refusal.value.reason


async def fill(broker: Any, executor: Any) -> list[Any]:
    """Bob's commands take every place, and those that may wait at the executor."""
    asked = []
    for _ in range(5):
        asked.append(broker.execute(key="the-key-of-bob"))
        await executor.begin_one()
    return asked


# GetCommand


async def test_a_running_command(broker: Any, frames: Any) -> None:
    """What it is and where it is, without a result; asking costs it nothing."""
    executor = await broker.executor()
    asked = broker.execute(argv=["get", "pods"], correlation_id="c-1")
    name = await executor.begin_one()
    found = await broker.get(name)
    assert (found.command_id, found.cluster_id, found.owner, found.state) == (name, "prod", "alice", RUNNING)
    assert (found.argv, found.correlation_id, found.live) == (["get", "pods"], "c-1", False)
    assert not found.HasField("result")
    assert found.HasField("created_at")
    await executor.send(frames.finished(name))
    await asked


async def test_a_done_command(broker: Any, frames: Any) -> None:
    """The same result for everyone who asks, while it is being stored and from the store."""
    executor = await broker.executor()
    asked = broker.execute()
    name = (await executor.run_one(b"x", exit_code=4)).command_id
    answer = await asked
    found = await broker.get(name)
    await executor.expect("result_ack")
    assert found == await broker.get(name)
    assert (found.state, found.result) == (DONE, answer.result)


async def test_waiting_for_the_end(broker: Any, frames: Any) -> None:
    """As long as was said, or until it is done; a caller who left its own call gets its result so."""
    executor = await broker.executor()
    asked = broker.execute()
    name = await executor.begin_one()
    asked.cancel()
    assert (await broker.get(name, wait_s=0.05)).state == RUNNING
    waiting = [asyncio.create_task(broker.get(name, wait_s=wait_s)) for wait_s in (5.0, math.inf, 1e300)]
    await asyncio.sleep(0.1)
    assert not any(one.done() for one in waiting)
    await executor.send(frames.output(name, 0, b"late"), frames.finished(name))
    for one in waiting:
        assert (await one).result.stdout == b"late"
    await executor.expect("result_ack")
    await broker.inside.nothing_left()


@pytest.mark.parametrize("wait_s", [math.nan, -1.0, -math.inf, 0.0])
async def test_a_wait_that_is_none_is_answered_at_once(broker: Any, wait_s: float) -> None:
    executor = await broker.executor()
    broker.execute()
    name = await executor.begin_one()
    await executor.sync()  # what it said has been heard
    assert (await broker.get(name, wait_s=wait_s)).state == RUNNING


async def test_who_waits_and_leaves_leaves_nothing(broker: Any, frames: Any) -> None:
    """The one who asked for the command is still answered."""
    executor = await broker.executor()
    asked = broker.execute()
    name = await executor.begin_one()
    waiting = [asyncio.create_task(broker.get(name, wait_s=50)) for _ in range(20)]
    [dispatcher] = broker.inside.parts["Dispatcher"]
    async with asyncio.timeout(10):
        while len(dispatcher.audience._waiting[name]) < 21:
            await asyncio.sleep(0.01)
        for one in waiting:
            one.cancel()
        while len(dispatcher.audience._waiting[name]) > 1:
            await asyncio.sleep(0.01)
    await executor.send(frames.finished(name))
    await asked
    await executor.expect("result_ack")
    await broker.inside.nothing_left()


async def test_only_its_owner_and_admins_may_look(broker: Any, frames: Any) -> None:
    """To anybody else it does not exist, running or done."""
    executor = await broker.executor()
    asked = broker.execute()
    name = await executor.begin_one()
    for done in (False, True):
        if done:
            await executor.send(frames.finished(name))
            await asked
            await executor.expect("result_ack")
        assert await reason_of(broker.get(name, key="the-key-of-bob")) is Reason.COMMAND_UNKNOWN
        assert await reason_of(broker.get(name, key="the-key-of-carol")) is Reason.COMMAND_UNKNOWN
        assert (await broker.get(name, key="the-key-of-root")).owner == "alice"


async def test_ids_that_are_not_there(broker: Any, redis: Any) -> None:
    """Unknown, or so old that its result would have expired; one that is no id is not looked for."""
    assert await reason_of(broker.get(ids.new_id())) is Reason.COMMAND_UNKNOWN
    assert await reason_of(broker.get(old_id(600))) is Reason.COMMAND_UNKNOWN  # some clock may be slow
    assert await reason_of(broker.get(old_id(700))) is Reason.RESULT_EXPIRED
    assert await reason_of(broker.get(old_id(-3600))) is Reason.COMMAND_UNKNOWN
    for bad in ("", "x", "*", ids.new_id().upper(), str(uuid.uuid4()), "9" * 100_000):
        assert await reason_of(broker.get(bad)) is Reason.INVALID_COMMAND
    garbage = ids.new_id()
    await redis.set(keys.command(garbage), b"\xff\xff")
    assert await reason_of(broker.get(garbage)) is Reason.COMMAND_UNKNOWN


async def test_whether_it_ran_is_not_known_where_it_is_not_found(
    start_broker: Any, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its replica may have been killed after it ran, or Redis may be away: `no` would be a promise."""
    monkeypatch.setattr("broker.store.store.DRAIN_S", 0.1)
    async with open_store("redis://127.0.0.1:1", result_ttl_s=600) as away:
        for where, reason in ((store, Reason.COMMAND_UNKNOWN), (away, Reason.STORE_UNAVAILABLE)):
            async with start_broker(where) as broker:
                for look in (broker.get, broker.cancel):
                    with pytest.raises(OpenlineError) as unknown:
                        await look(ids.new_id())
                    assert (unknown.value.reason, unknown.value.error.executed) == (reason, UNKNOWN)


async def test_a_result_is_had_until_it_expires(broker: Any, redis: Any, frames: Any) -> None:
    executor = await broker.executor()
    name = old_id(3600)
    asked = broker.execute(command_id=name)
    await executor.run_one(b"x")
    await asked
    await executor.expect("result_ack")
    # However old its id is, as long as it is stored.
    assert (await broker.get(name)).result.stdout == b"x"
    await redis.delete(keys.command(name))
    with pytest.raises(OpenlineError) as expired:
        await broker.get(name)
    assert (expired.value.reason, expired.value.error.executed) == (Reason.RESULT_EXPIRED, YES)


async def test_a_lookup_needs_a_scope(broker: Any, command_id: str) -> None:
    """`read` to look, `execute` to cancel."""
    assert await reason_of(broker.cancel(command_id, key="the-key-of-carol")) is Reason.SCOPE_MISSING
    assert await reason_of(broker.get(command_id, key="the-key-of-carol")) is Reason.COMMAND_UNKNOWN


# CancelCommand


async def test_cancel_of_a_running_command(broker: Any, frames: Any) -> None:
    """The executor is told why, and the caller gets what it wrote until then."""
    executor = await broker.executor()
    asked = broker.execute()
    name = await executor.begin_one()
    await executor.send(frames.output(name, 0, b"so far"))
    assert await broker.cancel(name, why="no longer needed") == "RUNNING"
    cancel = await executor.expect("cancel")
    assert (cancel.command_id, cancel.why) == (name, "no longer needed")
    await executor.send(frames.finished(name, outcome=command_pb2.OUTCOME_CANCELLED))
    with pytest.raises(OpenlineError) as cancelled:
        await asked
    assert cancelled.value.reason is Reason.CANCELLED
    assert cancelled.value.result is not None
    assert cancelled.value.result.stdout == b"so far"


async def is_queued(broker: Any, name: str) -> bool:
    """Whether the broker has the command waiting; it may not have heard of it yet."""
    try:
        found = await broker.get(name, key="the-key-of-root")
    except OpenlineError:
        return False
    return bool(found.state == command_pb2.COMMAND_STATE_QUEUED)


async def test_cancel_of_a_queued_command(broker: Any, frames: Any) -> None:
    """It ends at once, surely not run, and its executor never hears of it."""
    executor = await broker.executor()
    busy = await fill(broker, executor)
    name = ids.new_id()
    asked = broker.execute(command_id=name)
    async with asyncio.timeout(10):
        while not await is_queued(broker, name):
            pass
    assert await broker.cancel(name) == "QUEUED"
    with pytest.raises(OpenlineError) as cancelled:
        await asked
    assert (cancelled.value.reason, cancelled.value.error.executed) == (Reason.CANCELLED, NO)
    assert await broker.cancel(name) == "DONE"
    await executor.sync()
    for one in busy:
        one.cancel()


async def test_cancel_of_a_done_command_changes_nothing(broker: Any) -> None:
    """Twice, before and after it is stored."""
    executor = await broker.executor()
    asked = broker.execute()
    name = (await executor.run_one(b"x")).command_id
    answer = await asked
    assert await broker.cancel(name) == "DONE"
    await executor.expect("result_ack")
    assert await broker.cancel(name) == "DONE"
    assert (await broker.get(name)).result == answer.result
    await executor.sync()


async def test_cancel_of_what_is_not_ones_own(broker: Any, frames: Any) -> None:
    """It does not exist for others, and they cannot stop it; an admin can."""
    executor = await broker.executor()
    asked = broker.execute()
    name = await executor.begin_one()
    assert await reason_of(broker.cancel(name, key="the-key-of-bob")) is Reason.COMMAND_UNKNOWN
    assert await reason_of(broker.cancel(ids.new_id())) is Reason.COMMAND_UNKNOWN
    assert await reason_of(broker.cancel("x")) is Reason.INVALID_COMMAND
    await executor.sync()
    assert await broker.cancel(name, key="the-key-of-root") == "RUNNING"
    await executor.expect("cancel")
    asked.cancel()


async def test_an_endless_reason_is_cut(broker: Any) -> None:
    """It travels on in frames and statuses."""
    executor = await broker.executor()
    broker.execute()
    name = await executor.begin_one()
    await broker.cancel(name, why="x" * 1_000_000)
    assert len((await executor.expect("cancel")).why) <= 300


async def test_an_executor_that_does_not_stop(broker: Any, later: Any) -> None:
    """A cancel is a wish: the deadline still holds."""
    executor = await broker.executor()
    asked = broker.execute(timeout_s=10)
    name = await executor.begin_one()
    assert await broker.cancel(name) == "RUNNING"
    later(broker, 10 + DEADLINE_ALLOWANCE_S)
    with pytest.raises(OpenlineError) as ended:
        await asked
    assert ended.value.reason is Reason.COMMAND_TIMEOUT
