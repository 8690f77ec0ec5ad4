"""Quotas as callers meet them: in a real broker, and in two that share a Redis."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from broker.store.store import open_store
from openline.errors import OpenlineError
from openline.reasons import NO, Reason
from openline.v1 import command_service_pb2 as pb

PATIENCE_S = 20.0
pytestmark = pytest.mark.usefixtures("one_window")


@contextlib.asynccontextmanager
async def serving(executor: Any) -> AsyncIterator[None]:
    """The executor runs whatever comes."""

    async def serve() -> None:
        while True:
            frame = await executor.next()
            if frame.HasField("execute"):
                await executor.send(*executor._say.ran(frame.execute.command_id, b"x"))

    task = asyncio.create_task(serve())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def outcome(asked: "asyncio.Task[pb.ExecuteResponse]") -> Reason | None:
    try:
        await asked
    except OpenlineError as failure:
        return failure.reason
    return None


async def told(redis: Any, commands: int) -> None:
    """The replicas have told that together they have admitted so many; each has heard what there was before it told."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            [key] = await redis.keys("openline:quota:*") or [b""]
            counts = [int(told.split()[1]) for told in await redis.hvals(key)]
            if sum(counts) == commands:
                return
            await asyncio.sleep(0.02)


async def test_answers_tell_what_is_left_and_then_it_is_refused(start_broker: Any) -> None:
    """Each owner has its own; the command that is refused was not run."""
    async with start_broker(quota_commands_per_minute=2) as broker, serving(await broker.executor()):
        for left in (1, 0):
            [state] = (await broker.execute()).quotas
            assert (state.name, state.limit, state.remaining, state.window_s) == ("commands", 2, left, 60)
            assert 0 < state.reset_s <= 60
        refused = await broker.refused()
        assert (refused.reason, refused.error.executed) == (Reason.QUOTA_EXCEEDED, NO)
        assert abs(refused.retry_after_s - float(refused.metadata["reset_s"])) < 0.01
        assert refused.metadata["quota"] == "commands"
        assert len((await broker.execute(key="the-key-of-bob")).quotas) == 1


async def test_without_a_quota_nothing_is_said_nor_written(broker: Any, redis: Any) -> None:
    async with serving(await broker.executor()):
        assert list((await broker.execute()).quotas) == []
    assert await redis.keys("openline:quota:*") == []


async def test_the_three_ways_to_execute_count_alike(start_broker: Any) -> None:
    async with start_broker(quota_commands_per_minute=3) as broker, serving(await broker.executor()):
        await broker.execute()
        await broker.stream().rest()
        pipe = await broker.pipe()
        request = pb.ExecuteRequest(cluster_id="prod", argv=["get", "pods"], timeout_s=20)
        await pipe.send(pb.CallerFrame(call_id=1, execute=request))
        [state] = (await pipe.next()).response.quotas
        assert state.remaining == 0
        await pipe.send(pb.CallerFrame(call_id=2, execute_stream=request))
        assert (await pipe.next()).error.reason == Reason.QUOTA_EXCEEDED
        with pytest.raises(OpenlineError) as refused:
            await broker.stream().next()
        assert refused.value.reason is Reason.QUOTA_EXCEEDED


async def test_what_is_not_run_does_not_count(start_broker: Any, command_id: str) -> None:
    """Neither a cluster that is offline or unknown, at once or after a wait, nor an answer that is given again."""
    async with start_broker(quota_commands_per_minute=3) as broker:
        for _ in range(4):
            assert (await broker.refused()).reason is Reason.CLUSTER_OFFLINE
            assert (await broker.refused(cluster_id="nowhere")).reason is Reason.CLUSTER_UNKNOWN
            assert (await broker.refused(wait_for_cluster_s=0.02)).reason is Reason.CLUSTER_OFFLINE
        async with serving(await broker.executor()):
            for replayed in (False, True, True):
                answer = await broker.execute(idempotency_key="k")
                assert (answer.replayed, answer.quotas[0].remaining) == (replayed, 2)
            for _ in range(3):
                assert (await broker.execute(command_id=command_id)).quotas[0].remaining == 1


async def test_a_refused_key_is_free_again(start_broker: Any) -> None:
    """An idempotency key whose command the quota refused has claimed nothing."""
    async with start_broker(quota_in_flight=1) as broker:
        executor = await broker.executor()
        running = broker.execute()
        running_id = await executor.begin_one()
        assert (await broker.refused(idempotency_key="k")).reason is Reason.QUOTA_EXCEEDED
        await executor.send(executor._say.finished(running_id))
        assert (await running).quotas[0].remaining == 1
        await executor.expect("result_ack")
        again = broker.execute(idempotency_key="k")
        await executor.run_one()
        assert not (await again).replayed
        await broker.inside.nothing_left()


async def test_a_command_is_in_flight_until_it_ends_whether_or_not_its_caller_waits(start_broker: Any) -> None:
    async with start_broker(quota_in_flight=1) as broker:
        executor = await broker.executor()
        left = broker.execute()
        running_id = await executor.begin_one()
        left.cancel()
        refused = await broker.refused()
        assert (refused.metadata["quota"], refused.metadata["window_s"], refused.retry_after_s) == ("in-flight", "0", 1)
        await executor.send(executor._say.finished(running_id))
        await executor.expect("result_ack")
        again = broker.execute()
        await executor.run_one()
        await again


