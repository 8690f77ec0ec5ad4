"""The sessions that commands are asked for in: found in memory or in Redis, held against the caller, and kept alive."""

from time import monotonic

from broker.core.command import Ask
from broker.store.sessions import Sessions
from openline import errors
from openline.reasons import Reason
from openline.v1 import session_service_pb2


class UsedSessions:
    def __init__(self, records: Sessions) -> None:
        self._records = records

    def use_believed(self, ask: Ask) -> bool:
        """Whether the session was found a moment ago; then it is used. Raises as `find` does."""
        session = self._records.believed(ask.session_id, now=monotonic())
        if session is None:
            return False
        _check(ask, session)
        self._records.use(session, now=monotonic(), found=False)
        return True

    async def find(self, ask: Ask) -> session_service_pb2.Session:
        """The session as Redis has it. Raises SESSION_UNKNOWN, SESSION_MISMATCH, STORE_UNAVAILABLE."""
        session = await self._records.get(ask.session_id)
        if session is None:
            raise _unknown()
        _check(ask, session)
        return session

    def use(self, session: session_service_pb2.Session) -> None:
        """A command is asked for in a session that was found now."""
        self._records.use(session, now=monotonic(), found=True)


def _check(ask: Ask, session: session_service_pb2.Session) -> None:
    """Raises unless the session is this caller's and for this cluster."""
    if session.owner != ask.owner or not ask.clusters.sees(session.cluster_id):
        raise _unknown()
    if session.cluster_id != ask.cluster_id:
        step = f"Leave `session_id` out, for it is optional; this session is of the cluster {session.cluster_id}."
        metadata = {"session_cluster_id": session.cluster_id, errors.NEXT_STEP: step}
        raise errors.OpenlineError(errors.error(Reason.SESSION_MISMATCH, "Session cluster mismatch", metadata=metadata))


def _unknown() -> errors.OpenlineError:
    return errors.OpenlineError(errors.error(Reason.SESSION_UNKNOWN, "Session not found"))
