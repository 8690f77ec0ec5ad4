"""Running one command in many clusters for a call: until all have answered, or as long as a client waits."""

import asyncio
from collections.abc import Sequence

from gateway.calling_off import Commands
from gateway.command_answers import Wish
from gateway.fanning import Answered, Ended, FanOut
from gateway.fanout import OF_THE_KEY
from gateway.mcp.call import Call, ended
from gateway.mcp.telling import Told, failed
from gateway.mcp.together import Together
from openline.errors import OpenlineError
from openline.v1.command_service_pb2 import ExecuteRequest


async def run_in_many(
    requests: Sequence[ExecuteRequest], call: Call, wish: Wish, *, labels_unknown: Sequence[str]
) -> Told:
    """Asks all. Where there is no answer in time, it is said how to get it; raises nothing that is a cluster's own."""
    fanout = FanOut(call.pipes, call.caller, wish, requests, commands=call.commands)
    asking = _Asking(requests, call.commands, labels_unknown)
    work = asyncio.create_task(fanout.run(asking.take), name="mcp-fanout")
    # No more is begun before what was begun is cancelled.
    async with call.running(), ended(work):
        if await call.wait(work, wait_s=call.left_s(), describe=asking.describe):
            work.result()
    return asking.told()


class _Asking:
    """How far a fan-out has come."""

    def __init__(self, requests: Sequence[ExecuteRequest], commands: Commands, labels_unknown: Sequence[str]) -> None:
        self._requests = requests
        self._commands = commands
        self._together = Together([request.cluster_id for request in requests], labels_unknown)
        self._ended: set[str] = set()
        self._failures: list[OpenlineError] = []

    async def take(self, ended: Ended) -> None:
        request = ended.request
        self._ended.add(request.command_id)
        if isinstance(ended, Answered):
            self._together.answered(ended.answer)
        else:
            self._failures.append(ended.failure)
            self._together.failed(request.cluster_id, request.command_id, ended.failure)

    def describe(self) -> str:
        return f"{len(self._ended)} of {len(self._requests)} clusters have answered"

    def told(self) -> Told:
        if 0 < len(self._failures) == len(self._requests) and self._failures[0].reason in OF_THE_KEY:
            return failed(self._failures[0])
        for request in self._requests:
            if request.command_id in self._ended:
                continue
            begun = request.command_id in self._commands.running
            self._together.unfinished(
                request.cluster_id,
                request.command_id,
                message="it runs on: get_result waits for it" if begun else "its turn did not come: ask it again",
                executed="unknown" if begun else "no",
            )
        return self._together.told()
