"""Session: a session with one cluster, for as long as a `with` lasts."""

from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from openline.client.errors import typed_errors
from openline.client.events import Event
from openline.client.lines import Lines
from openline.client.logs import log
from openline.client.requests import CommandOptions
from openline.client.results import Result
from openline.errors import OpenlineError
from openline.v1.session_service_pb2 import CreateSessionRequest, DeleteSessionRequest

if TYPE_CHECKING:
    from openline.client.sync_client import Client


class Session:
    """Made by `Client.session`. Its commands keep it alive and are filed under it."""

    def __init__(self, client: "Client", lines: Lines, request: CreateSessionRequest, *, keep: bool) -> None:
        self._client = client
        self._lines = lines
        self._request = request
        self._keep = keep
        # Empty until it is entered.
        self.session_id = ""
        self.cluster_id = request.cluster_id

    def __repr__(self) -> str:
        return f"<Session {self.session_id or '?'} {self.cluster_id}>"

    def __enter__(self) -> Self:
        with typed_errors():
            made = self._lines.first_answer(
                lambda line, timeout_s: line.ask(line.sessions.CreateSession, self._request, timeout_s=timeout_s)
            )
        self.session_id = made.session.session_id
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._keep:
            return
        request = DeleteSessionRequest(session_id=self.session_id)
        try:
            self._lines.first_answer(
                lambda line, timeout_s: line.ask(line.sessions.DeleteSession, request, timeout_s=timeout_s)
            )
        except OpenlineError as left:
            # It may have expired, and it will: no reason to hide what happened inside.
            log.debug("session.not_deleted", session_id=self.session_id, reason=left.reason)

    def execute(self, *words: str, **options: Unpack[CommandOptions]) -> Result:
        """As `Client.execute`, in this session."""
        options["session"] = self
        return self._client.execute(self.cluster_id, *words, **options)

    def stream(self, *words: str, **options: Unpack[CommandOptions]) -> Generator[Event, None, None]:
        """As `Client.stream`, in this session."""
        options["session"] = self
        return self._client.stream(self.cluster_id, *words, **options)
