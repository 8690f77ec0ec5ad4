"""Which credentials of one kind are good: those given at start, those that Redis keeps, and those that were revoked.

Every replica has all of them in memory, so that a check costs no round trip and goes on while Redis is away. What is
learned only adds up: what was revoked stays revoked, whatever is heard afterwards and in whatever order. So replicas
that have heard the same agree, and each can give back to Redis what that has lost.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, ValuesView
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from broker.core.agenda import Agenda

# What nobody can bring back is remembered for so long after its end.
REMEMBERED_S = 90 * 24 * 3600.0

# Of a token: its cluster and its SHA-256. Of an API key: its SHA-256.
N = TypeVar("N", bound=Hashable)


class Origin(StrEnum):
    """Where a credential is from, and so whether it could come back after its end."""

    GIVEN = "given"  # by a flag: good for as long as a replica is given it, unless revoked
    CHOSEN = "chosen"  # by whoever created it, who may try to create it again
    MADE = "made"  # here, at random: nobody brings it back


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential(ABC, Generic[N]):
    """What is known of one. Instants are seconds since 1970."""

    digest: bytes
    origin: Origin
    created_at: float | None = None
    # None: it does not expire.
    expires_at: float | None = None
    # None: it was not revoked.
    revoked_at: float | None = None

    @property
    @abstractmethod
    def name(self) -> N:
        """There is one of this name, of the same kind."""

    @property
    def is_revoked(self) -> bool:
        return self.revoked_at is not None

    def is_good(self, *, now: float) -> bool:
        return not self.is_revoked and (self.expires_at is None or now < self.expires_at)

    def may_be_forgotten(self, *, now: float) -> bool:
        """Whether it has ended so long ago, and so surely, that nothing depends on remembering it."""
        ended_at = self.expires_at if self.revoked_at is None else self.revoked_at
        return self.origin is Origin.MADE and ended_at is not None and now > ended_at + REMEMBERED_S


C = TypeVar("C", bound=Credential[Any])


class Book(Generic[N, C]):
    """Every credential of one kind by its name."""

    def __init__(self, given: Iterable[C] = ()) -> None:
        self._given: dict[N, C] = {credential.name: credential for credential in given}
        # What Redis should have: good ones, expired ones, and revoked ones of any origin.
        self._stored: dict[N, C] = {}
        self._good: dict[N, C] = {}
        self._expiries: Agenda[N] = Agenda()
        # What Redis has was read: whatever is not known here is nowhere.
        self.is_whole = False
        for name in self._given:
            self._settle(name, now=0.0)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} good={len(self._good)} stored={len(self._stored)} whole={self.is_whole}>"

    def __len__(self) -> int:
        return len(self._good)

    @property
    def all_good(self) -> ValuesView[C]:
        """Those that have not ended, as far as `expire` has looked."""
        return self._good.values()

    def good(self, name: N, *, now: float) -> C | None:
        """The one of this name, if it is good."""
        # Looked up by digest: a guess learns nothing from how long the look-up of an unrelated digest takes.
        found = self._good.get(name)
        return found if found is not None and found.is_good(now=now) else None

    def holds(self, name: N) -> bool:
        """Whether there is one of this name, or there was and it has ended."""
        return name in self._stored or name in self._given

    def learn(self, credentials: Iterable[C], *, now: float) -> list[C]:
        """Takes in what Redis has, all of it or some; returns those that have ceased to be good by that."""
        ended: list[C] = []
        for credential in credentials:
            name = credential.name
            known = self._stored.get(name)
            if known == credential or (known is not None and known.is_revoked):
                continue
            self._stored[name] = credential
            if credential.is_revoked or credential.expires_at is None:
                self._expiries.discard(name)
            else:
                self._expiries.add(name, credential.expires_at)
            ended += self._settle(name, now=now)
        return ended

    def expire(self, *, now: float) -> list[C]:
        """Those whose time is up since the last call."""
        return [credential for name in self._expiries.pop(now) for credential in self._settle(name, now=now)]

    def lacking(self, held: Mapping[N, C]) -> list[C]:
        """What a Redis that holds only this has lost, or was never told."""
        return [
            credential
            for name, credential in self._stored.items()
            if (known := held.get(name)) is None or (credential.is_revoked and not known.is_revoked)
        ]

    def forget(self, *, now: float) -> list[N]:
        """Drops what may be forgotten; returns the names, for Redis to drop them too."""
        names = [
            name
            for name, credential in self._stored.items()
            if credential.may_be_forgotten(now=now) and name not in self._given
        ]
        for name in names:
            del self._stored[name]
        return names

    def _begun(self, credential: C) -> None:
        """It is good from now on, or is known as something else."""

    def _ended(self, credential: C) -> None:
        """It was good until now."""

    def _settle(self, name: N, *, now: float) -> list[C]:
        """Puts a credential among the good ones, or takes it out: then it is returned."""
        good = self._current(name, now=now)
        if good is not None:
            self._good[name] = good
            self._begun(good)
            return []
        ended = self._good.pop(name, None)
        if ended is None:
            return []
        self._ended(ended)
        return [ended]

    def _current(self, name: N, *, now: float) -> C | None:
        stored = self._stored.get(name)
        if stored is not None and stored.is_revoked:
            return None
        if name in self._given:
            return self._given[name]
        return stored if stored is not None and stored.is_good(now=now) else None
