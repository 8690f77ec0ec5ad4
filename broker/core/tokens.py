"""Executor tokens: each lets executors of one cluster in, and a cluster is registered while it has a good one."""

from collections.abc import Callable, Iterable, KeysView
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from broker.core.book import Book, Credential, Origin

# Of one cluster at one time: two while a token is replaced, and some for executors that have one each.
MAX_OF_CLUSTER = 100

# Cluster id and SHA-256. The same token may be given to two clusters, and revoked for one of them.
Name = tuple[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Token(Credential[Name]):
    cluster_id: str
    # Random, so that it tells nothing of the token. Empty for one that was given at start.
    token_id: str = ""

    def __repr__(self) -> str:
        return f"<Token {self.cluster_id}/{self.token_id or self.origin}>"

    @property
    def name(self) -> Name:
        return self.cluster_id, self.digest


class TokenBook(Book[Name, Token]):
    """Nothing of it is ever shown but clusters and token ids."""

    def __init__(self, given: Iterable[Name] = (), *, certified: AbstractSet[str] = frozenset()) -> None:
        """`certified` are the clusters that need no token, since their executors show a certificate."""
        self._certified = certified
        # Those that are good now; none but a certified cluster has none.
        self._of_cluster: dict[str, dict[bytes, Token]] = {cluster_id: {} for cluster_id in certified}
        # Called with a cluster that has come or gone.
        self.cluster_changed: Callable[[str], None] = lambda _cluster_id: None
        super().__init__(Token(cluster_id=cluster_id, digest=d, origin=Origin.GIVEN) for cluster_id, d in given)

    @property
    def clusters(self) -> KeysView[str]:
        """The clusters that have a good token, or need none."""
        return self._of_cluster.keys()

    def of_cluster(self, cluster_id: str) -> list[Token]:
        """The cluster's good tokens."""
        return list(self._of_cluster.get(cluster_id, {}).values())

    def _begun(self, credential: Token) -> None:
        if credential.cluster_id not in self._of_cluster:
            self._of_cluster[credential.cluster_id] = {}
            self.cluster_changed(credential.cluster_id)
        self._of_cluster[credential.cluster_id][credential.digest] = credential

    def _ended(self, credential: Token) -> None:
        of_cluster = self._of_cluster[credential.cluster_id]
        del of_cluster[credential.digest]
        if not of_cluster and credential.cluster_id not in self._certified:
            del self._of_cluster[credential.cluster_id]
            self.cluster_changed(credential.cluster_id)
