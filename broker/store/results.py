"""Commands that are done, in Redis: written behind the answer, found again by id until they expire."""

from collections.abc import Callable

from google.protobuf.message import DecodeError

from broker.store import keys
from broker.store.behind import WriteBehind
from broker.store.client import Client, ask
from openline import errors
from openline.reasons import UNKNOWN
from openline.v1 import command_pb2


class Results:
    def __init__(self, redis: Client, behind: WriteBehind, *, ttl_s: int) -> None:
        self._redis = redis
        self._behind = behind
        self.ttl_s = ttl_s

    def put(self, command: command_pb2.Command, done: Callable[[bool], None]) -> bool:
        """Writes a command, encoded once; `done` is called with whether Redis has it. False: no room to keep it.

        Two replicas may find an end for one command: a frozen one that its time is up, one that has taken it over an
        exit with the last of its output. A whole exit stands.
        """
        result = command.result
        is_cut = result.stdout_summary.cut_bytes + result.stderr_summary.cut_bytes > 0
        unless_there = ("NX",) if is_cut or result.outcome != command_pb2.OUTCOME_EXITED else ()
        name, stored = keys.command(command.command_id), command.SerializeToString()
        return self._behind.put("SET", name, stored, "EX", self.ttl_s, *unless_there, done=done, may_linger=True)

    async def get(self, command_id: str) -> command_pb2.Command | None:
        """The stored command, None when there is none (any more). Raises STORE_UNAVAILABLE."""
        try:
            [stored] = await ask(self._redis, ("GET", keys.command(command_id)))
        except errors.OpenlineError as unavailable:
            # What is not found here may well have run.
            unavailable.error.executed = UNKNOWN
            raise
        try:
            return None if stored is None else command_pb2.Command.FromString(stored)
        except DecodeError:
            return None
