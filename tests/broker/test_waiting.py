"""Executions that wait for Redis, and are cancelled before they are commands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broker.core.command import Ask
from broker.core.whose import Whose
from broker.execution import Answer, Execution
from broker.waiting import Waiting
from openline import ids
from openline.errors import CANCELLED_WITH
from openline.reasons import NO, UNKNOWN
from openline.v1 import command_pb2

ALICE = Whose(owner="alice")


def ask_of(owner: str = "alice", **fields: Any) -> Ask:
    usual: dict[str, Any] = {"cluster_id": "prod", "argv": ("get", "pods"), "timeout_s": 20.0, "max_output_bytes": 1024}
    return Ask(command_id=ids.new_id(), owner=owner, **(usual | fields))


class Asked:
    """One execution, and what its caller was told."""

    def __init__(self) -> None:
        self.told: list[Answer] = []
        # The dispatcher is for commands, and none becomes one here.
        self.execution = Execution(None, self.told.append, begun=None, cancel_on_disconnect=False)  # type: ignore[arg-type]


async def for_ever(_execution: Execution) -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def waiting_room() -> AsyncIterator[tuple[Waiting, set[str]]]:
    expected: set[str] = set()
    waiting = Waiting(expected)
    try:
        yield waiting, expected
    finally:
        await waiting.close()
        assert (len(waiting), expected) == (0, set())


@pytest.mark.parametrize(
    ("is_new", "has_claimed", "attach", "executed"),
    [
        (True, False, False, NO),
        (False, True, False, NO),
        (False, False, False, UNKNOWN),
        (False, False, True, UNKNOWN),
        (False, True, True, UNKNOWN),
    ],
    ids=["new", "has its key", "waits for its key", "is looked for", "has its first try's key"],
)
async def test_whoever_waits_is_told_whether_it_may_have_run(
    is_new: bool, has_claimed: bool, attach: bool, executed: command_pb2.Executed.ValueType
) -> None:
    """Behind a key or an id that was used before there may be a command that somebody else has."""
    asked, ask = Asked(), ask_of(attach=attach)
    asked.execution.release = (lambda: None) if has_claimed else None
    async with waiting_room() as (waiting, expected):
        waiting.add(for_ever, asked.execution, ask, is_new=is_new)
        assert expected == {ask.command_id}
        assert waiting.cancel(ALICE, why="stop") == {ask.command_id}
        [told] = asked.told
        assert isinstance(told, command_pb2.Error)
        assert (told.reason, told.message, told.executed) == ("CANCELLED", "stop", executed)
        assert told.metadata[CANCELLED_WITH] == "owner"
        assert asked.execution.over


async def test_nobody_else_is_told() -> None:
    """Another owner's, one that was answered already, and one that is no command any more."""
    others, gone, refused = Asked(), Asked(), Asked()
    async with waiting_room() as (waiting, _):
        waiting.add(for_ever, others.execution, ask_of("bob"))
        waiting.add(for_ever, gone.execution, ask_of())
        gone.execution.abandon()
        waiting.add(for_ever, refused.execution)
        assert waiting.cancel(ALICE, why="stop") == set()
    assert [asked.told for asked in (others, gone, refused)] == [[], [], []]
