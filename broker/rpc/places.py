"""How many calls of one kind may be open at one time: those that wait, and each costs a task and a stream."""

import contextlib
from collections.abc import Iterator

from broker.core import quotas
from openline import errors


class Places:
    def __init__(self, most: int, *, full: str) -> None:
        """`full` says what there is too much of."""
        self._most = most
        self._full = full
        self._taken = 0

    def __repr__(self) -> str:
        return f"<Places {self._taken} of {self._most}>"

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Raises QUOTA_EXCEEDED when all are taken."""
        if self._taken >= self._most:
            raise errors.OpenlineError(quotas.full(self._most, self._full))
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
