"""Results in Redis: written behind the answer, found again by id until they expire."""

from collections.abc import Callable

from google.protobuf.message import DecodeError
from redis.asyncio import Redis

from broker.store import keys
from broker.store.behind import WriteBehind
from broker.store.client import ask
from openline.v1 import command_pb2


class Results:
    def __init__(self, redis: Redis, behind: WriteBehind, *, ttl_s: int) -> None:
        self._redis = redis
        self._behind = behind
        self._ttl_s = ttl_s

    def put(self, result: command_pb2.CommandResult, done: Callable[[bool], None]) -> bool:
        """Writes a result, encoded once; `done` is called with whether Redis has it, as soon as that is known.

        False when there is no room to keep it.
        """
        return self._behind.put(
            "SET", keys.result(result.command_id), result.SerializeToString(), "EX", self._ttl_s, done=done
        )

    async def get(self, command_id: str) -> command_pb2.CommandResult | None:
        """The stored result, None when there is none (any more). Raises STORE_UNAVAILABLE."""
        [stored] = await ask(self._redis, ("GET", keys.result(command_id)))
        try:
            return None if stored is None else command_pb2.CommandResult.FromString(stored)
        except DecodeError:
            return None
