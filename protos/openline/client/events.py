"""What happens to a command while it runs, as a caller of the client sees it; read from the contract's messages."""

import codecs
from dataclasses import dataclass, field
from enum import StrEnum

from openline.client.errors import typed_errors
from openline.client.kinds import CommandState
from openline.client.results import Result, exited, read_result, read_state
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ExecuteRequest


class Source(StrEnum):
    """Which of a process's two streams."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class State:
    """The command has come so far."""

    command_id: str
    state: CommandState


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of output, in the order the process wrote it."""

    command_id: str
    # Counts from 0 over stdout and stderr together: to attach again behind it, watch from `seq + 1`.
    seq: int
    source: Source
    data: bytes = field(repr=False)
    # `data` as text. A character whose bytes came in two pieces is in the second one's.
    text: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Output that cannot be had any more: it went by faster than it was read, or it was not kept."""

    command_id: str
    # Of the output that follows.
    next_seq: int
    # Zero where it is not known.
    missed_bytes: int


# The result is the last one.
Event = State | Output | Gap | Result


class EventReader:
    """Reads the events of one command, in their order."""

    def __init__(self, request: ExecuteRequest) -> None:
        # What was asked; its command id becomes the one that is told: an idempotency key may stand for an older one.
        self._request = ExecuteRequest(command_id=request.command_id, cluster_id=request.cluster_id)
        self._decoders = _decoders()

    def read(self, event: command_pb2.CommandEvent) -> Event | None:
        """None for one of a newer version. Raises OpenlineError for a result without an exit code."""
        match event.WhichOneof("event"):
            case "output":
                output = event.output
                self._request.command_id = output.command_id or self._request.command_id
                is_stderr = output.source == command_pb2.OUTPUT_SOURCE_STDERR
                source = Source.STDERR if is_stderr else Source.STDOUT
                text = self._decoders[source].decode(output.data)
                return Output(self._request.command_id, output.seq, source, output.data, text)
            case "state":
                self._request.command_id = event.command_id or self._request.command_id
                return State(self._request.command_id, read_state(event.state))
            case "gap":
                # What follows does not go on where the last piece ended.
                self._decoders = _decoders()
                return Gap(self._request.command_id, event.gap.next_seq, event.gap.missed_bytes)
            case "result":
                with typed_errors(self._request.command_id):
                    return exited(read_result(event.result, self._request))
        return None


def _decoders() -> dict[Source, codecs.IncrementalDecoder]:
    make = codecs.getincrementaldecoder("utf-8")
    return {source: make(errors="replace") for source in Source}
