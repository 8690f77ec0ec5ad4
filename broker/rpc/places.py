"""How many calls of one kind may be open at one time: those that wait, and each costs a task and a stream."""

import contextlib
from collections import Counter
from collections.abc import Iterator

from broker.core import quotas
from openline import errors


class Places:
    def __init__(self, most: int, *, full: str, of_owner: int | None = None) -> None:
        """`full` says what there is too much of; `of_owner` is how many one owner may have, where that is asked."""
        self._most = most
        self._full = full
        self._most_of_owner = of_owner or most
        # How many each owner has; all that are nobody's in particular are under no name.
        self._taken: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Places {self._taken.total()} of {self._most}>"

    @contextlib.contextmanager
    def one(self, owner: str = "") -> Iterator[None]:
        """Raises QUOTA_EXCEEDED when all are taken, or all of the owner's."""
        if self._taken[owner] >= self._most_of_owner:
            raise errors.OpenlineError(quotas.full(self._most_of_owner, self._full))
        if self._taken.total() >= self._most:
            raise errors.OpenlineError(quotas.full(self._most, self._full))
        self._taken[owner] += 1
        try:
            yield
        finally:
            self._taken[owner] -= 1
            if not self._taken[owner]:
                del self._taken[owner]
