"""Which executor tokens are good: those given at start, those that Redis keeps, and those that were revoked.

Every replica has all of them in memory, so that a check costs no round trip and goes on while Redis is away. What is
learned only adds up: a token that was revoked stays revoked, whatever is heard afterwards and in whatever order. So
replicas that have heard the same agree, and each can give back to Redis what that has lost.
"""

from collections.abc import Iterable, KeysView, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum

from broker.core.agenda import Agenda

# Of one cluster at one time: two while a token is replaced, and some for executors that have one each.
MAX_OF_CLUSTER = 100
# A token that nobody can bring back is remembered for so long after its end.
REMEMBERED_S = 90 * 24 * 3600.0

# Cluster id and SHA-256. The same token may be given to two clusters, and revoked for one of them.
Name = tuple[str, bytes]


class Origin(StrEnum):
    """Where a token is from, and so whether it could come back after its end."""

    GIVEN = "given"  # by --executor-tokens: good for as long as a replica is given it, unless revoked
    CHOSEN = "chosen"  # by whoever created it, who may try to create it again
    MADE = "made"  # here, at random: nobody brings it back


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token. Instants are seconds since 1970."""

    cluster_id: str
    digest: bytes
    origin: Origin
    # Random, so that it tells nothing of the token. Empty for one that was given at start.
    token_id: str = ""
    created_at: float | None = None
    # None: it does not expire.
    expires_at: float | None = None
    # None: it was not revoked.
    revoked_at: float | None = None

    def __repr__(self) -> str:
        return f"<Token {self.cluster_id}/{self.token_id or self.origin}>"

    @property
    def name(self) -> Name:
        return self.cluster_id, self.digest

    @property
    def is_revoked(self) -> bool:
        return self.revoked_at is not None

    def is_good(self, *, now: float) -> bool:
        return not self.is_revoked and (self.expires_at is None or now < self.expires_at)

    def may_be_forgotten(self, *, now: float) -> bool:
        """Whether it has ended so long ago, and so surely, that nothing depends on remembering it."""
        ended_at = self.expires_at if self.revoked_at is None else self.revoked_at
        return self.origin is Origin.MADE and ended_at is not None and now > ended_at + REMEMBERED_S


class TokenBook:
    """Every token by its name. Nothing of it is ever shown but clusters and token ids."""

    def __init__(self, given: Iterable[Name] = (), *, certified: AbstractSet[str] = frozenset()) -> None:
        """`certified` are the clusters that need no token, since their executors show a certificate."""
        self._given = {name: Token(*name, origin=Origin.GIVEN) for name in given}
        self._certified = certified
        # What Redis should have: good ones, expired ones, and revoked ones of any origin.
        self._stored: dict[Name, Token] = {}
        # Those that are good now, by cluster; none but a certified cluster has none.
        self._good: dict[str, dict[bytes, Token]] = {cluster_id: {} for cluster_id in certified}
        self._expiries: Agenda[Name] = Agenda()
        # What Redis has was read: whatever is not known here is nowhere.
        self.is_whole = False
        for name in self._given:
            self._settle(name, now=0.0)

    def __repr__(self) -> str:
        return f"<TokenBook clusters={len(self._good)} stored={len(self._stored)} whole={self.is_whole}>"

    @property
    def clusters(self) -> KeysView[str]:
        """The clusters that have a good token, or need none."""
        return self._good.keys()

    def of_cluster(self, cluster_id: str) -> list[Token]:
        """The cluster's good tokens."""
        return list(self._good.get(cluster_id, {}).values())

    def good(self, name: Name, *, now: float) -> Token | None:
        """The token of this name, if it is good."""
        # Looked up by digest: a guess learns nothing from how long the look-up of an unrelated digest takes.
        token = self._good.get(name[0], {}).get(name[1])
        return token if token is not None and token.is_good(now=now) else None

    def holds(self, name: Name) -> bool:
        """Whether there is such a token, or there was and it has ended."""
        return name in self._stored or name in self._given

    def learn(self, tokens: Iterable[Token], *, now: float) -> list[Token]:
        """Takes in what Redis has, all of it or some; returns the tokens that have ceased to be good by that."""
        ended: list[Token] = []
        for token in tokens:
            known = self._stored.get(token.name)
            if known == token or (known is not None and known.is_revoked):
                continue
            self._stored[token.name] = token
            if token.is_revoked or token.expires_at is None:
                self._expiries.discard(token.name)
            else:
                self._expiries.add(token.name, token.expires_at)
            ended += self._settle(token.name, now=now)
        return ended

    def expire(self, *, now: float) -> list[Token]:
        """The tokens whose time is up since the last call."""
        return [token for name in self._expiries.pop(now) for token in self._settle(name, now=now)]

    def lacking(self, held: Mapping[Name, Token]) -> list[Token]:
        """What a Redis that holds only this has lost, or was never told."""
        return [
            token
            for name, token in self._stored.items()
            if (known := held.get(name)) is None or (token.is_revoked and not known.is_revoked)
        ]

    def forget(self, *, now: float) -> list[Name]:
        """Drops what may be forgotten; returns the names, for Redis to drop them too."""
        names = [
            name for name, token in self._stored.items() if token.may_be_forgotten(now=now) and name not in self._given
        ]
        for name in names:
            del self._stored[name]
        return names

    def _settle(self, name: Name, *, now: float) -> list[Token]:
        """Puts a token among the good ones, or takes it out: then it is returned."""
        cluster_id, digest = name
        good = self._current(name, now=now)
        if good is not None:
            self._good.setdefault(cluster_id, {})[digest] = good
            return []
        of_cluster = self._good.get(cluster_id, {})
        ended = of_cluster.pop(digest, None)
        if ended is None:
            return []
        if not of_cluster and cluster_id not in self._certified:
            del self._good[cluster_id]
        return [ended]

    def _current(self, name: Name, *, now: float) -> Token | None:
        stored = self._stored.get(name)
        if stored is not None and stored.is_revoked:
            return None
        if name in self._given:
            return self._given[name]
        return stored if stored is not None and stored.is_good(now=now) else None
