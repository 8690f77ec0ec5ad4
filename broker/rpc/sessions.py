"""SessionService: sessions made, shown, listed and ended."""

from typing import Any

import grpc

from broker.audit import Audit
from broker.core.access import rule
from broker.core.credentials import Caller, Credentials
from broker.listings import Listings
from broker.registry import Registry
from broker.rpc.callers import admitted, known
from broker.store.store import Store
from openline import errors
from openline.ids import is_name, is_token, new_id
from openline.reasons import Reason
from openline.v1 import session_service_pb2

DEFAULT_TTL_S = 300
TTL_RANGE_S = range(60, 3601)

Context = grpc.aio.ServicerContext[Any, Any]


class SessionService:
    def __init__(
        self, store: Store, credentials: Credentials, registry: Registry, listings: Listings, audit: Audit
    ) -> None:
        self._store = store
        self._credentials = credentials
        self._registry = registry
        self._listings = listings
        self._audit = audit

    async def CreateSession(  # noqa: N802
        self, request: session_service_pb2.CreateSessionRequest, context: Context
    ) -> session_service_pb2.CreateSessionResponse:
        caller = known(self._credentials, context)
        try:
            return await self._create(request, caller)
        except errors.OpenlineError as refusal:
            self._audit.refused(request, caller, refusal.error)
            raise

    async def GetSession(  # noqa: N802
        self, request: session_service_pb2.GetSessionRequest, context: Context
    ) -> session_service_pb2.GetSessionResponse:
        caller = admitted(self._credentials, context, "SessionService.GetSession")
        return session_service_pb2.GetSessionResponse(session=await self._session(request.session_id, caller))

    async def DeleteSession(  # noqa: N802
        self, request: session_service_pb2.DeleteSessionRequest, context: Context
    ) -> session_service_pb2.DeleteSessionResponse:
        caller = admitted(self._credentials, context, "SessionService.DeleteSession")
        session = await self._session(request.session_id, caller)
        await self._store.sessions.delete(session)
        self._tell("delete_session", session, caller)
        return session_service_pb2.DeleteSessionResponse()

    async def ListSessions(  # noqa: N802
        self, request: session_service_pb2.ListSessionsRequest, context: Context
    ) -> session_service_pb2.ListSessionsResponse:
        caller = admitted(self._credentials, context, "SessionService.ListSessions")
        page = await self._listings.sessions(request, caller)
        return session_service_pb2.ListSessionsResponse(sessions=page.items, next_page_token=page.next_token)

    async def _create(
        self, request: session_service_pb2.CreateSessionRequest, caller: Caller
    ) -> session_service_pb2.CreateSessionResponse:
        rule("SessionService.CreateSession").check(caller)
        ttl_s = request.ttl_s or DEFAULT_TTL_S
        wrong = [
            (name, "must be 1..200 characters without control characters")
            for name in ("user_id", "service_identity")
            if (value := getattr(request, name)) and not is_name(value)
        ]
        if request.correlation_id and not is_token(request.correlation_id):
            wrong.append(("correlation_id", "must be 1..200 visible ASCII characters"))
        if ttl_s not in TTL_RANGE_S:
            wrong.append(("ttl_s", f"must be {TTL_RANGE_S.start}..{TTL_RANGE_S.stop - 1}"))
        if wrong:
            invalid = errors.error(Reason.INVALID_COMMAND, "the session is not valid", violations=wrong)
            raise errors.OpenlineError(invalid)
        self._registry.require(request.cluster_id, caller)
        session = session_service_pb2.Session(
            session_id=new_id(),
            cluster_id=request.cluster_id,
            user_id=request.user_id,
            correlation_id=request.correlation_id,
            service_identity=request.service_identity,
            ttl_s=ttl_s,
            owner=caller.owner,
        )
        session.created_at.GetCurrentTime()
        await self._store.sessions.create(session)
        self._tell("create_session", session, caller)
        return session_service_pb2.CreateSessionResponse(session=session)

    def _tell(self, action: str, session: session_service_pb2.Session, caller: Caller) -> None:
        """The audit trail, of what was done."""
        self._audit.acted(
            action,
            caller,
            cluster_id=session.cluster_id,
            session_id=session.session_id,
            correlation_id=session.correlation_id,
        )

    async def _session(self, session_id: str, caller: Caller) -> session_service_pb2.Session:
        """The caller's session. Raises SESSION_UNKNOWN, also for one of another owner or a hidden cluster."""
        session = await self._store.sessions.get(session_id) if is_token(session_id) else None
        if session is None or session.owner != caller.owner or not caller.sees(session.cluster_id):
            raise errors.OpenlineError(errors.error(Reason.SESSION_UNKNOWN, "Session not found"))
        return session
