"""Asking the other replicas for a command."""

import asyncio
from typing import Any

from broker.rpc.finding import Answer, answers
from openline.errors import error
from openline.reasons import Reason
from openline.v1 import command_pb2


async def test_nobody_waits_for_the_others_once_what_is_wanted_is_found() -> None:
    """A command of the same id that is not wanted is no reason: how long it takes must not tell that it is there."""
    go_on = asyncio.Event()

    async def says(answer: Answer, *, late: bool = False) -> Answer:
        if late:
            await go_on.wait()
        return answer

    command = command_pb2.Command(cluster_id="prod")
    unknown = error(Reason.COMMAND_UNKNOWN, "no such command")

    def questions() -> Any:
        return {"r1": says(command), "r2": says(unknown, late=True)}

    assert await answers(questions(), lambda _: True) == {"r1": command}
    asked = asyncio.create_task(answers(questions(), lambda each: each.cluster_id != "prod"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not asked.done()
    go_on.set()
    assert await asked == {"r1": command, "r2": unknown}
