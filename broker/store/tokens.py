"""Executor tokens in Redis: one hash that is written by one script and read whole, and the news of its changes.

A field is `CLUSTER:SHA-256 in hex`; its value an L for one that lives or an R for one that was revoked, and then JSON.
What cannot be read counts as revoked: better a token too few than one too many.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from broker.core.tokens import Name, Origin, Token
from broker.store import keys, news
from broker.store.behind import WriteBehind
from broker.store.client import Client, ask
from broker.store.single import RedisCommand
from openline import errors
from openline.ids import is_cluster_id
from openline.reasons import Reason
from openline.v1 import command_pb2

VERSION = "version"
# How many fields are asked for at one time, and written in one script: none of it holds Redis up, nor this loop.
CHUNK = 200
# The end of the year 9999, in seconds since 1970.
MAX_INSTANT = 253_402_300_799
# What reading JSON of anybody's may end with.
UNREADABLE = (ValueError, KeyError, TypeError, RecursionError)

# Writes tokens. A revoked one takes the place of one that lives; nothing else takes any place.
# KEYS: the hash. ARGV: the next version, the channel, how many fields the hash may have ('' for any), and for each
# token: field, value. Returns for each 1 if it was written, 0 if there is one already, -1 if there is no room.
PUT = """
local written, changed = {}, {}
local any = false
for i = 4, #ARGV, 2 do
  local field, value = ARGV[i], ARGV[i + 1]
  local held = redis.call('HGET', KEYS[1], field)
  if held and (string.sub(held, 1, 1) ~= 'L' or string.sub(value, 1, 1) == 'L') then
    written[#written + 1] = 0
  elseif ARGV[3] ~= '' and redis.call('HLEN', KEYS[1]) > tonumber(ARGV[3]) then
    written[#written + 1] = -1
  else
    redis.call('HSET', KEYS[1], field, value)
    changed[field] = value
    any = true
    written[#written + 1] = 1
  end
end
if any then
  local was = redis.call('HGET', KEYS[1], 'version') or ''
  redis.call('HSET', KEYS[1], 'version', ARGV[1])
  redis.call('PUBLISH', ARGV[2], cjson.encode({was = was, version = ARGV[1], tokens = changed}))
end
return written
"""


@dataclass(frozen=True, slots=True)
class Change:
    """Tokens that were created or revoked at one time."""

    # Of the hash, before and after.
    was: str
    version: str
    tokens: tuple[Token, ...]

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """None for what is no change: anybody may publish."""
        try:
            told = json.loads(data)
            tokens = (_decode(field.encode(), value.encode()) for field, value in told["tokens"].items())
            return cls(str(told["was"]), str(told["version"]), tuple(token for token in tokens if token is not None))
        except (*UNREADABLE, AttributeError):
            return None


class TokenRecords:
    """All of it raises STORE_UNAVAILABLE."""

    def __init__(self, redis: Client, behind: WriteBehind) -> None:
        self._redis = redis
        self._behind = behind

    async def version(self) -> str:
        """Another one after each change; empty while there is nothing."""
        [version] = await ask(self._redis, ("HGET", keys.TOKENS, VERSION))
        return version.decode(errors="replace") if version is not None else ""

    async def read(self) -> dict[Name, Token]:
        """All of them; of one that changes meanwhile it is open whether it is as before or after."""
        found: dict[Name, Token] = {}
        cursor = 0
        while True:
            [(cursor, fields)] = await ask(self._redis, ("HSCAN", keys.TOKENS, cursor, "COUNT", CHUNK))
            tokens = (_decode(field, value) for field, value in fields.items())
            found |= {token.name: token for token in tokens if token is not None}
            if cursor == 0:
                return found

    async def create(self, token: Token) -> None:
        """Adds a token. Raises TOKEN_EXISTS if there is or was the same one, QUOTA_EXCEEDED if there are too many."""
        try:
            [[made]] = await ask(self._redis, _putting([token], at_most=keys.MAX_TOKENS))
        except (errors.OpenlineError, asyncio.CancelledError):
            # What was lost may be the answer only: nobody would ever learn a token that was made here.
            if token.origin is Origin.MADE:
                self._behind.put(*_putting([replace(token, revoked_at=token.created_at)]))
            raise
        if made == 0:
            raise errors.OpenlineError(exists(token.cluster_id))
        if made < 0:
            raise errors.OpenlineError(
                errors.error(Reason.QUOTA_EXCEEDED, f"there are {keys.MAX_TOKENS} executor tokens; no more are kept")
            )

    async def keep(self, tokens: Sequence[Token]) -> int:
        """Writes tokens that Redis does not have, or not as revoked, up to 200 all or none; how many it had not."""
        written = 0
        for begin in range(0, len(tokens), CHUNK):
            [each] = await ask(self._redis, _putting(tokens[begin : begin + CHUNK]))
            written += sum(each)
        return written

    async def drop(self, names: Sequence[Name]) -> None:
        """Forgets tokens that have ended: no news, since nothing changes by it."""
        fields = [_field(name) for name in names]
        for begin in range(0, len(fields), CHUNK):
            await ask(self._redis, ("HDEL", keys.TOKENS, *fields[begin : begin + CHUNK]))

    def subscribe(self) -> AsyncGenerator[Change | None]:
        """Yields each change, and None whenever changes may have been missed.

        Never ends. To be closed by its owner (`contextlib.aclosing`).
        """
        return news.subscribe(self._redis, keys.TOKEN_NEWS, Change.decode)


def exists(cluster_id: str) -> command_pb2.Error:
    return errors.error(
        Reason.TOKEN_EXISTS,
        "the cluster has, or had, this very token",
        metadata={"cluster_id": cluster_id},
    )


def _putting(tokens: Sequence[Token], *, at_most: int | None = None) -> RedisCommand:
    parts = [part for token in tokens for part in (_field(token.name), _encode(token))]
    most = "" if at_most is None else at_most
    return ("EVAL", PUT, 1, keys.TOKENS, secrets.token_hex(8), keys.TOKEN_NEWS, most, *parts)


def _field(name: Name) -> str:
    cluster_id, digest = name
    return f"{cluster_id}:{digest.hex()}"


def _encode(token: Token) -> str:
    told = {
        "token_id": token.token_id,
        "origin": token.origin,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
    }
    return ("R" if token.is_revoked else "L") + json.dumps(told)


def _decode(field: bytes, value: bytes) -> Token | None:
    """None for a field that is no token's."""
    cluster_id, _, digits = field.decode(errors="replace").partition(":")
    try:
        digest = bytes.fromhex(digits)
    except ValueError:
        return None
    if not is_cluster_id(cluster_id) or len(digest) != 32:
        return None
    try:
        told = json.loads(value[1:])
        token = Token(
            cluster_id,
            digest,
            origin=Origin(told["origin"]),
            token_id=str(told["token_id"]),
            created_at=_instant(told["created_at"]),
            expires_at=_instant(told["expires_at"]),
            revoked_at=_instant(told["revoked_at"]),
        )
        if value[:1] == (b"R" if token.is_revoked else b"L"):
            return token
    except UNREADABLE:
        pass
    return Token(cluster_id, digest, origin=Origin.CHOSEN, revoked_at=0.0)


def _instant(told: float | None) -> float | None:
    """Raises ValueError for what is no instant."""
    if told is None:
        return None
    if not 0 <= told <= MAX_INSTANT:
        raise ValueError("not an instant")
    return float(told)
