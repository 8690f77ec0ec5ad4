"""Who may connect and who may ask: API keys and executor tokens, kept as SHA-256 only."""

import hashlib
from collections.abc import Iterable, KeysView
from dataclasses import dataclass

from broker.core.patterns import EVERY, Patterns
from broker.core.quotas import Quota
from broker.core.tokens import Name, Token, TokenBook
from openline import errors
from openline.ids import is_cluster_id
from openline.reasons import Reason

SCOPES = frozenset({"execute", "session", "read", "admin", "audit"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, after the key was checked."""

    owner: str
    scopes: tuple[str, ...]
    # It is another replica: what it asks for is looked for here, and nowhere else.
    is_peer: bool = False
    # Numbers of its own; None for those that the replica has for everybody.
    quota: Quota | None = None
    # What it sees; other clusters do not exist for it.
    clusters: Patterns = EVERY
    # Names the key; empty for another replica, and for a key that was given at start.
    key_id: str = ""

    def sees(self, cluster_id: str) -> bool:
        return self.clusters.sees(cluster_id)

    def require(self, scope: str, *, or_scope: str = "") -> None:
        """Raises SCOPE_MISSING unless the key has the scope, or the other one."""
        if scope not in self.scopes and or_scope not in self.scopes:
            missing = errors.error(
                Reason.SCOPE_MISSING, f"the key lacks the scope {scope!r}", metadata={"scope": scope}
            )
            raise errors.OpenlineError(missing)


# Another replica, which has checked the caller itself, and has a right to every command.
PEER = Caller(owner="", scopes=tuple(sorted(SCOPES)), is_peer=True)


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


class Credentials:
    """API keys, which are given at start, and executor tokens. Neither they nor their digests are ever shown."""

    def __init__(self, *, api_keys: Iterable[str], executor_tokens: Iterable[str]) -> None:
        """Reads `name:key:scope+scope` and `cluster:token`.

        Raises ValueError that says which flag and which entry, and shows nothing of it: it may be all secret.
        """
        self._callers: dict[bytes, Caller] = {}
        for position, entry in enumerate(api_keys, start=1):
            owner, _, rest = entry.partition(":")
            key, _, scopes = rest.rpartition(":")
            wanted = scopes.split("+")
            if not owner or not key or not SCOPES.issuperset(wanted):
                raise ValueError(
                    f"--api-keys: expected NAME:KEY:SCOPE+SCOPE with scopes of {', '.join(sorted(SCOPES))}, "
                    f"in entry {position}"
                )
            if digest(key) in self._callers:
                raise ValueError(f"--api-keys: entry {position} has the key of an entry before it")
            self._callers[digest(key)] = Caller(owner=owner, scopes=tuple(wanted))
        given: list[Name] = []
        for position, entry in enumerate(executor_tokens, start=1):
            cluster_id, _, token = entry.partition(":")
            if not is_cluster_id(cluster_id) or not token:
                raise ValueError(f"--executor-tokens: expected CLUSTER:TOKEN, in entry {position}")
            given.append((cluster_id, digest(token)))
        self.tokens = TokenBook(given)

    def __repr__(self) -> str:
        return f"<Credentials api_keys={len(self._callers)} clusters={sorted(self.clusters)}>"

    @property
    def clusters(self) -> KeysView[str]:
        """The clusters that have a good token."""
        return self.tokens.clusters

    def caller(self, key: str | None, *, clock_s: float) -> Caller:
        """Who has this API key; `clock_s` is seconds since 1970. Raises UNAUTHENTICATED."""
        if not key:
            raise errors.OpenlineError(errors.error(Reason.UNAUTHENTICATED, "Missing API key"))
        # Looked up by digest: a guess learns nothing from how long the look-up of an unrelated digest takes.
        caller = self._callers.get(digest(key))
        if caller is None:
            raise errors.OpenlineError(errors.error(Reason.UNAUTHENTICATED, "Invalid API key"))
        return caller

    def check_executor(self, cluster_id: str, token: str | None, *, clock_s: float) -> Token:
        """The cluster's token that was shown; `clock_s` is seconds since 1970.

        Raises UNAUTHENTICATED, or STORE_UNAVAILABLE while it is not known which tokens there are.
        """
        good = self.tokens.good((cluster_id, digest(token or "")), now=clock_s)
        if good is None:
            self.require_whole()
            raise errors.OpenlineError(errors.error(Reason.UNAUTHENTICATED, "invalid token for this cluster"))
        return good

    def require_whole(self) -> None:
        """Raises STORE_UNAVAILABLE while tokens may be in Redis that are not known here."""
        if not self.tokens.is_whole:
            unread = errors.error(
                Reason.STORE_UNAVAILABLE, "Redis has not told yet which tokens there are", retry_after_s=1.0
            )
            raise errors.OpenlineError(unread)
