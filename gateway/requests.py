"""REST to contract: requests as brokers take them."""

from collections.abc import Sequence
from hashlib import sha256

from gateway.argv import VERBS, Unacceptable, Verb, build_argv, check_size, split_command
from gateway.callers import Caller
from gateway.command_models import CommandBody, Words
from gateway.fanout_models import FanoutBody
from gateway.models import ExecuteBody, SessionBody
from openline.ids import new_id
from openline.limits import DEFAULT_MAX_OUTPUT_BYTES, DEFAULT_TIMEOUT_S
from openline.v1 import command_pb2, command_service_pb2, session_service_pb2

# Of all clusters of a fan-out together, since their answers are here at one time.
FANOUT_BYTES = 32 << 20


def execute_request(body: ExecuteBody, caller: Caller) -> command_service_pb2.ExecuteRequest:
    """The command, with an id of its own from here on, so that it stays the same command wherever it is asked.

    Raises Unacceptable. Whether the ids in it can be any is for `Stubs.check_ids` to say.
    """
    caller.exchange.offer_correlation_id(body.correlation_id)
    verb, args = body.command_type, body.args
    if "command_type" not in body.model_fields_set and args and args[0] in VERBS:
        verb, args = Verb(args[0]), args[1:]
    argv = build_argv(
        verb,
        args,
        namespace=body.namespace,
        is_explicit="namespace" in body.model_fields_set,
        extra_args=body.extra_args or [],
    )
    timeout_s, wait_for_cluster_s = _times(body.timeout_seconds or DEFAULT_TIMEOUT_S, body.wait_for_cluster_s, caller)
    return command_service_pb2.ExecuteRequest(
        cluster_id=body.cluster_id,
        argv=argv,
        timeout_s=timeout_s,
        session_id=body.session_id or "",
        correlation_id=caller.exchange.given_correlation_id,
        command_id=new_id(),
        idempotency_key=caller.idempotency_key,
        wait_for_cluster_s=wait_for_cluster_s,
        cancel_on_disconnect=body.cancel_on_disconnect,
        traceparent=caller.exchange.traceparent,
        max_age_s=caller.max_age_s,
    )


def command_request(cluster_id: str, body: CommandBody, caller: Caller) -> command_service_pb2.ExecuteRequest:
    """The same for /v1, where the words are taken as they are."""
    [request] = _requests([cluster_id], body, caller, max_bytes=body.max_output_bytes or 0)
    request.session_id = body.session_id or ""
    request.idempotency_key = caller.idempotency_key
    return request


def fanout_requests(
    cluster_ids: Sequence[str], body: FanoutBody, caller: Caller
) -> list[command_service_pb2.ExecuteRequest]:
    """One for each cluster. A key of the caller's becomes one for each, so that all may be asked again with it."""
    most = FANOUT_BYTES // max(1, len(cluster_ids))
    wanted = body.max_output_bytes or DEFAULT_MAX_OUTPUT_BYTES
    requests = _requests(cluster_ids, body, caller, max_bytes=min(wanted, most))
    if caller.idempotency_key:
        for request in requests:
            named = f"{caller.idempotency_key}\0{request.cluster_id}"
            request.idempotency_key = f"fanout-{sha256(named.encode()).hexdigest()}"
    return requests


def _requests(
    cluster_ids: Sequence[str], body: Words, caller: Caller, *, max_bytes: int
) -> list[command_service_pb2.ExecuteRequest]:
    caller.exchange.offer_correlation_id(body.correlation_id)
    argv = _words(body)
    timeout_s, wait_for_cluster_s = _times(body.timeout_seconds, body.wait_for_cluster_s, caller)
    return [
        command_service_pb2.ExecuteRequest(
            cluster_id=cluster_id,
            argv=argv,
            timeout_s=timeout_s,
            correlation_id=caller.exchange.given_correlation_id,
            command_id=new_id(),
            wait_for_cluster_s=wait_for_cluster_s,
            cancel_on_disconnect=body.cancel_on_disconnect,
            output_limits=command_pb2.OutputLimits(max_bytes=max_bytes) if max_bytes else None,
            traceparent=caller.exchange.traceparent,
            max_age_s=caller.max_age_s,
        )
        for cluster_id in cluster_ids
    ]


def session_request(body: SessionBody, caller: Caller) -> session_service_pb2.CreateSessionRequest:
    caller.exchange.offer_correlation_id(body.correlation_id)
    return session_service_pb2.CreateSessionRequest(
        cluster_id=body.cluster_id,
        ttl_s=body.ttl_seconds,
        user_id=body.user_id or "",
        correlation_id=caller.exchange.given_correlation_id,
        service_identity=body.service_identity or "",
    )


def _times(timeout_s: float, wait_for_cluster_s: float, caller: Caller) -> tuple[float, float]:
    """For the command, and for its cluster before that. The header is both together, of which the wait gets no more
    than half: otherwise a long one would leave nothing to run in."""
    if caller.wait_s is None:
        return timeout_s, wait_for_cluster_s
    wait_for_cluster_s = min(wait_for_cluster_s, caller.wait_s / 2)
    return caller.wait_s - wait_for_cluster_s, wait_for_cluster_s


def _words(body: Words) -> list[str]:
    if (body.argv is None) == (body.command is None):
        raise Unacceptable("argv", "give either argv or command")
    if body.command is not None:
        return split_command(body.command)
    words = list(body.argv or ())
    check_size(words, "argv")
    return words
