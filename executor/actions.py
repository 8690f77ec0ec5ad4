"""What the core asks for (actions) and what it is told about a process: values only."""

from dataclasses import dataclass, field

from executor.report import Report
from openline.capture import Kept
from openline.policy import Masking
from openline.v1 import executor_service_pb2 as wire


@dataclass(frozen=True, slots=True)
class Send:
    """Put a frame on the stream; `output` frames go behind control frames and keep their order among themselves."""

    frame: wire.ExecutorFrame
    output: bool = False


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start kubectl with these arguments. Mask its output, keep at most so much; if `live`, tell of it as it comes."""

    command_id: str
    argv: tuple[str, ...]
    max_bytes: int
    masking: Masking
    live: bool = False
    # What a line of the log says that concerns it.
    names: dict[str, object] = field(default_factory=dict)
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Kill:
    """End the command's process group. May come before its process has been started."""

    command_id: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Stop reading the live command's output, so that its process is held up."""

    command_id: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Read the live command's output again."""

    command_id: str


@dataclass(frozen=True, slots=True)
class Result:
    """All there is of a command that has ended, for another process of this executor and for any replica."""

    execute: wire.Execute  # as it came; its id alone, if an older version left it
    report: Report
    executed: bool  # its process was started

    @property
    def command_id(self) -> str:
        return self.execute.command_id


@dataclass(frozen=True, slots=True)
class Store:
    """Keep a result also where it outlives this process, if there is such a place."""

    result: Result


@dataclass(frozen=True, slots=True)
class Erase:
    """The result under this id need not be kept there any more."""

    command_id: str


@dataclass(frozen=True, slots=True)
class Note:
    """Write a line to the log."""

    event: str
    fields: dict[str, object] = field(default_factory=dict)
    warning: bool = False


Action = Send | Spawn | Kill | Hold | Resume | Store | Erase | Note


@dataclass(frozen=True, slots=True)
class Ended:
    """The process ended and was reaped, by itself or killed."""

    exit_code: int
    stdout: Kept
    stderr: Kept
    run_s: float
    finished_at: float  # seconds since 1970, for people
    masked_values: int = 0  # in the whole output


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The process could not be started: kubectl has vanished, or the machine has no room for another process."""

    why: str
