"""Holds the objects, numbers every change, and remembers the latest ones for watches. No I/O and no clock."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from demo.kubernetes.errors import Expired, Timeout
from demo.kubernetes.objects import Obj, name_of, namespace_of

# How many changes a watch may lag behind, or a client may be away, before it must list again (410 Expired).
BACKLOG = 2000

# A cluster that has lived for a while does not start counting at 1.
FIRST_REVISION = 481_516


@dataclass(frozen=True, slots=True)
class Change:
    """One object came (no `before`), changed, or went (no `after`; `last` then carries the new revision)."""

    revision: int
    key: str
    before: Obj | None
    after: Obj | None
    last: Obj


class Store:
    """Objects by key (`pods`, `deployments.apps`), namespace and name. What is stored is never changed in place."""

    def __init__(self, *, backlog: int = BACKLOG) -> None:
        self.revision = FIRST_REVISION
        self._objects: dict[str, dict[tuple[str, str], Obj]] = {}
        self._changes: deque[Change] = deque(maxlen=backlog)

    def put(self, key: str, obj: Obj) -> Obj:
        """Stores the object in place of the one with its name, and returns it with its new resourceVersion."""
        self.revision += 1
        stored = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.revision)}}
        place = (namespace_of(stored), name_of(stored))
        objects = self._objects.setdefault(key, {})
        before = objects.get(place)
        objects[place] = stored
        self._changes.append(Change(self.revision, key, before, stored, stored))
        return stored

    def remove(self, key: str, obj: Obj) -> None:
        """Forgets the object; watches see it one last time, at the revision of its removal."""
        before = self._objects[key].pop((namespace_of(obj), name_of(obj)))
        self.revision += 1
        last = {**before, "metadata": {**before["metadata"], "resourceVersion": str(self.revision)}}
        self._changes.append(Change(self.revision, key, before, None, last))

    def get(self, key: str, namespace: str, *, name: str) -> Obj | None:
        return self._objects.get(key, {}).get((namespace, name))

    def list(self, key: str, namespace: str = "") -> list[Obj]:
        """The objects of one namespace, or of all for "", in the order of namespace and name, as etcd keeps them."""
        objects = self._objects.get(key, {})
        return [objects[place] for place in sorted(objects) if not namespace or place[0] == namespace]

    def changes_after(self, revision: int, *, key: str) -> Iterator[Change]:
        """What happened to objects of this key after that revision, oldest first.

        Raises Expired when the backlog no longer reaches back that far, Timeout when the revision is yet to come.
        """
        if revision > self.revision:
            raise Timeout(f"Too large resource version: {revision}, current: {self.revision}")
        if self._changes and revision < self._changes[0].revision - 1:
            raise Expired(f"too old resource version: {revision} ({self._changes[0].revision - 1})")
        missed = self.revision - revision
        recent = list(self._changes)[-missed:] if missed else []
        return (change for change in recent if change.key == key)