async def test_two_replicas_hold_a_limit_together(start_broker: Any, redis: Any) -> None:
    """What one has counted the other hears behind the answers; a command that is forwarded counts once."""
    limits = {"quota_commands_per_minute": 40}
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(start_broker(replica_id="r1", **limits))
        other = await stack.enter_async_context(start_broker(replica_id="r2", **limits))
        await stack.enter_async_context(serving(await one.executor()))
        await stack.enter_async_context(serving(await other.executor(executor_id="exec-2")))
        admitted = 0
        # A few at a time on each, and time for them to hear of each other.
        for _ in range(7):
            asked = [replica.execute() for replica in (one, other) for _ in range(5)]
            admitted += sum([await outcome(task) is None for task in asked])
            await told(redis, admitted)
    assert 40 <= admitted <= 60  # of 70 that were asked
    [key] = await redis.keys("openline:quota:*")
    assert 0 < await redis.ttl(key) <= 120


async def test_without_redis_each_replica_goes_on_with_what_it_knows(start_broker: Any) -> None:
    async with contextlib.AsyncExitStack() as stack:
        nowhere = await stack.enter_async_context(open_store("redis://127.0.0.1:1", result_ttl_s=60))
        broker = await stack.enter_async_context(start_broker(nowhere, quota_commands_per_minute=3))
        await stack.enter_async_context(serving(await broker.executor()))
        assert [(await broker.execute()).quotas[0].remaining for _ in range(3)] == [2, 1, 0]
        assert (await broker.refused()).reason is Reason.QUOTA_EXCEEDED


# Conversations


async def test_a_conversation_has_a_quota_of_its_own(start_broker: Any) -> None:
    """By its correlation id or its session, and its owner; what belongs to none is not counted in any."""
    async with start_broker(quota_conversation_commands_per_minute=2) as broker, serving(await broker.executor()):
        for left in (1, 0):
            [state] = (await broker.execute(correlation_id="c-1")).quotas
            assert (state.name, state.limit, state.remaining) == ("conversation-commands", 2, left)
        refused = await broker.refused(correlation_id="c-1")
        assert (refused.reason, refused.error.executed) == (Reason.QUOTA_EXCEEDED, NO)
        assert refused.metadata["quota"] == "conversation-commands"
        assert 0 < refused.retry_after_s <= 60
        assert (await broker.execute(correlation_id="c-2")).quotas[0].remaining == 1
        assert (await broker.execute(correlation_id="c-1", key="the-key-of-bob")).quotas[0].remaining == 1
        for _ in range(3):
            assert list((await broker.execute()).quotas) == []


async def test_the_owner_s_quota_holds_over_all_conversations(start_broker: Any) -> None:
    """Whoever makes up one for each command comes no further; and one that its conversation refuses costs nothing."""
    limits = {"quota_commands_per_minute": 3, "quota_conversation_commands_per_minute": 1}
    async with start_broker(**limits) as broker, serving(await broker.executor()):
        assert [state.name for state in (await broker.execute(correlation_id="c-0")).quotas] == [
            "commands",
            "conversation-commands",
        ]
        for _ in range(5):
            assert (await broker.refused(correlation_id="c-0")).metadata["quota"] == "conversation-commands"
        for name in ("c-1", "c-2"):
            await broker.execute(correlation_id=name)
        for number in range(3, 9):
            assert (await broker.refused(correlation_id=f"c-{number}")).metadata["quota"] == "commands"
        [admission] = broker.inside.parts["Executions"]
        assert len(admission._admission._conversations) == 3


async def test_a_conversation_s_place_is_free_when_its_command_ends(start_broker: Any) -> None:
    async with start_broker(quota_conversation_in_flight=1) as broker:
        executor = await broker.executor()
        asked = broker.execute(correlation_id="c-1")
        name = await executor.begin_one()
        refused = await broker.refused(correlation_id="c-1")
        assert (refused.metadata["quota"], refused.retry_after_s) == ("conversation-in-flight", 1)
        other = broker.execute(correlation_id="c-2")
        await executor.run_one()
        await other
        await executor.send(executor._say.finished(name))
        assert (await asked).quotas[0].remaining == 1


async def test_replicas_hold_a_conversation_s_limit_together(start_broker: Any, redis: Any) -> None:
    """In one hash of Redis; and of a thousand that were made up there is none."""
    limits = {"quota_conversation_commands_per_minute": 20}
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(start_broker(replica_id="r1", **limits))
        other = await stack.enter_async_context(start_broker(replica_id="r2", **limits))
        await stack.enter_async_context(serving(await one.executor()))
        await stack.enter_async_context(serving(await other.executor(executor_id="exec-2")))
        for number in range(20):
            await one.execute(correlation_id=f"made-up-{number}")
        admitted = 0
        for _ in range(4):
            asked = [replica.execute(correlation_id="c-1") for replica in (one, other) for _ in range(5)]
            admitted += sum([await outcome(task) is None for task in asked])
            await told(redis, admitted)
    assert 20 <= admitted <= 30  # of 40 that were asked
    [key] = await redis.keys("openline:quota:*")
    assert 0 < await redis.ttl(key) <= 120
