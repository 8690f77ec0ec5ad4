"""The audit trail in Redis: a stream of bounded length, written behind in batches, read newest first."""

from collections.abc import Iterable, Sequence

from google.protobuf.message import DecodeError

from broker.store import keys
from broker.store.behind import WriteBehind
from broker.store.client import Client, ask
from broker.store.gathering import Gathering
from broker.store.single import RedisCommand
from openline.v1 import admin_service_pb2

DEFAULT_MAX_ENTRIES = 100_000
# Entries that are not written yet; some 500 bytes each.
MAX_WAITING = 20_000

# Appends many entries in one command. KEYS: the stream. ARGV: how many it holds, about; then the entries.
APPEND = """
for i = 2, #ARGV do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'entry', ARGV[i])
end
"""


class AuditTrail:
    """`max_entries` of 0: nothing is written."""

    def __init__(self, redis: Client, behind: WriteBehind, *, max_entries: int) -> None:
        self._redis = redis
        self._max_entries = max_entries
        self._gathering = Gathering[bytes](behind, self._render, name="audit", max_waiting=MAX_WAITING)
        self.flush = self._gathering.flush

    @property
    def lost(self) -> int:
        """How many were never stored, since the start."""
        return self._gathering.lost

    def append(self, entry: admin_service_pb2.AuditEntry) -> None:
        if self._max_entries:
            self._gathering.add(entry.SerializeToString())

    async def page(
        self, *, before: str, since_ms: int, until_ms: int | None, count: int
    ) -> list[tuple[str, admin_service_pb2.AuditEntry | None]]:
        """So many entries, newest first, with the ids that Redis gave them as it took them; None for what is none.

        Before such an id, or else not after an instant of Redis's clock; and not before another one. Raises
        STORE_UNAVAILABLE.
        """
        upto = f"({before}" if before else "+" if until_ms is None else until_ms
        [found] = await ask(self._redis, ("XREVRANGE", keys.AUDIT, upto, since_ms, "COUNT", count))
        return [(name.decode(), _read(fields)) for name, fields in found]

    def _render(self, entries: Sequence[bytes]) -> Iterable[RedisCommand]:
        yield "EVAL", APPEND, 1, keys.AUDIT, self._max_entries, *entries


def _read(fields: dict[bytes, bytes]) -> admin_service_pb2.AuditEntry | None:
    try:
        return admin_service_pb2.AuditEntry.FromString(fields[b"entry"])
    except (DecodeError, KeyError):
        return None
