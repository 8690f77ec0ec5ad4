"""The exact bytes of a command's output, and headers that say what was cut from them."""

from starlette.responses import Response
from starlette.types import Scope

from gateway.command_models import Source
from gateway.problems import ProblemResponse, problem
from openline.reasons import UNKNOWN, YES
from openline.v1 import command_pb2

# At a time; no broker's message is larger.
MOST_BYTES = 8 << 20


def output_answer(result: command_pb2.CommandResult, source: Source, *, offset: int, limit: int) -> Response:
    """A part of what was kept; beyond its end there are no bytes.

    Where bytes were cut, they are missing in the middle of what is kept: its first half, rounded up, is the beginning.
    """
    data, summary = (
        (result.stdout, result.stdout_summary) if source == "stdout" else (result.stderr, result.stderr_summary)
    )
    headers = {
        "X-Output-Total-Bytes": str(summary.total_bytes),
        "X-Output-Total-Lines": str(summary.total_lines),
        "X-Output-Kept-Bytes": str(len(data)),
        "X-Output-Cut-Bytes": str(summary.cut_bytes),
        "X-Output-Cut-Lines": str(summary.cut_lines),
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
    }
    if summary.cut_bytes:
        headers["X-Output-Cut-At"] = str((len(data) + 1) // 2)
    return Response(data[offset : offset + limit], media_type="application/octet-stream", headers=headers)


def not_yet(scope: Scope, command: command_pb2.Command) -> ProblemResponse:
    """The command has not ended."""
    runs = command.state == command_pb2.COMMAND_STATE_RUNNING
    return problem(
        scope,
        409,
        f"The command has not ended; its output so far is at /v1/commands/{command.command_id}/events",
        executed=YES if runs else UNKNOWN,
    )
