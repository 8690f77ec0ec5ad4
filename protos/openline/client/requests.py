"""What a caller of the client says, checked and as brokers take it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, Self, TypedDict, cast

from openline.client.errors import typed
from openline.client.logs import log
from openline.errors import OpenlineError, error
from openline.ids import new_id
from openline.limits import DEADLINE_ALLOWANCE_S, DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S, MAX_WAIT_FOR_CLUSTER_S
from openline.reasons import Reason
from openline.settings import Address
from openline.tls import TlsFiles
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import (
    COMMAND_ORDER_NEWEST_FIRST,
    COMMAND_ORDER_OLDEST_FIRST,
    ExecuteRequest,
    ListCommandsRequest,
)
from openline.v1.session_service_pb2 import CreateSessionRequest
from openline.words import Unacceptable, check_size, split_command

# The broker allows the executor so long after the deadline; the client allows the broker the same on top.
WAIT_ALLOWANCE_S = 2 * DEADLINE_ALLOWANCE_S
# No command lives longer, so nobody watches longer.
LONGEST_WATCH_S = MAX_TIMEOUT_S + MAX_WAIT_FOR_CLUSTER_S + 60.0
# How many commands are listed where nothing is said, and how many a broker gives at a time.
USUAL_LIST = 100
MAX_PAGE = 1000


class HasSessionId(Protocol):
    """A session of either client."""

    @property
    def session_id(self) -> str: ...


class Options(TypedDict, total=False):
    """How a command is run; each may be left out."""

    # Instead of words: as it would be typed, with or without `kubectl`; split as a shell splits it, and nothing more.
    command: str
    # How long the command may take; 0..3600, else the client's own.
    timeout_s: float
    # How long to wait for a cluster that is not connected, on top; 0..300, else be told at once.
    wait_for_cluster_s: float
    # The same key again gives the same command and its result: nothing runs twice.
    idempotency_key: str
    # Ties together the calls of one conversation.
    correlation_id: str
    # Cancel the command when its caller stops waiting; else it runs on, and can be fetched by its id.
    cancel_on_disconnect: bool
    # Of each output stream; the broker's limit bounds larger wishes.
    max_output_bytes: int
    # How old the answer may be: that of an identical command will do which was sent to its cluster no longer ago, and
    # runs or has succeeded. 0 has a run of its own; else as the broker is set. 5 is the most that counts.
    max_age_s: float
    # W3C trace context.
    traceparent: str


class CommandOptions(Options, total=False):
    """What only one command can have."""

    # A session, or its id.
    session: str | HasSessionId
    # A UUIDv7 of the caller's choice (`openline.ids.new_id`), to look for the command whatever happens.
    command_id: str


class Wanted(TypedDict, total=False):
    """Which commands are listed: those to which all of this applies."""

    cluster_id: str
    session_id: str
    correlation_id: str
    # In UTC if it has no time zone.
    since: datetime
    # How many at most, else 100.
    limit: int
    # As a conversation is read; else the newest come first.
    oldest_first: bool


@dataclass(frozen=True, slots=True)
class Access:
    """Where the brokers are, and how they are spoken to."""

    addresses: tuple[Address, ...]
    api_key: str
    tls: TlsFiles
    # Of a command that names none.
    timeout_s: float

    @classmethod
    def of(
        cls,
        brokers: str | Sequence[str],
        api_key: str,
        *,
        ca: str | Path | None,
        cert: str | Path | None,
        key: str | Path | None,
        timeout_s: float,
    ) -> Self:
        """`brokers` is HOST:PORT[,HOST:PORT…] or a list. Raises ValueError for what cannot be meant."""
        given = brokers.split(",") if isinstance(brokers, str) else brokers
        addresses = tuple(dict.fromkeys(Address.parse(text) for text in given if text.strip()))
        if not addresses:
            raise ValueError("expected HOST:PORT[,HOST:PORT…]")
        if not api_key or not api_key.isascii() or not api_key.isprintable():
            raise ValueError("an API key is visible ASCII")
        if (cert is None) != (key is None):
            raise ValueError("cert and key go together")
        if not 0 < timeout_s <= MAX_TIMEOUT_S:
            raise ValueError(f"timeout_s must be above 0 and at most {MAX_TIMEOUT_S:g}")
        return cls(addresses, api_key, TlsFiles(_path(ca), _path(cert), _path(key)), timeout_s)

    def warn_of_plaintext(self) -> None:
        """It is not refused: only the program knows what its network is."""
        for address in self.addresses:
            if not self.tls and not address.is_loopback:
                log.warning("plaintext", broker=address, why="the API key can be read on the way; give ca=…")


def execute_request(
    cluster_id: str, words: Sequence[str], options: CommandOptions, *, timeout_s: float
) -> ExecuteRequest:
    """The command, with an id from here on, so that it is the same command wherever it is asked for.

    Raises InvalidCommand for what no broker would take and the client itself needs to be right.
    """
    argv = _argv(words, options.get("command"))
    timeout_s = _seconds(options.get("timeout_s") or timeout_s, "timeout_s", MAX_TIMEOUT_S)
    wait_s = _seconds(options.get("wait_for_cluster_s", 0.0), "wait_for_cluster_s", MAX_WAIT_FOR_CLUSTER_S)
    session = options.get("session", "")
    max_bytes = options.get("max_output_bytes", 0)
    if max_bytes < 0:
        raise invalid("max_output_bytes", "must not be negative")
    max_age_s = options.get("max_age_s")
    if max_age_s is not None and not max_age_s >= 0:
        raise invalid("max_age_s", "must not be negative")
    return ExecuteRequest(
        cluster_id=cluster_id,
        argv=argv,
        timeout_s=timeout_s,
        session_id=session if isinstance(session, str) else session.session_id,
        correlation_id=options.get("correlation_id", ""),
        command_id=options.get("command_id") or new_id(),
        idempotency_key=options.get("idempotency_key", ""),
        wait_for_cluster_s=wait_s,
        cancel_on_disconnect=options.get("cancel_on_disconnect", False),
        output_limits=command_pb2.OutputLimits(max_bytes=max_bytes) if max_bytes else None,
        traceparent=options.get("traceparent", ""),
        max_age_s=max_age_s,
    )


def patience_s(request: ExecuteRequest) -> float:
    """How long to wait for the brokers, all told."""
    return (request.timeout_s or DEFAULT_TIMEOUT_S) + request.wait_for_cluster_s + WAIT_ALLOWANCE_S


def for_each_cluster(options: Options, cluster_id: str) -> CommandOptions:
    """The options of one of many commands: a key stands for one command, so each cluster has its own."""
    own = cast(CommandOptions, dict(options))
    if key := options.get("idempotency_key"):
        own["idempotency_key"] = f"{key}/{cluster_id}"
    return own


def session_request(cluster_id: str, *, ttl_s: int, user_id: str, correlation_id: str) -> CreateSessionRequest:
    if not 0 <= ttl_s < 1 << 32:
        raise invalid("ttl_s", "must be 60..3600")
    return CreateSessionRequest(cluster_id=cluster_id, ttl_s=ttl_s, user_id=user_id, correlation_id=correlation_id)


def list_request(wanted: Wanted) -> ListCommandsRequest:
    """The first page of the list; `page_size` is no more than is wanted."""
    if (limit := wanted.get("limit", USUAL_LIST)) < 1:
        raise invalid("limit", "must be at least 1")
    request = ListCommandsRequest(
        cluster_id=wanted.get("cluster_id", ""),
        session_id=wanted.get("session_id", ""),
        correlation_id=wanted.get("correlation_id", ""),
        page_size=min(limit, MAX_PAGE),
        order=COMMAND_ORDER_OLDEST_FIRST if wanted.get("oldest_first") else COMMAND_ORDER_NEWEST_FIRST,
    )
    if (since := wanted.get("since")) is not None:
        request.since.FromDatetime(since if since.tzinfo else since.replace(tzinfo=UTC))
    return request


def _argv(words: Sequence[str], command: str | None) -> list[str]:
    if bool(words) == (command is not None):
        raise invalid("argv", "give either words or command")
    try:
        if command is not None:
            return split_command(command)
        check_size(words, "argv")
    except Unacceptable as wrong:
        raise invalid(wrong.field, str(wrong)) from None
    return list(words)


def _seconds(value: float, name: str, most: float) -> float:
    # Written so that NaN is refused as well.
    if not 0 <= value <= most:
        raise invalid(name, f"must be 0..{most:g}")
    return value


def invalid(field: str, why: str) -> OpenlineError:
    return typed(OpenlineError(error(Reason.INVALID_COMMAND, f"{field} {why}", violations=[(field, why)])))


def _path(file: str | Path | None) -> Path | None:
    return None if file is None else Path(file)
