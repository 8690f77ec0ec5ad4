"""What is made of files, such as certificates, and made again when they have changed.

A change is found when somebody asks for what is current, and by `watch` without that. New files of which nothing can
be made are refused with a line in the log, and what was made before stays in use. Another line says that the
certificate that is shown is about to expire, or has; not of files that are only checked, and never asked for.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog
from structlog.typing import FilteringBoundLogger

from openline.expiry import Expiry

# So long after a change at the latest it is said whether the new files can be used. A look takes microseconds.
LOOK_EVERY_S = 1.0

T = TypeVar("T")

# What tells one state of a file from another: Kubernetes replaces a mounted file by another one. None without a file.
Mark = tuple[int, int, int] | None


def look(file: Path) -> Mark:
    """None for a file that cannot be looked at."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


class Fresh(Generic[T]):
    """What `make` makes of the files. Thread-safe: gRPC asks in a thread of its own.

    `make` raises OSError when it cannot; the first time that goes through. `use` says in the log what it is for, and
    `shown` is that one of the files which has this end's own certificate; None also where somebody else tells of it.
    """

    def __init__(
        self,
        files: Sequence[Path],
        make: Callable[[], T],
        *,
        use: str,
        shown: Path | None = None,
        log: FilteringBoundLogger | None = None,
    ) -> None:
        self._files = tuple(files)
        self._make = make
        self._log: FilteringBoundLogger = (log or structlog.get_logger()).bind(use=use)
        self._lock = threading.Lock()
        # Of the state that was taken or refused last.
        self._marks = self._look()
        self._made = make()
        self._expiry = Expiry(shown, self._log)

    @property
    def expires_at(self) -> float | None:
        """When the certificate that is shown expires, in Unix seconds; None where that is not known, or none is."""
        return self._expiry.at

    def current(self) -> T:
        """What the files give now, or gave when they could be used last; the same object until they change."""
        with self._lock:
            # Before they are read: what is written meanwhile is read the next time.
            marks = self._look()
            if marks != self._marks:
                self._marks = marks
                self._make_again()
            self._expiry.tell(time.time())
            return self._made

    async def watch(self) -> None:
        """Looks until it is cancelled by its owner: whoever replaces the files is soon told what has become of it."""
        while True:
            self.current()
            await asyncio.sleep(LOOK_EVERY_S)

    def _make_again(self) -> None:
        try:
            made = self._make()
        except OSError as problem:
            self._log.error("certificates.refused", why=str(problem), files=list(map(str, self._files)))
            return
        # Of two states there may be a part each in it.
        if self._look() == self._marks:
            self._made = made
            self._log.info("certificates.taken", files=list(map(str, self._files)))
            self._expiry.read()

    def _look(self) -> tuple[Mark, ...]:
        return tuple(map(look, self._files))
