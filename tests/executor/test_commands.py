"""What the core decides, carried out on both event loops: uvloop's, which the program uses, and asyncio's."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from executor.commands import Commands
from executor.core import Core
from executor.kubectl import Kubectl
from executor.policy import PolicyInForce
from openline import limits
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire


@pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_deadlines_that_come_at_once(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    stub_kubectl: Callable[[str], Path],
    execute: Callable[..., wire.BrokerFrame],
    tmp_path: Path,
) -> None:
    """Within the turn of the loop in which the commands came: they time out, and the next command is served."""
    told: dict[str, wire.Finished] = {}

    def put(frame: wire.ExecutorFrame, *, output: bool = False) -> None:
        if frame.HasField("finished"):
            told[frame.finished.command_id] = frame.finished

    async def scenario() -> None:
        core = Core(max_concurrency=4, judge=PolicyInForce().judge)
        kubectl = Kubectl(path=stub_kubectl('test "$1" = logs && exec sleep 60; exit 0'), home=tmp_path)
        async with asyncio.timeout(60), Commands(core, kubectl) as commands:
            commands.welcomed(wire.Welcome(protocol_version=limits.PROTOCOL_VERSION), put)
            for command_id in ("a", "b"):
                commands.received(execute("logs", "x", command_id=command_id, timeout_s=0.0004))
            await commands.until(lambda: len(told) == 2)
            commands.received(execute("get", "pods", command_id="c"))
            await commands.until(lambda: len(told) == 3)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(scenario())
    outcomes = {command_id: finished.outcome for command_id, finished in told.items()}
    assert outcomes == {
        "a": command_pb2.OUTCOME_TIMED_OUT,
        "b": command_pb2.OUTCOME_TIMED_OUT,
        "c": command_pb2.OUTCOME_EXITED,
    }
