"""API keys in Redis. A field is the SHA-256 in hex."""

from collections.abc import Mapping
from typing import Any

from broker.core.book import Origin
from broker.core.credentials import Caller, Key
from broker.core.patterns import Patterns
from broker.core.quotas import Quota
from broker.store import keys
from broker.store.credentials import CredentialRecords, Place, sha256
from openline import errors
from openline.reasons import Reason


class ApiKeyRecords(CredentialRecords[bytes, Key]):
    kind = "API keys"

    @property
    def place(self) -> Place:
        return Place(keys.API_KEYS, keys.MAX_API_KEYS, keys.API_KEY_NEWS)

    def exists(self, credential: Key) -> errors.OpenlineError:
        return errors.OpenlineError(errors.error(Reason.KEY_EXISTS, "there is, or was, this very API key"))

    def field(self, name: bytes) -> str:
        return name.hex()

    def name(self, field: str) -> bytes:
        return sha256(field)

    def extras(self, credential: Key) -> Mapping[str, Any]:
        caller = credential.caller
        quota = caller.quota
        return {
            "key_id": caller.key_id,
            "owner": caller.owner,
            "scopes": caller.scopes,
            "clusters": caller.clusters.texts,
            "quota": None if quota is None else {"commands": quota.commands, "in_flight": quota.in_flight},
        }

    def build(self, name: bytes, told: Mapping[str, Any], **common: Any) -> Key:
        quota = told["quota"]
        caller = Caller(
            owner=_text(told["owner"]),
            # Also those that this version does not know: it gives the key nothing for them.
            scopes=_texts(told["scopes"]),
            quota=None if quota is None else Quota(_count(quota["commands"]), _count(quota["in_flight"])),
            clusters=Patterns.of(_some(_texts(told["clusters"]))),
            key_id=_text(told["key_id"]),
            digest=name,
        )
        return Key(digest=name, caller=caller, **common)

    def unreadable(self, name: bytes) -> Key:
        return Key(digest=name, origin=Origin.CHOSEN, revoked_at=0.0, caller=Caller(owner="", scopes=(), digest=name))


def _some(texts: tuple[str, ...]) -> tuple[str, ...]:
    """No patterns at all must not become every cluster by mistake."""
    if not texts:
        raise ValueError("none")
    return texts


def _texts(told: object) -> tuple[str, ...]:
    if not isinstance(told, list):
        raise ValueError("not a list")
    return tuple(map(_text, told))


def _text(told: object) -> str:
    if not isinstance(told, str):
        raise ValueError("not a text")
    return told


def _count(told: object) -> int:
    if type(told) is not int or told < 0:
        raise ValueError("not a count")
    return told
