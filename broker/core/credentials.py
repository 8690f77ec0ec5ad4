"""Who may connect and who may ask: API keys and executor tokens, kept as SHA-256 only."""

import hashlib
import hmac
from collections.abc import Iterable, KeysView
from dataclasses import dataclass, field

from broker.core.book import Book, Credential, Origin
from broker.core.patterns import EVERY, Patterns
from broker.core.quotas import Quota
from broker.core.tokens import Name, Token, TokenBook
from openline import errors
from openline.ids import is_cluster_id
from openline.reasons import Reason

SCOPES = frozenset({"execute", "session", "read", "admin", "audit"})
# Of one owner at one time: two while a key is replaced, and some for programs that have one each.
MAX_OF_OWNER = 100


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
    # Of the key; empty for another replica.
    digest: bytes = field(default=b"", repr=False, compare=False)

    @property
    def counted_as(self) -> str:
        """Whose commands its own are counted as: its owner's, unless it has numbers of its own."""
        # No owner has a colon in its name.
        return self.owner if self.quota is None else f"key:{self.key_id}"

    def sees(self, cluster_id: str) -> bool:
        return self.clusters.sees(cluster_id)

    def require(self, scope: str, *, or_scope: str = "") -> None:
        """Raises SCOPE_MISSING unless the key has the scope, or the other one."""
        if scope not in self.scopes and or_scope not in self.scopes:
            step = f"Ask an admin for a key with the scope {scope}; this one stays refused."
            metadata = {"scope": scope, errors.NEXT_STEP: step}
            missing = errors.error(Reason.SCOPE_MISSING, f"the key lacks the scope {scope!r}", metadata=metadata)
            raise errors.OpenlineError(missing)

    def require_cover(self, clusters: Patterns) -> None:
        """Raises SCOPE_MISSING unless the key sees whatever these do."""
        if not self.clusters.covers(clusters):
            beyond = errors.error(
                Reason.SCOPE_MISSING,
                "the key does not see all of these clusters",
                metadata={
                    "clusters": ",".join(self.clusters.texts),
                    errors.NEXT_STEP: "Keep to the clusters in `clusters`, or ask an admin whose key sees more.",
                },
            )
            raise errors.OpenlineError(beyond)


# Another replica, which has checked the caller itself, and has a right to every command.
PEER = Caller(owner="", scopes=tuple(sorted(SCOPES)), is_peer=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Credential[bytes]):
    """An API key, and whose it is: by name and id, with what they may ask."""

    caller: Caller

    def __repr__(self) -> str:
        return f"<Key {self.caller.key_id or self.origin} of {self.caller.owner}>"

    @property
    def name(self) -> bytes:
        return self.digest


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


class Credentials:
    """Those that are given at start, and those that are learned. Neither they nor their digests are ever shown."""

    def __init__(
        self, *, api_keys: Iterable[str], executor_tokens: Iterable[str], executor_certificates: Iterable[str] = ()
    ) -> None:
        """Reads `name:key:scope+scope`, which may end in `@pattern|pattern`, `cluster:token`, and certified clusters.

        Raises ValueError that says which flag and which entry, and shows nothing of it: it may be all secret.
        """
        keys: dict[bytes, Key] = {}
        for position, entry in enumerate(api_keys, start=1):
            key = _given_key(entry, position)
            if key.digest in keys:
                raise ValueError(f"--api-keys: entry {position} has the key of an entry before it")
            keys[key.digest] = key
        self.keys: Book[bytes, Key] = Book(keys.values())
        given: list[Name] = []
        for position, entry in enumerate(executor_tokens, start=1):
            cluster_id, _, token = entry.partition(":")
            if not is_cluster_id(cluster_id) or not token:
                raise ValueError(f"--executor-tokens: expected CLUSTER:TOKEN, in entry {position}")
            given.append((cluster_id, digest(token)))
        # The clusters whose executors may show a certificate instead of a token.
        self.certified = frozenset(executor_certificates)
        for cluster_id in self.certified:
            if not is_cluster_id(cluster_id):
                raise ValueError(f"--executor-certificates: {errors.short(cluster_id)!r} is no cluster id")
        self.tokens = TokenBook(given, certified=self.certified)

    def __repr__(self) -> str:
        return f"<Credentials api_keys={len(self.keys)} clusters={sorted(self.clusters)}>"

    @property
    def clusters(self) -> KeysView[str]:
        """The clusters that have a good token, or need none."""
        return self.tokens.clusters

    def caller(self, key: str | None, *, clock_s: float) -> Caller:
        """Who has this API key; `clock_s` is seconds since 1970.

        Raises UNAUTHENTICATED, or STORE_UNAVAILABLE while it is not known which keys there are.
        """
        if not key:
            raise errors.OpenlineError(errors.error(Reason.UNAUTHENTICATED, "Missing API key"))
        shown = digest(key)
        good = self.keys.good(shown, now=clock_s)
        if good is None or not hmac.compare_digest(good.digest, shown):
            _require_whole(self.keys, "API keys")
            raise errors.OpenlineError(errors.error(Reason.UNAUTHENTICATED, "Invalid API key"))
        return good.caller

    def check_executor(self, cluster_id: str, token: str | None, *, clock_s: float) -> Token:
        """The cluster's token that was shown; `clock_s` is seconds since 1970.

        Raises UNAUTHENTICATED, or STORE_UNAVAILABLE while it is not known which tokens there are.
        """
        shown = digest(token or "")
        good = self.tokens.good((cluster_id, shown), now=clock_s)
        if good is None or not hmac.compare_digest(good.digest, shown):
            self.require_whole()
            raise errors.OpenlineError(errors.error(Reason.UNAUTHENTICATED, "invalid token for this cluster"))
        return good

    def require_whole(self) -> None:
        """Raises STORE_UNAVAILABLE while clusters may have tokens in Redis that are not known here."""
        _require_whole(self.tokens, "tokens")


def _given_key(entry: str, position: int) -> Key:
    """Raises ValueError."""
    owner, _, rest = entry.partition(":")
    secret, _, rights = rest.rpartition(":")
    scopes, is_limited, patterns = rights.partition("@")
    if not owner or not secret or not SCOPES.issuperset(wanted := scopes.split("+")):
        raise ValueError(
            f"--api-keys: expected NAME:KEY:SCOPE+SCOPE with scopes of {', '.join(sorted(SCOPES))}, in entry {position}"
        )
    try:
        clusters = Patterns.of(patterns.split("|")) if is_limited else EVERY
    except ValueError as mistake:
        raise ValueError(f"--api-keys: expected …@PATTERN|PATTERN, in entry {position}: {mistake}") from None
    caller = Caller(owner=owner, scopes=tuple(wanted), clusters=clusters, digest=digest(secret))
    return Key(digest=caller.digest, origin=Origin.GIVEN, caller=caller)


def _require_whole(book: Book[bytes, Key] | TokenBook, kind: str) -> None:
    if not book.is_whole:
        unread = errors.error(
            Reason.STORE_UNAVAILABLE, f"Redis has not told yet which {kind} there are", retry_after_s=1.0
        )
        raise errors.OpenlineError(unread)
