"""How much a program logs, changed while it runs."""

import asyncio
import json
import logging
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from openline.loudness import LOUDNESS, AdjustableLogger, LogLevel

PATIENCE_S = 20.0
LEVELS: tuple[LogLevel, ...] = ("debug", "info", "warning", "error")


@pytest.fixture(autouse=True)
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """As in a program, but for where lines go; what was written."""
    before, root = structlog.get_config(), logging.getLogger().level
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        wrapper_class=AdjustableLogger,
        logger_factory=(factory := structlog.testing.CapturingLoggerFactory()),
        cache_logger_on_first_use=True,
    )
    # It is kept from its first line on, with whatever was set up then.
    monkeypatch.setattr("openline.loudness.log", structlog.get_logger())
    LOUDNESS.begin("info")
    yield factory.logger.calls
    if LOUDNESS._over is not None:
        LOUDNESS._over.cancel()
    LOUDNESS.begin("info")
    logging.getLogger().setLevel(root)
    structlog.configure(**before)


def heard(log: structlog.typing.FilteringBoundLogger) -> list[str]:
    """The levels at which this logger says something now."""
    with structlog.testing.capture_logs() as lines:
        for level in LEVELS:
            getattr(log, level)("said")
    return [line["log_level"] for line in lines]


@pytest.mark.parametrize("level", LEVELS)
async def test_every_logger_has_the_level_at_once(level: LogLevel) -> None:
    """Those that were made before, also those that are kept and bound, and those that come after."""
    kept = structlog.get_logger()
    kept.info("is made and kept")
    bound = kept.bind(epoch=7)
    LOUDNESS.change(level, by="test")
    expected = list(LEVELS[LEVELS.index(level) :])
    assert heard(kept) == heard(bound) == heard(structlog.get_logger()) == expected
    assert LOUDNESS.is_debug == (level == "debug")


async def test_it_goes_back_by_itself() -> None:
    """To the level of the start; a change that comes meanwhile has its own time."""
    LOUDNESS.begin("warning")
    LOUDNESS.change("debug", for_s=0.01, by="test")
    clock = asyncio.get_running_loop().time
    began = clock()
    LOUDNESS.change("info", for_s=0.1, by="test")
    assert LOUDNESS.level == "info"
    async with asyncio.timeout(PATIENCE_S):
        while LOUDNESS.level != "warning":
            await asyncio.sleep(0.01)
    assert clock() - began >= 0.1


async def test_it_is_put_back_before_its_time() -> None:
    """Nothing is left that would change it later."""
    LOUDNESS.change("debug", for_s=0.02, by="test")
    LOUDNESS.change(None, by="test")
    assert LOUDNESS.level == "info"
    LOUDNESS.change("error", for_s=PATIENCE_S, by="test")
    await asyncio.sleep(0.05)
    assert LOUDNESS.level == "error"
    LOUDNESS.change(None, by="test")


@pytest.mark.parametrize(("was", "to"), [("info", "error"), ("error", "debug"), ("error", "error")])
async def test_each_change_is_told(was: LogLevel, to: LogLevel, written: list[Any]) -> None:
    """Whatever the levels are, since a log that falls silent must say why."""
    LOUDNESS.begin(was)
    LOUDNESS.change(to, for_s=60, by="ops")
    [line] = [json.loads(call.args[0]) for call in written]
    for_s = {} if to == was else {"for_s": 60}
    assert line == {"event": "log.level_changed", "level": "info", "to": to, "was": was, "by": "ops", **for_s}


async def test_a_signal_begins_and_ends_it() -> None:
    """SIGUSR1, twice."""
    LOUDNESS.toggle_on_signal()
    for level in ("debug", "info"):
        os.kill(os.getpid(), signal.SIGUSR1)
        async with asyncio.timeout(PATIENCE_S):
            while LOUDNESS.level != level:
                await asyncio.sleep(0.001)
    asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)


def test_the_logger_has_all_that_structlogs_has() -> None:
    """In each level the same methods, or one would keep what another level gave it."""
    of_levels = [
        {name for name in vars(structlog.make_filtering_bound_logger(level)) if not name.startswith("_")}
        for level in LEVELS
    ]
    assert all(names == of_levels[0] for names in of_levels)
    assert of_levels[0] <= set(vars(AdjustableLogger))
