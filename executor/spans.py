"""The process of a command as a span, by OpenTelemetry's conventions for programs that run others.

https://opentelemetry.io/docs/specs/semconv/cli/cli-spans/#client-caller-spans. Arguments and output are in no span.
"""

from executor.actions import Ended, NotStarted, Spawn
from openline.reasons import Reason
from openline.tracing.spans import Kind, Span, begin


def begin_process(spawn: Spawn, *, program: str) -> Span | None:
    """Below what the broker sent, and above what the program says itself, should it know of traces."""
    return begin(
        program,
        Kind.CLIENT,
        parent=spawn.traceparent,
        attributes={"process.executable.name": program, "openline.command_id": spawn.command_id},
    )


def end_process(span: Span, end: Ended | NotStarted, *, pid: int) -> None:
    """As the conventions have it, an exit code that is not 0 is an error."""
    if isinstance(end, NotStarted):
        span.end(error=Reason.EXECUTOR_FAILED)
        return
    span.note({"process.pid": pid, "process.exit.code": end.exit_code})
    span.end(error=str(end.exit_code) if end.exit_code else "")
