"""A conversation as a whole, which a session or a correlation id makes of many commands: read in order, and ended."""

from dataclasses import dataclass
from typing import Self

from openline.client.requests import USUAL_LIST, HasSessionId, Wanted, invalid, list_request
from openline.client.results import Command, read_command
from openline.errors import OpenlineError, error
from openline.lookups import MAX_PAGES
from openline.reasons import Reason
from openline.v1.command_service_pb2 import (
    COMMAND_ORDER_OLDEST_FIRST,
    CancelCommandsRequest,
    CancelCommandsResponse,
    ListCommandsResponse,
)


@dataclass(frozen=True, slots=True)
class CancelledCommands:
    """What has come of the wish to end all that runs or waits in a conversation."""

    # Commands that had not ended; those that run end when their executor says so.
    cancelled: int
    # Broker replicas that did not answer, for keys with the scope admin.
    unreached: tuple[str, ...]
    # There are such replicas, which may have some left: it is asked again.
    incomplete: bool

    @classmethod
    def of(cls, answer: CancelCommandsResponse) -> Self:
        return cls(answer.cancelled, tuple(answer.unreached_replica_ids), answer.incomplete)


class Reading:
    """A list of commands, read a page at a time until there are as many as are wanted."""

    def __init__(self, wanted: Wanted) -> None:
        """Raises InvalidCommand."""
        self._limit = wanted.get("limit", USUAL_LIST)
        self._pages = 0
        self.request = list_request(wanted)
        self.commands: list[Command] = []

    def take(self, page: ListCommandsResponse) -> bool:
        """The next page; whether there is to be another one. Raises NOT_BUILT for a broker that cannot do the order."""
        if self.request.order == COMMAND_ORDER_OLDEST_FIRST and page.order != self.request.order:
            raise OpenlineError(error(Reason.NOT_BUILT, "this broker lists the newest first only"))
        self.commands += map(read_command, page.commands)
        del self.commands[self._limit :]
        self.request.page_token = page.next_page_token
        self._pages += 1
        return bool(page.next_page_token) and len(self.commands) < self._limit and self._pages < MAX_PAGES


def cancel_request(*, session: str | HasSessionId, correlation_id: str, why: str) -> CancelCommandsRequest:
    """Raises InvalidCommand unless it is one of the two."""
    session_id = session if isinstance(session, str) else session.session_id
    if bool(session_id) == bool(correlation_id):
        raise invalid("session", "or correlation_id: give one of the two")
    if session_id:
        return CancelCommandsRequest(session_id=session_id, reason=why)
    return CancelCommandsRequest(correlation_id=correlation_id, reason=why)
