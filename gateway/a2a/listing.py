"""Which tasks there are: chosen, sorted and counted as the protocol has it. Pure.

Brokers list commands by when they were asked for; here those that changed last come first, and all are counted. So each
page is made of the newest thousand: the brokers tell of them in one piece, and keep no more of a context.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field

from gateway.a2a.asking import read_params
from gateway.a2a.telling import ended_at, state_now
from gateway.times import Instant, stamp
from openline.limits import MAX_TIMEOUT_S, MAX_WAIT_FOR_CLUSTER_S
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ListCommandsRequest

LOOKED_AT = 1000
USUAL_PAGE, MAX_PAGE = 50, 100
# With their output, which may be long.
MAX_WHOLE = 10

# Whoever ended since then was asked for no longer before; a minute is for what it takes to end.
_LONGEST = timedelta(seconds=MAX_TIMEOUT_S + MAX_WAIT_FOR_CLUSTER_S + 60)
_EPOCH = datetime.fromtimestamp(0, UTC)
# In place of when it ended, of what runs: after all that has ended.
_RUNS = 10**17 - 1

# When it ended, in microseconds since 1970, and its id.
Place = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Page:
    commands: Sequence[command_pb2.Command]
    # Empty on the last one.
    next_token: str
    size: int
    # On all pages together.
    total: int


class Listing(BaseModel):
    """The params of ListTasks."""

    contextId: str = ""  # noqa: N815
    status: Literal[
        "TASK_STATE_UNSPECIFIED",
        "TASK_STATE_SUBMITTED",
        "TASK_STATE_WORKING",
        "TASK_STATE_COMPLETED",
        "TASK_STATE_FAILED",
        "TASK_STATE_CANCELED",
        "TASK_STATE_REJECTED",
        # Which no task has here.
        "TASK_STATE_INPUT_REQUIRED",
        "TASK_STATE_AUTH_REQUIRED",
    ] = "TASK_STATE_UNSPECIFIED"
    pageSize: Annotated[int, Field(ge=1, le=MAX_PAGE)] = USUAL_PAGE  # noqa: N815
    pageToken: Annotated[str, Field(pattern=r"^([0-9]{1,17}\.[0-9a-f-]{36})?$")] = ""  # noqa: N815
    # Tasks have none here, so any number will do.
    historyLength: Annotated[int, Field(ge=0)] = 0  # noqa: N815
    includeArtifacts: bool = False  # noqa: N815
    statusTimestampAfter: Instant = _EPOCH  # noqa: N815

    @classmethod
    def read(cls, params: Mapping[str, Any]) -> Self:
        """Raises RpcError."""
        return read_params(cls, params)

    def request(self) -> ListCommandsRequest:
        """For what a page is made of."""
        since = max(self.statusTimestampAfter, _EPOCH + _LONGEST) - _LONGEST
        return ListCommandsRequest(correlation_id=self.contextId, since=stamp(since), page_size=LOOKED_AT)

    def page(self, commands: Iterable[command_pb2.Command]) -> Page:
        found = sorted(((_place(each), each) for each in commands if self._fits(each)), key=_by_place, reverse=True)
        before = _read_token(self.pageToken) if self.pageToken else None
        left = [(place, each) for place, each in found if before is None or place < before]
        size = min(self.pageSize, MAX_WHOLE) if self.includeArtifacts else self.pageSize
        shown = left[:size]
        token = _token(shown[-1][0]) if len(left) > size else ""
        return Page([each for _, each in shown], token, size, len(found))

    def _fits(self, command: command_pb2.Command) -> bool:
        """What runs may change at any time: it fits every time that is asked for."""
        if self.status not in ("TASK_STATE_UNSPECIFIED", f"TASK_STATE_{state_now(command).upper()}"):
            return False
        ended = ended_at(command)
        return ended is None or ended >= self.statusTimestampAfter


def _place(command: command_pb2.Command) -> Place:
    ended = ended_at(command)
    at = _RUNS if ended is None else (ended - _EPOCH) // timedelta(microseconds=1)
    return at, command.command_id


def _by_place(placed: tuple[Place, command_pb2.Command]) -> Place:
    return placed[0]


def _token(place: Place) -> str:
    at, command_id = place
    return f"{at}.{command_id}"


def _read_token(token: str) -> Place:
    at, _, command_id = token.partition(".")
    return int(at), command_id
