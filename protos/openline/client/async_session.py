"""AsyncSession: a session with one cluster, for as long as an `async with` lasts."""

from collections.abc import AsyncGenerator
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from openline.client.errors import typed_errors
from openline.client.events import Event
from openline.client.logs import log
from openline.client.requests import CommandOptions
from openline.client.results import Result
from openline.errors import OpenlineError
from openline.lookups import Lookups
from openline.v1.session_service_pb2 import CreateSessionRequest, DeleteSessionRequest
from openline.v1.session_service_pb2_grpc import SessionServiceStub

if TYPE_CHECKING:
    from openline.client.async_client import AsyncClient


class AsyncSession:
    """Made by `AsyncClient.session`. Its commands keep it alive and are filed under it."""

    def __init__(self, client: "AsyncClient", lookups: Lookups, request: CreateSessionRequest, *, keep: bool) -> None:
        self._client = client
        self._lookups = lookups
        self._request = request
        self._keep = keep
        # Empty until it is entered.
        self.session_id = ""
        self.cluster_id = request.cluster_id

    def __repr__(self) -> str:
        return f"<AsyncSession {self.session_id or '?'} {self.cluster_id}>"

    async def __aenter__(self) -> Self:
        with typed_errors():
            made = await self._lookups.ask(lambda channel: SessionServiceStub(channel).CreateSession, self._request)
        self.session_id = made.session.session_id
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._keep:
            return
        request = DeleteSessionRequest(session_id=self.session_id)
        try:
            await self._lookups.ask(lambda channel: SessionServiceStub(channel).DeleteSession, request)
        except OpenlineError as left:
            # It may have expired, and it will: no reason to hide what happened inside.
            log.debug("session.not_deleted", session_id=self.session_id, reason=left.reason)

    async def execute(self, *words: str, **options: Unpack[CommandOptions]) -> Result:
        """As `AsyncClient.execute`, in this session."""
        options["session"] = self
        return await self._client.execute(self.cluster_id, *words, **options)

    def stream(self, *words: str, **options: Unpack[CommandOptions]) -> AsyncGenerator[Event, None]:
        """As `AsyncClient.stream`, in this session."""
        options["session"] = self
        return self._client.stream(self.cluster_id, *words, **options)
