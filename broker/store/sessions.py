"""Sessions in Redis: records with a lifetime of their own, begun anew by every use."""

import time
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from broker.store import keys
from broker.store.behind import WriteBehind
from broker.store.client import Client, ask
from broker.store.lists import newest, put_on
from broker.store.single import RedisCommand
from openline.ids import is_command_id, made_at
from openline.v1 import session_service_pb2

# A session that was found is believed for so long without asking Redis again; one that was deleted on another replica
# may be used here until then.
BELIEVED_S = 1.0
MAX_BELIEVED = 10_000
# A session that is listed and not there is forgotten, but not while it may still be on its way.
ON_ITS_WAY_S = 10.0


class Sessions:
    def __init__(self, redis: Client, behind: WriteBehind) -> None:
        self._redis = redis
        self._behind = behind
        self._believed: dict[str, tuple[float, session_service_pb2.Session]] = {}

    async def create(self, session: session_service_pb2.Session) -> None:
        """Stores a new session, whose `ttl_s` begins now. Raises STORE_UNAVAILABLE."""
        _renew(session)
        ttl_s = session.ttl_s
        await ask(
            self._redis,
            ("SET", keys.session(session.session_id), session.SerializeToString(), "EX", ttl_s),
            ("SET", keys.cluster_session(session.cluster_id), session.session_id, "EX", ttl_s),
            *_listing(session),
        )

    async def get(self, session_id: str) -> session_service_pb2.Session | None:
        """The session, None when there is none (any more). Raises STORE_UNAVAILABLE."""
        [stored] = await ask(self._redis, ("GET", keys.session(session_id)))
        return _read(stored)

    async def listed(
        self, owner: str, *, before: str, count: int
    ) -> Sequence[tuple[str, session_service_pb2.Session | None]]:
        """So many of an owner's sessions, newest first, before an id (empty: from the newest on); None for a gone one.

        Raises STORE_UNAVAILABLE.
        """
        listing = keys.owned_sessions(owner)
        [names] = await ask(self._redis, newest(listing, before=before, count=count))
        session_ids = [name.decode(errors="replace") for name in names]
        stored = await ask(self._redis, *(("GET", keys.session(session_id)) for session_id in session_ids))
        sessions = [_read(each) for each in stored]
        gone = [
            session_id
            for session_id, session in zip(session_ids, sessions, strict=True)
            if session is None and not (is_command_id(session_id) and made_at(session_id) > time.time() - ON_ITS_WAY_S)
        ]
        if gone:
            self._behind.put("ZREM", listing, *gone)
        return list(zip(session_ids, sessions, strict=True))

    def believed(self, session_id: str, *, now: float) -> session_service_pb2.Session | None:
        """A session that was found within the last second, without asking Redis."""
        at, session = self._believed.get(session_id, (float("-inf"), None))
        return session if now - at < BELIEVED_S else None

    def use(self, session: session_service_pb2.Session, *, now: float, found: bool) -> None:
        """A command was asked for in this session: it lives on for its TTL. Written behind.

        `found` says that it was just read from Redis, and may be believed for a while.
        """
        session.command_count += 1
        _renew(session)
        # XX: a session that was deleted meanwhile stays deleted.
        ttl_s = session.ttl_s
        self._behind.put("SET", keys.session(session.session_id), session.SerializeToString(), "XX", "EX", ttl_s)
        self._behind.put("SET", keys.cluster_session(session.cluster_id), session.session_id, "EX", ttl_s)
        if found:
            for command in _listing(session):
                self._behind.put(*command)
            if len(self._believed) >= MAX_BELIEVED:
                self._believed.clear()
            self._believed[session.session_id] = (now, session)

    async def delete(self, session: session_service_pb2.Session) -> None:
        """Raises STORE_UNAVAILABLE."""
        self._believed.pop(session.session_id, None)
        await ask(
            self._redis,
            ("DEL", keys.session(session.session_id)),
            ("DEL", keys.cluster_session(session.cluster_id)),
            ("ZREM", keys.owned_sessions(session.owner), session.session_id),
        )


def _renew(session: session_service_pb2.Session) -> None:
    now_ms = int(time.time() * 1000)
    session.last_used_at.FromMilliseconds(now_ms)
    session.expires_at.FromMilliseconds(now_ms + session.ttl_s * 1000)


def _listing(session: session_service_pb2.Session) -> tuple[RedisCommand, ...]:
    """Puts the session on its owner's list."""
    listing = keys.owned_sessions(session.owner)
    return put_on(listing, [session.session_id], most=keys.MAX_OWNED_SESSIONS, ttl_s=keys.OWNED_SESSIONS_S)


def _read(stored: bytes | None) -> session_service_pb2.Session | None:
    """None for one that is not there, or is somebody else's bytes."""
    try:
        return None if stored is None else session_service_pb2.Session.FromString(stored)
    except DecodeError:
        return None
