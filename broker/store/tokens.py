"""Executor tokens in Redis. A field is `CLUSTER:SHA-256 in hex`."""

from collections.abc import Mapping
from typing import Any

from broker.core.book import Origin
from broker.core.tokens import Name, Token
from broker.store import keys
from broker.store.credentials import CredentialRecords, Place, sha256
from openline import errors
from openline.ids import is_cluster_id
from openline.reasons import Reason


class TokenRecords(CredentialRecords[Name, Token]):
    kind = "executor tokens"

    @property
    def place(self) -> Place:
        return Place(keys.TOKENS, keys.MAX_TOKENS, keys.TOKEN_NEWS)

    def exists(self, credential: Token) -> errors.OpenlineError:
        error = errors.error(
            Reason.TOKEN_EXISTS,
            "the cluster has, or had, this very token",
            metadata={"cluster_id": credential.cluster_id},
        )
        return errors.OpenlineError(error)

    def field(self, name: Name) -> str:
        cluster_id, digest = name
        return f"{cluster_id}:{digest.hex()}"

    def name(self, field: str) -> Name:
        cluster_id, _, digits = field.partition(":")
        if not is_cluster_id(cluster_id):
            raise ValueError("no cluster's")
        return cluster_id, sha256(digits)

    def extras(self, credential: Token) -> Mapping[str, Any]:
        return {"token_id": credential.token_id}

    def build(self, name: Name, told: Mapping[str, Any], **common: Any) -> Token:
        return Token(cluster_id=name[0], digest=name[1], token_id=str(told["token_id"]), **common)

    def unreadable(self, name: Name) -> Token:
        return Token(cluster_id=name[0], digest=name[1], origin=Origin.CHOSEN, revoked_at=0.0)
