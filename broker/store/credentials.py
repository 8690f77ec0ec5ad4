"""Credentials of one kind in Redis: one hash that is written by one script and read whole, and the news of its changes.

A value is an L for one that lives or an R for one that was revoked, and then JSON. What cannot be read counts as
revoked: better one too few than one too many.
"""

import asyncio
import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

from broker.core.book import C, N, Origin
from broker.store import news
from broker.store.behind import WriteBehind
from broker.store.client import Client, ask
from broker.store.single import RedisCommand
from openline import errors
from openline.reasons import Reason

VERSION = "version"
# How many fields are asked for at one time, and written in one script: none of it holds Redis up, nor this loop.
CHUNK = 200
# The end of the year 9999, in seconds since 1970.
MAX_INSTANT = 253_402_300_799
# What reading JSON of anybody's may end with.
UNREADABLE = (ValueError, KeyError, TypeError, RecursionError)

# Writes credentials. A revoked one takes the place of one that lives; nothing else takes any place.
# KEYS: the hash. ARGV: the next version, the channel, how many fields the hash may have ('' for any), and for each
# credential: field, value. Returns for each 1 if it was written, 0 if there is one already, -1 if there is no room.
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
  redis.call('PUBLISH', ARGV[2], cjson.encode({was = was, version = ARGV[1], changed = changed}))
end
return written
"""


@dataclass(frozen=True, slots=True)
class Change(Generic[C]):
    """Credentials that were created or revoked at one time."""

    # Of the hash, before and after.
    was: str
    version: str
    changed: tuple[C, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where those of one kind are: the hash, how many fields it may have, and the channel of its changes."""

    key: str
    most: int
    channel: str


class CredentialRecords(ABC, Generic[N, C]):
    """All of it raises STORE_UNAVAILABLE."""

    # As a message has it.
    kind: str

    def __init__(self, redis: Client, behind: WriteBehind) -> None:
        self._redis = redis
        self._behind = behind

    async def version(self) -> str:
        """Another one after each change; empty while there is nothing."""
        [version] = await ask(self._redis, ("HGET", self.place.key, VERSION))
        return version.decode(errors="replace") if version is not None else ""

    async def read(self) -> dict[N, C]:
        """All of them; of one that changes meanwhile it is open whether it is as before or after."""
        found: dict[N, C] = {}
        cursor = 0
        while True:
            [(cursor, fields)] = await ask(self._redis, ("HSCAN", self.place.key, cursor, "COUNT", CHUNK))
            read = (self._read(field, value) for field, value in fields.items())
            found |= {credential.name: credential for credential in read if credential is not None}
            if cursor == 0:
                return found

    async def create(self, credential: C) -> None:
        """Adds one. Raises what `exists` says if there is or was the same one, QUOTA_EXCEEDED if there are too many."""
        most = self.place.most
        try:
            [[made]] = await ask(self._redis, self._putting([credential], at_most=most))
        except (errors.OpenlineError, asyncio.CancelledError):
            # What was lost may be the answer only: nobody would ever learn what was made here.
            if credential.origin is Origin.MADE:
                self._behind.put(*self._putting([replace(credential, revoked_at=credential.created_at)]))
            raise
        if made == 0:
            raise self.exists(credential)
        if made < 0:
            raise errors.OpenlineError(
                errors.error(Reason.QUOTA_EXCEEDED, f"there are {most} {self.kind}; no more are kept")
            )

    async def keep(self, credentials: Sequence[C]) -> int:
        """Writes those that Redis does not have, or not as revoked, up to 200 all or none; how many it had not."""
        written = 0
        for begin in range(0, len(credentials), CHUNK):
            [each] = await ask(self._redis, self._putting(credentials[begin : begin + CHUNK]))
            written += sum(each)
        return written

    async def drop(self, names: Sequence[N]) -> None:
        """Forgets what has ended: no news, since nothing changes by it."""
        fields = [self.field(name) for name in names]
        for begin in range(0, len(fields), CHUNK):
            await ask(self._redis, ("HDEL", self.place.key, *fields[begin : begin + CHUNK]))

    def subscribe(self) -> AsyncGenerator[Change[C] | None]:
        """Yields each change, and None whenever changes may have been missed.

        Never ends. To be closed by its owner (`contextlib.aclosing`).
        """
        return news.subscribe(self._redis, self.place.channel, self.change)

    def change(self, data: bytes) -> Change[C] | None:
        """None for what is no change: anybody may publish."""
        try:
            told = json.loads(data)
            read = (self._read(field.encode(), value.encode()) for field, value in told["changed"].items())
            return Change(str(told["was"]), str(told["version"]), tuple(each for each in read if each is not None))
        except (*UNREADABLE, AttributeError):
            return None

    @property
    @abstractmethod
    def place(self) -> Place: ...

    @abstractmethod
    def exists(self, credential: C) -> errors.OpenlineError:
        """There is this very one, or there was."""

    @abstractmethod
    def field(self, name: N) -> str: ...

    @abstractmethod
    def name(self, field: str) -> N:
        """Raises ValueError for a field that is none of this kind's."""

    @abstractmethod
    def extras(self, credential: C) -> Mapping[str, Any]:
        """What there is of it beside what all kinds have, for JSON."""

    @abstractmethod
    def build(self, name: N, told: Mapping[str, Any], **common: Any) -> C:
        """One of this name, of what `extras` said and what all kinds have. Raises one of UNREADABLE."""

    @abstractmethod
    def unreadable(self, name: N) -> C:
        """A revoked one of which nothing is known but its name."""

    def _putting(self, credentials: Sequence[C], *, at_most: int | None = None) -> RedisCommand:
        place = self.place
        parts = [part for each in credentials for part in (self.field(each.name), self._encode(each))]
        most = "" if at_most is None else at_most
        return ("EVAL", PUT, 1, place.key, secrets.token_hex(8), place.channel, most, *parts)

    def _encode(self, credential: C) -> str:
        told = {
            "origin": credential.origin,
            "created_at": credential.created_at,
            "expires_at": credential.expires_at,
            "revoked_at": credential.revoked_at,
            **self.extras(credential),
        }
        return ("R" if credential.is_revoked else "L") + json.dumps(told)

    def _read(self, field: bytes, value: bytes) -> C | None:
        try:
            name = self.name(field.decode(errors="replace"))
        except ValueError:
            return None
        try:
            told = json.loads(value[1:])
            instants = {each: _instant(told[each]) for each in ("created_at", "expires_at", "revoked_at")}
            credential = self.build(name, told, origin=Origin(told["origin"]), **instants)
            if value[:1] == (b"R" if credential.is_revoked else b"L"):
                return credential
        except UNREADABLE:
            pass
        return self.unreadable(name)


def sha256(digits: str) -> bytes:
    """What a field has in hex. Raises ValueError."""
    digest = bytes.fromhex(digits)
    if len(digest) != 32:
        raise ValueError("not a SHA-256")
    return digest


def _instant(told: float | None) -> float | None:
    """Raises ValueError for what is no instant."""
    if told is None:
        return None
    if not 0 <= told <= MAX_INSTANT:
        raise ValueError("not an instant")
    return float(told)
