"""What a caller's request must look like: every field bounded and checked, defaults filled in."""

from collections.abc import Sequence
from dataclasses import dataclass

from broker.core.command import Ask
from broker.core.credentials import Caller
from openline import errors, limits
from openline.ids import is_command_id, is_token, new_id
from openline.reasons import Reason
from openline.tracing.traceparent import has_form
from openline.v1 import command_service_pb2, executor_service_pb2


@dataclass(frozen=True, slots=True)
class Sharing:
    """How long ago an identical command may have been sent to an executor for one to share its result, seconds."""

    # While it runs; 0: never, whatever is asked.
    share_s: float = 0.0
    # When it has succeeded.
    cache_s: float = 0.0

    def of(self, request: command_service_pb2.ExecuteRequest) -> "Sharing":
        """As this request wants it, where this is usual."""
        if not self.share_s or not request.HasField("max_age_s"):
            return self
        age_s = min(request.max_age_s, limits.MAX_ANSWER_AGE_S)
        return Sharing(age_s, age_s)


ALONE = Sharing()


def check_execute(
    request: command_service_pb2.ExecuteRequest,
    caller: Caller,
    *,
    max_output_bytes: int,
    live: bool = False,
    origin: str = "",
    sharing: Sharing = ALONE,
) -> Ask:
    """The checked form of a request. Raises INVALID_COMMAND with every violation."""
    wrong = check_argv(request.argv)
    # Written so that NaN is refused as well.
    if not 0 <= request.timeout_s <= limits.MAX_TIMEOUT_S:
        wrong.append(("timeout_s", f"must be 0..{limits.MAX_TIMEOUT_S:g}"))
    if not 0 <= request.wait_for_cluster_s <= limits.MAX_WAIT_FOR_CLUSTER_S:
        wrong.append(("wait_for_cluster_s", f"must be 0..{limits.MAX_WAIT_FOR_CLUSTER_S:g}"))
    if not request.max_age_s >= 0:
        wrong.append(("max_age_s", "must not be negative"))
    if request.command_id and not is_command_id(request.command_id):
        wrong.append(("command_id", "must be a UUIDv7 in lower case"))
    for name in ("session_id", "correlation_id", "idempotency_key"):
        if (value := getattr(request, name)) and not is_token(value):
            wrong.append((name, "must be 1..200 visible ASCII characters"))
    if request.traceparent and not has_form(request.traceparent):
        wrong.append(("traceparent", "must be a W3C traceparent"))
    if wrong:
        raise errors.OpenlineError(errors.error(Reason.INVALID_COMMAND, "the request is not valid", violations=wrong))
    sharing = sharing.of(request)
    return Ask(
        command_id=request.command_id or new_id(),
        cluster_id=request.cluster_id,
        argv=tuple(request.argv),
        timeout_s=request.timeout_s or limits.DEFAULT_TIMEOUT_S,
        max_output_bytes=min(request.output_limits.max_bytes or max_output_bytes, max_output_bytes),
        owner=caller.owner,
        scopes=caller.scopes,
        session_id=request.session_id,
        correlation_id=request.correlation_id,
        traceparent=request.traceparent,
        wait_for_cluster_s=request.wait_for_cluster_s,
        live=live,
        share_s=sharing.share_s,
        cache_s=sharing.cache_s,
        attach=request.attach and request.command_id != "",
        origin=origin,
        quota=caller.quota,
        counted_as=caller.counted_as,
        key=caller.digest,
        clusters=caller.clusters,
    )


def ask_of(execute: executor_service_pb2.Execute, cluster_id: str) -> Ask:
    """What was asked, as an executor was told of it by a replica, which had checked it; with the time that remains."""
    return Ask(
        command_id=execute.command_id,
        cluster_id=cluster_id,
        argv=tuple(execute.argv),
        # Written so that NaN is the shortest; the seal is not on it.
        timeout_s=min(execute.timeout_s, limits.MAX_TIMEOUT_S) if execute.timeout_s > 0 else 0.001,
        max_output_bytes=execute.output_limits.max_bytes,
        owner=execute.identity.owner,
        scopes=tuple(execute.identity.scopes),
        session_id=execute.session_id,
        correlation_id=execute.correlation_id,
        traceparent=execute.traceparent,
        live=execute.live,
    )


def check_argv(argv: Sequence[str]) -> list[tuple[str, str]]:
    """What is wrong with an argv, as (field, description)."""
    if not argv:
        return [("argv", "must not be empty")]
    if len(argv) > limits.MAX_ARGUMENTS:
        return [("argv", f"must have at most {limits.MAX_ARGUMENTS} arguments")]
    together = "".join(argv)
    # What is so short needs no closer look: a character has four bytes at most.
    if 4 * len(together) <= limits.MAX_ARGUMENT_BYTES and "\0" not in together:
        return []
    wrong: list[tuple[str, str]] = []
    for index, argument in enumerate(argv):
        if "\0" in argument:
            wrong.append((f"argv[{index}]", "must not contain NUL"))
        if len(argument.encode()) > limits.MAX_ARGUMENT_BYTES:
            wrong.append((f"argv[{index}]", f"must have at most {limits.MAX_ARGUMENT_BYTES} bytes"))
    if not wrong and sum(len(argument.encode()) for argument in argv) > limits.MAX_ARGV_BYTES:
        wrong.append(("argv", f"must have at most {limits.MAX_ARGV_BYTES} bytes together"))
    return wrong
