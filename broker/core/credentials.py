"""Who may connect and who may ask: the keys and tokens given at start, kept as SHA-256 only."""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from broker.core.quotas import Quota
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

    def require(self, scope: str) -> None:
        """Raises SCOPE_MISSING unless the key has the scope."""
        if scope not in self.scopes:
            missing = errors.error(
                Reason.SCOPE_MISSING, f"the key lacks the scope {scope!r}", metadata={"scope": scope}
            )
            raise errors.OpenlineError(missing)


# Another replica, which has checked the caller itself, and has a right to every command.
PEER = Caller(owner="", scopes=tuple(sorted(SCOPES)), is_peer=True)


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


class Credentials:
    """API keys and executor tokens. Neither the secrets nor their digests are ever shown."""

    def __init__(self, *, api_keys: Iterable[str], executor_tokens: Iterable[str]) -> None:
        """Reads `name:key:scope+scope` and `cluster:token`.

        Raises ValueError that says which flag and which entry, and shows nothing of it: it may be all secret.
        """
        self._callers: dict[bytes, Caller] = {}
        self._tokens: dict[str, list[bytes]] = {}
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
        for position, entry in enumerate(executor_tokens, start=1):
            cluster_id, _, token = entry.partition(":")
            if not is_cluster_id(cluster_id) or not token:
                raise ValueError(f"--executor-tokens: expected CLUSTER:TOKEN, in entry {position}")
            self._tokens.setdefault(cluster_id, []).append(digest(token))

    def __repr__(self) -> str:
        return f"<Credentials api_keys={len(self._callers)} clusters={sorted(self._tokens)}>"

    @property
    def clusters(self) -> frozenset[str]:
        """The clusters that have a token."""
        return frozenset(self._tokens)

    def caller(self, key: str | None) -> Caller:
        """Who has this API key. Raises UNAUTHENTICATED."""
        if not key:
            raise errors.OpenlineError(errors.error(Reason.UNAUTHENTICATED, "Missing API key"))
        # Looked up by digest: a guess learns nothing from how long the look-up of an unrelated digest takes.
        caller = self._callers.get(digest(key))
        if caller is None:
            raise errors.OpenlineError(errors.error(Reason.UNAUTHENTICATED, "Invalid API key"))
        return caller

    def check_executor(self, cluster_id: str, token: str | None) -> None:
        """Raises UNAUTHENTICATED unless the token is one of the cluster's."""
        shown = digest(token or "")
        # Every token is compared, so that the time does not tell which one was close.
        matches = [hmac.compare_digest(shown, known) for known in self._tokens.get(cluster_id, [])]
        if not any(matches):
            raise errors.OpenlineError(errors.error(Reason.UNAUTHENTICATED, "invalid token for this cluster"))
