"""What a caller has: its commands, in either order, and its sessions, newest first."""

import time
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.credentials import Caller
from broker.dispatcher import Dispatcher
from broker.lookups import CLOCK_SLACK_S, may_see
from broker.paging import Page, check_id_token, page_size, read_page
from broker.records import outline, record
from broker.store import keys
from broker.store.store import Store
from openline import errors
from openline.ids import first_made_at, is_name, is_token
from openline.reasons import Reason
from openline.v1 import command_pb2, command_service_pb2, session_service_pb2

COMMANDS_AT_A_TIME = 500
SESSIONS_AT_A_TIME = 200
# For one page: all of a list of commands, as the lists are bounded.
MAX_COMMANDS = keys.MAX_OWNED_COMMANDS
MAX_SESSIONS = 2_000


class Listings:
    def __init__(self, dispatcher: Dispatcher, store: Store) -> None:
        self._dispatcher = dispatcher
        self._store = store

    async def commands(
        self, request: command_service_pb2.ListCommandsRequest, caller: Caller
    ) -> Page[command_pb2.Command]:
        """Those that the caller may see, as `Lookups.find` has it: its owner's, and for an admin another one's.

        Raises INVALID_COMMAND for an order that is none and a page_token that was not a page's, STORE_UNAVAILABLE.
        """
        token = check_id_token(request.page_token)
        if request.order not in command_service_pb2.CommandOrder.values():
            wrong = [("order", "must be COMMAND_ORDER_NEWEST_FIRST or COMMAND_ORDER_OLDEST_FIRST")]
            raise errors.OpenlineError(errors.error(Reason.INVALID_COMMAND, "order is not valid", violations=wrong))
        oldest_first = request.order == command_service_pb2.COMMAND_ORDER_OLDEST_FIRST
        names = (request.session_id, request.correlation_id)
        owner = request.owner or caller.owner
        is_seen = owner == caller.owner or ("admin" in caller.scopes and is_name(owner))
        if not is_seen or not all(is_token(name) for name in names if name):
            return Page([], "")
        if request.session_id:
            listing = keys.session_commands(request.session_id)
        elif request.correlation_id:
            listing = keys.conversation_commands(owner, request.correlation_id)
        else:
            listing = keys.owned_commands(owner)
        # The list lives on with its newest command, and what has expired since is still on it.
        oldest = time.time() - self._store.results.ttl_s
        asked_since = seconds(request.since)
        since = first_made_at(max(oldest, asked_since - CLOCK_SLACK_S))

        async def fetch(shown: str, count: int) -> Sequence[tuple[str, command_pb2.Command | None]]:
            found = await self._store.history.page(
                listing, shown=shown, since=since, count=count, oldest_first=oldest_first
            )
            return [(name, None if command is None else self._now(command)) for name, command in found]

        def fits(command: command_pb2.Command) -> bool:
            return (
                may_see(caller, command)
                and request.owner in ("", command.owner)
                and request.cluster_id in ("", command.cluster_id)
                and request.session_id in ("", command.session_id)
                and request.correlation_id in ("", command.correlation_id)
                and seconds(command.created_at) >= asked_since
            )

        return await read_page(
            fetch,
            fits,
            size=page_size(request.page_size),
            token=token,
            at_a_time=COMMANDS_AT_A_TIME,
            most=MAX_COMMANDS,
            newest_last=oldest_first,
        )

    async def sessions(
        self, request: session_service_pb2.ListSessionsRequest, caller: Caller
    ) -> Page[session_service_pb2.Session]:
        """The owner's, of clusters that the caller sees.

        Raises INVALID_COMMAND for a page_token that was not a page's, STORE_UNAVAILABLE.
        """

        async def fetch(before: str, count: int) -> Sequence[tuple[str, session_service_pb2.Session | None]]:
            return await self._store.sessions.listed(caller.owner, before=before, count=count)

        return await read_page(
            fetch,
            lambda session: request.cluster_id in ("", session.cluster_id) and caller.sees(session.cluster_id),
            size=page_size(request.page_size),
            token=check_id_token(request.page_token),
            at_a_time=SESSIONS_AT_A_TIME,
            most=MAX_SESSIONS,
        )

    def _now(self, command: command_pb2.Command) -> command_pb2.Command:
        """One that runs here as it is now."""
        here = None if command.HasField("result") else self._dispatcher.find(command.command_id)
        return command if here is None else outline(record(here))


def seconds(stamp: Timestamp) -> float:
    """Since 1970; 0 for one that is not set."""
    return stamp.seconds + stamp.nanos / 1e9
