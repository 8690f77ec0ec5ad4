"""Claims of idempotency keys in Redis: who comes first makes the command, everybody else gets its result."""

import hashlib
from dataclasses import dataclass

from redis.asyncio import Redis

from broker.store import keys
from broker.store.behind import WriteBehind
from broker.store.client import ask


@dataclass(frozen=True, slots=True)
class Claim:
    """What a key stands for."""

    fingerprint: str
    command_id: str


class Claims:
    def __init__(self, redis: Redis, behind: WriteBehind, *, ttl_s: int) -> None:
        self._redis = redis
        self._behind = behind
        self._ttl_s = ttl_s

    async def claim(self, owner: str, key: str, claim: Claim) -> Claim:
        """The claim that holds for this owner's key: the given one, if there was none. Raises STORE_UNAVAILABLE."""
        name = _name(owner, key)
        value = f"{claim.fingerprint} {claim.command_id}"
        _, held = await ask(self._redis, ("SET", name, value, "NX", "EX", self._ttl_s), ("GET", name))
        fingerprint, _, command_id = (held.decode() if held else value).partition(" ")
        return Claim(fingerprint, command_id)

    def release(self, owner: str, key: str) -> None:
        """The command was not run after all: the key is free again. By who holds the claim; written behind."""
        self._behind.put("DEL", _name(owner, key))


def fingerprint(*parts: str) -> str:
    """Tells requests apart: equal parts, equal fingerprint."""
    # Lengths go in as well, so that no two lists of parts look alike.
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


def _name(owner: str, key: str) -> str:
    return keys.claim(fingerprint(owner, key))
