"""One command's events, over as many streams as it takes: run it, and when the stream breaks, attach to it again.

Another replica is asked from the next output seq on, until the result or the caller's deadline. Whoever stops before
the end closes the generator (`contextlib.aclosing`).
"""

from contextlib import aclosing
from time import monotonic

from openline.errors import OpenlineError
from openline.events import CommandEvents
from openline.pipe import Pipe
from openline.pipes import Pipes
from openline.trail import Trail, run_trail, watch_trail
from openline.v1.command_service_pb2 import ExecuteRequest, WatchCommandRequest


def execute_stream(pipes: Pipes, request: ExecuteRequest, *, api_key: str, timeout_s: float) -> CommandEvents:
    """Runs a command and gives its events; the result is the last. At most for `timeout_s`.

    The request must bring its command id. Raises OpenlineError: what a replica answered, or BROKER_UNAVAILABLE when the
    time is up. A command that is to be cancelled with its caller is cancelled when its stream breaks as well: the
    broker cannot tell one from the other. Its end is shown all the same.
    """
    return _followed(pipes, run_trail(request, timeout_s=timeout_s), api_key=api_key)


def watch(
    pipes: Pipes, command_id: str, *, from_seq: int, api_key: str, timeout_s: float, traceparent: str = ""
) -> CommandEvents:
    """Attaches to a command, running or done, and gives its events from an output seq on, as above."""
    trail = watch_trail(command_id, from_seq=from_seq, timeout_s=timeout_s, traceparent=traceparent)
    return _followed(pipes, trail, api_key=api_key)


async def _followed(pipes: Pipes, trail: Trail, *, api_key: str) -> CommandEvents:
    turns = pipes.turns()
    while (pipe := await turns.next(trail.ends_at)) is not None:
        try:
            async with aclosing(_asked(pipe, trail, api_key=api_key)) as events:
                async for event in events:
                    for shown in trail.show(event):
                        yield shown
            return
        except OpenlineError as failure:
            trail.failed(failure)
    raise trail.given_up()


def _asked(pipe: Pipe, trail: Trail, *, api_key: str) -> CommandEvents:
    now = monotonic()
    match trail.request(now):
        case ExecuteRequest() as request:
            return pipe.execute_stream(request, api_key=api_key, timeout_s=trail.left_s(now))
        case WatchCommandRequest() as request:
            return pipe.watch(request, api_key=api_key, timeout_s=trail.left_s(now))
