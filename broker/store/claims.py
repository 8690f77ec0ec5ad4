"""Claims of idempotency keys in Redis: who comes first makes the command, everybody else gets its result."""

import asyncio
import hashlib
import math
from dataclasses import dataclass, field

from broker.store import keys
from broker.store.behind import WriteBehind
from broker.store.client import Client, ask
from openline import errors
from openline.ids import new_id

# Deletes a claim, unless it is somebody else's by now. KEYS: the claim. ARGV: what it holds.
RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

# Makes a claim somebody else's, if it still is as it was seen. KEYS: the claim. ARGV: what it holds, what it is to be.
TAKE_OVER = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a key stands for."""

    fingerprint: str
    command_id: str
    # Tells requests with one command id apart.
    request_id: str = field(default_factory=new_id)

    def __str__(self) -> str:
        return f"{self.fingerprint} {self.command_id} {self.request_id}"


class Claims:
    def __init__(self, redis: Client, behind: WriteBehind, *, ttl_s: int) -> None:
        self._redis = redis
        self._behind = behind
        self._ttl_s = ttl_s

    async def claim(self, owner: str, key: str, claim: Claim, *, runs_s: float) -> Claim | None:
        """Claims this owner's key: None when it is claimed now, else the claim of an earlier request.

        Held for as long as the result can be had of a command that ends within `runs_s`. Raises STORE_UNAVAILABLE.
        """
        name = _name(owner, key)
        expiry_s = self._ttl_s + math.ceil(runs_s)
        held: bytes | None = None
        try:
            while held is None:
                made, held = await ask(self._redis, ("SET", name, str(claim), "NX", "EX", expiry_s), ("GET", name))
                if made:
                    return None
                # None: released between the two, so that it can be had now.
        except (errors.OpenlineError, asyncio.CancelledError):
            # What was lost may be the answer only: nobody would ever run what the key is claimed for.
            self.release(owner, key, claim)
            raise
        # Somebody else's bytes are the claim of another request.
        fingerprint, command_id, request_id, *_ = *held.decode(errors="replace").split(" "), "", ""
        return Claim(fingerprint, command_id, request_id)

    async def take_over(self, owner: str, key: str, held: Claim, own: Claim) -> bool:
        """Makes a claim of the same command this request's: whoever held it cannot release it any more.

        False when it is not `held`'s any longer. Raises STORE_UNAVAILABLE; then it may be this request's or not, and
        stays, since the command may have been run.
        """
        [taken] = await ask(self._redis, ("EVAL", TAKE_OVER, 1, _name(owner, key), str(held), str(own)))
        return bool(taken)

    def release(self, owner: str, key: str, claim: Claim) -> None:
        """The command was not run after all: the key is free again, if it is still claimed so. Written behind."""
        self._behind.put("EVAL", RELEASE, 1, _name(owner, key), str(claim))


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
