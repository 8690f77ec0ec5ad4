"""A result is accepted only from where its command was sent to, or from the same process after a reconnect.

Over real streams; what the ledger makes of each frame is in `core/test_ledger.py`.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from openline.errors import OpenlineError
from openline.reasons import Reason
from openline.v1 import executor_service_pb2 as wire

PATIENCE_S = 20.0


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


async def tell(executor: Any, *frames: wire.ExecutorFrame) -> list[str]:
    """Sends these, and waits until the broker has handled them; the kinds of what it has said meanwhile."""
    heard: list[str] = []
    await executor.send(*frames, wire.ExecutorFrame(heartbeat=wire.Heartbeat(seq=7)))
    while (frame := await executor.next()).WhichOneof("frame") != "heartbeat_ack":
        heard.append(frame.WhichOneof("frame"))
    return heard


@pytest.fixture
async def holder(broker: Any) -> Any:
    return await broker.executor(executor_id="exec-1", instance_id="instance-1")


@pytest.fixture
async def running(broker: Any, holder: Any) -> tuple[str, "asyncio.Task[Any]"]:
    """A command that the holder runs: its id, and who waits for it."""
    asked = broker.execute()
    return await holder.begin_one(), asked


# Who else may be connected, with the token of which cluster, and what it says of itself.
OTHERS = {
    "another executor of the cluster": ("the-token-of-prod", "prod", "exec-2", "instance-2"),
    "another executor that says the same instance id": ("the-token-of-prod", "prod", "exec-2", "instance-1"),
    "another cluster": ("the-token-of-staging", "staging", "exec-2", "instance-2"),
    "another cluster that says the same of itself": ("the-token-of-staging", "staging", "exec-1", "instance-1"),
}


@pytest.mark.parametrize("name", OTHERS)
async def test_nobody_else_can_end_a_command(
    broker: Any, frames: Any, holder: Any, running: tuple[str, "asyncio.Task[Any]"], name: str
) -> None:
    """Whatever they say of it: its result, that they rejected it, its output, or that they had it all along."""
    command_id, asked = running
    token, cluster_id, executor_id, instance_id = OTHERS[name]
    other = broker.dial(token=token)
    who = {"cluster_id": cluster_id, "executor_id": executor_id, "instance_id": instance_id}
    welcome = await other.hello(**who, in_flight_ids=[command_id], unacked_ids=[command_id])
    assert wire.VERDICT_ACTION_KEEP not in {verdict.action for verdict in welcome.verdicts}
    for said in (frames.ran(command_id, b"forged"), [frames.rejected(command_id)], frames.ran(command_id)):
        assert await tell(other, *said) == []
    assert not asked.done()
    await holder.send(frames.output(command_id, 0, b"true"), frames.finished(command_id))
    assert (await asked).result.stdout == b"true"


async def test_the_same_process_can_after_a_reconnect_and_its_old_connection_cannot(
    broker: Any, frames: Any, holder: Any, running: tuple[str, "asyncio.Task[Any]"]
) -> None:
    """The stream before is ended, and whoever still holds it is not heard any more."""
    command_id, asked = running
    again = broker.dial()
    [verdict] = (await again.hello(in_flight_ids=[command_id])).verdicts
    assert verdict.action == wire.VERDICT_ACTION_KEEP
    assert "newer connection" in str(await holder.status())
    with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
        await holder.send(frames.output(command_id, 0, b"old"), frames.finished(command_id))
    assert await tell(again) == []
    assert not asked.done()
    await again.send(frames.output(command_id, 0, b"new"), frames.finished(command_id))
    assert (await asked).result.stdout == b"new"


async def test_the_next_process_cannot_go_on_with_what_ran(
    broker: Any, frames: Any, holder: Any, running: tuple[str, "asyncio.Task[Any]"]
) -> None:
    """Only with results that the last one had finished and left on disk."""
    command_id, asked = running
    after = broker.dial()
    await after.hello(instance_id="instance-2", in_flight_ids=[command_id])
    await tell(after, *frames.ran(command_id, b"forged"))
    with pytest.raises(OpenlineError) as lost:
        await asked
    assert lost.value.reason is Reason.EXECUTOR_LOST
