"""How much this process logs: from the level that it was started with, or from another one for a while.

structlog has a class for each level, in which the methods below it do nothing, and its loggers are made once and kept.
So all of ours are of one class, and to change the level is to give that class the methods of another one: a line costs
what it would without.
"""

import asyncio
import logging
import signal
from typing import Literal

import structlog

LogLevel = Literal["debug", "info", "warning", "error"]

USUAL_S = 600.0
MAX_S = 24 * 3600.0

log = structlog.get_logger()


class AdjustableLogger(structlog.BoundLoggerBase):
    """structlog's filtering logger, of the level in force: see `Loudness`."""


class Loudness:
    """Of this process, as structlog's configuration is."""

    def __init__(self) -> None:
        # Of the start.
        self.usual: LogLevel = "info"
        self.level: LogLevel = "info"
        # For lines that are too many to be made and thrown away.
        self.is_debug = False
        self._over: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Loudness {self.level} usual={self.usual}>"

    def begin(self, level: LogLevel) -> None:
        """This is the level of the start."""
        self.usual = level
        self._take(level)

    def change(self, level: LogLevel | None, *, for_s: float = USUAL_S, by: str) -> None:
        """Takes another level for so long, or with None that of the start; in the loop's thread.

        One line says so, whatever the levels are.
        """
        if self._over is not None:
            self._over.cancel()
            self._over = None
        was, to = self.level, level or self.usual
        more = {}
        if to != self.usual:
            more["for_s"] = round(for_s, 1)
            self._over = asyncio.get_running_loop().call_later(for_s, self._end)
        self._take("info")
        log.info("log.level_changed", to=to, was=was, by=by, **more)
        self._take(to)

    def toggle_on_signal(self) -> None:
        """From now on SIGUSR1 begins to log everything, for ten minutes, and ends it when it comes again."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._toggle)

    def _toggle(self) -> None:
        self.change(None if self.is_debug else "debug", by="signal")

    def _end(self) -> None:
        self.change(None, by="time")

    def _take(self, level: LogLevel) -> None:
        threshold = logging.getLevelNamesMapping()[level.upper()]
        self.level = level
        self.is_debug = level == "debug"
        for name, method in vars(structlog.make_filtering_bound_logger(threshold)).items():
            if not name.startswith("_"):
                setattr(AdjustableLogger, name, method)
        # Of libraries what is below is of use to those who work on them.
        logging.getLogger().setLevel(max(threshold, logging.WARNING))


LOUDNESS = Loudness()
