"""The shapes of /v1's commands: what is asked, and a command as it is shown while it runs and after."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.models import (
    AGE,
    BOUNDED,
    HINT,
    SERVED_FROM,
    TRUNCATED,
    Argument,
    CancelOnDisconnect,
    CorrelationId,
    ServedFrom,
    Text,
    TimingsAnswer,
    WaitForCluster,
)
from gateway.shaping_models import UNCHANGED_SINCE, Digest, ShapingAnswer, ShapingFields
from openline.limits import DEFAULT_TIMEOUT_S, MAX_ARGUMENTS, MAX_ARGV_BYTES, MAX_TIMEOUT_S

State = Literal["queued", "forwarded", "written", "accepted", "running", "done"]
End = Literal["exited", "timed_out", "cancelled", "lost", "rejected"]
Source = Literal["stdout", "stderr"]

# No broker keeps more of one command's output.
MOST_OUTPUT_BYTES = 64 << 20


class Words(BaseModel):
    """A kubectl command: `argv` as it is, or `command` as it would be typed; nothing is run in a shell."""

    argv: Annotated[list[Argument], Field(min_length=1, max_length=MAX_ARGUMENTS)] | None = Field(
        None, description="Without the program."
    )
    command: Annotated[Text, Field(min_length=1, max_length=MAX_ARGV_BYTES)] | None = Field(
        None, description="Split once, as a shell splits words; a leading `kubectl` is left out."
    )
    timeout_seconds: Annotated[float, Field(ge=1, le=MAX_TIMEOUT_S, allow_inf_nan=False)] = DEFAULT_TIMEOUT_S
    wait_for_cluster_s: WaitForCluster = 0.0
    correlation_id: CorrelationId | None = None
    cancel_on_disconnect: CancelOnDisconnect = False
    max_output_bytes: Annotated[int, Field(ge=1, le=MOST_OUTPUT_BYTES)] | None = Field(
        None, description="How much of the output is kept, head and tail; the broker's own limit bounds it."
    )


class CommandBody(Words, ShapingFields):
    """A kubectl command for one cluster, and what of its output is wanted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"argv": ["get", "pods", "-n", "shop"]},
                {"command": "kubectl get pods -n shop", "timeout_seconds": 30},
                {"argv": ["logs", "-f", "web-0", "-n", "shop"], "timeout_seconds": 600, "cancel_on_disconnect": True},
                {"argv": ["logs", "web-0", "-n", "shop"], "grep": "ERROR|WARN", "grep_context": 2, "tail": 40},
                {"argv": ["get", "pods", "-A", "-o", "json"], "jsonpath": "$.items[*].metadata.name"},
            ]
        }
    )

    session_id: Annotated[Text, Field(max_length=200)] | None = None
    unchanged_since: Digest | None = Field(None, description=UNCHANGED_SINCE)


class OutputAnswer(BaseModel):
    """What became of one stream. Where bytes were cut, they are missing in the middle of what is kept."""

    total_bytes: int = Field(description="What the command wrote, kept or not.")
    total_lines: int
    cut_bytes: int
    cut_lines: int


class FailureAnswer(BaseModel):
    """Why there is no exit code."""

    reason: str
    message: str
    executed: str = Field(description="no, yes or unknown: whether the process was started.")
    next_step: str = Field(description="What to do about it.")


class LinksAnswer(BaseModel):
    """Where to look further."""

    self: str
    output: str = Field(description="The exact bytes.")
    events: str = Field(description="Output as it comes.")


class CommandListed(BaseModel):
    """A command without what it wrote. What only its end tells is null until then."""

    command_id: str
    cluster_id: str
    session_id: str | None
    correlation_id: str | None = Field(description="As the caller gave it.")
    argv: list[str] | None = Field(
        description="Null where only the result is known. In a list the first 2 KiB, and then `…`."
    )
    state: State
    outcome: End | None
    exit_code: int | None = Field(description="Null for a command that did not end by itself.")
    success: bool | None = Field(description="It ended by itself, with exit code 0.")
    error: FailureAnswer | None
    executor_id: str | None = Field(description="Who ran it.")
    truncated: bool | None = Field(description=TRUNCATED)
    timings: TimingsAnswer | None
    created_at: datetime | None
    observed_at: datetime | None = Field(description="When the executor saw it end.")
    served_from: ServedFrom | None = Field(description=SERVED_FROM)
    run_by_command_id: str | None = Field(description="The command that ran, if it is another one.")
    age_s: float | None = Field(description=AGE)
    links: LinksAnswer


class CommandPage(BaseModel):
    """Commands of the key's owner, in the order that was asked for."""

    commands: list[CommandListed]
    count: int = Field(description="On this page.")
    next_cursor: str | None = Field(
        description="For the next page; null on the last one. A page may be short and not be the last."
    )


class CommandAnswer(CommandListed):
    """A command, and what it wrote."""

    digest: str | None = Field(description="Of the whole output, however it is shaped: for `unchanged_since`.")
    not_modified: bool = Field(description="The output is the one of `unchanged_since`, and is not here again.")
    stdout: str | None
    stderr: str | None
    shaping: ShapingAnswer | None = Field(
        description="Where not all of the output is wanted: what is shown, and what is not."
    )
    encoding_replaced: bool | None = Field(description="Some bytes were not UTF-8 and stand as U+FFFD in the text.")
    masked_values: int | None = Field(
        description="How many values the executor has masked in the output: data of Secrets, credentials."
    )
    bounded: list[str] | None = Field(description=BOUNDED)
    hint: str | None = Field(description=f"{HINT}.")
    stdout_summary: OutputAnswer | None
    stderr_summary: OutputAnswer | None


class CancelAnswer(BaseModel):
    """What became of the wish to stop a command."""

    command_id: str
    state: State = Field(description="When the request was taken. A command that is done stays as it is.")
