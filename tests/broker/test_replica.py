"""The tasks of a replica that are nobody's call."""

from typing import Any

import pytest

from broker.presence import Presence
from broker.store.store import Store


async def test_a_task_that_ends_is_told_of(
    start_broker: Any, store: Store, log_lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect must not leave a replica that nobody finds, and say nothing."""

    async def end(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Presence, "run", end)
    async with start_broker() as broker:
        await broker.refused()
    told = [(line["task"], str(line["exc_info"])) for line in log_lines if line["event"] == "replica.task_ended"]
    assert told == [("presence", "a defect")]
