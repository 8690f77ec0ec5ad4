"""What is remembered by name while there is room: so much of all owners, and so much of each. Pure."""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """What was used the longest ago is forgotten first: an owner's own, where it has its share; else anybody's."""

    def __init__(self, *, most: int, most_of_owner: int) -> None:
        self._most = most
        self._most_of_owner = most_of_owner
        # Whose it is, and what. What was used last stands last, here and within each owner's.
        self._all: OrderedDict[str, tuple[str, T]] = OrderedDict()
        self._names: dict[str, OrderedDict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def use(self, name: str) -> T | None:
        """What has this name, if it is remembered."""
        if (found := self._all.get(name)) is None:
            return None
        owner, thing = found
        self._all.move_to_end(name)
        self._names[owner].move_to_end(name)
        return thing

    def add(self, name: str, thing: T, *, owner: str) -> T | None:
        """Remembers what has a new name; returns what was forgotten for it."""
        self._all[name] = owner, thing
        own = self._names.setdefault(owner, OrderedDict())
        own[name] = None
        if len(own) > self._most_of_owner:
            return self._forget(next(iter(own)))
        if len(self._all) > self._most:
            return self._forget(next(iter(self._all)))
        return None

    def _forget(self, name: str) -> T:
        owner, thing = self._all.pop(name)
        own = self._names[owner]
        del own[name]
        if not own:
            del self._names[owner]
        return thing
