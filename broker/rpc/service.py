"""How a service is put on the server: each method of its descriptor, with our errors turned into statuses in one place.

A method of the contract that the servicer does not have answers UNIMPLEMENTED.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError

from broker.core.access import RULES
from broker.core.proof import METADATA_KEY
from broker.core.suspicion import Kind
from broker.opening import Opening
from broker.refusals import Refusals
from broker.rpc.volume import Volume
from openline import errors
from openline.ids import is_token
from openline.lookups import TRACEPARENT
from openline.reasons import Reason, reason_of
from openline.stream import StreamGarbled
from openline.tracing.calls import NO_CALL, Call, serving
from openline.tracing.spans import are_recorded
from openline.v1 import command_pb2, command_service_pb2

Method = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]

log = structlog.get_logger()


def add_service(
    server: grpc.aio.Server,
    descriptor: ServiceDescriptor,
    servicer: object,
    *,
    opening: Opening,
    refusals: Refusals,
    volume: Volume,
) -> None:
    """Adds the servicer's methods, by name, under the descriptor's service.

    Those that take one request are called when it is there, and their answer to a wrong key is held back. Streams look
    after both themselves. Raises LookupError for a method of which nobody has said who may call it.
    """
    if unruled := [method.full_name for method in descriptor.methods if method.full_name not in RULES]:
        raise LookupError(f"not in access.RULES: {', '.join(unruled)}")
    handlers = {method.name: _handler(method, servicer, opening, refusals, volume) for method in descriptor.methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(descriptor.full_name, handlers),))


def credential(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """The secret that the peer shows: `authorization: Bearer …`, else `x-api-key`."""
    scheme, _, token = (shown(context, "authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token else shown(context, "x-api-key")


def shown(context: grpc.aio.ServicerContext[Any, Any], key: str) -> str | None:
    """The first text that the peer's metadata has under this key, which is in lower case."""
    for name, value in context.invocation_metadata() or ():
        if name.lower() == key and isinstance(value, str):
            return value
    return None


async def abort(
    context: grpc.aio.ServicerContext[Any, Any],
    error: command_pb2.Error,
    *,
    result: command_pb2.CommandResult | None = None,
) -> NoReturn:
    """Ends the call with the error as a rich status. Cancelled when there is nobody left to be told."""
    status = errors.to_status(error, result=result)
    trailers = ((errors.STATUS_TRAILER, status.SerializeToString()),)
    try:
        await context.abort(errors.status_code(reason_of(error)), errors.short(error.message), trailers)
    except grpc.aio.InternalError:
        raise asyncio.CancelledError("the peer is gone") from None
    raise AssertionError("abort returned")


async def abort_stream(context: grpc.aio.ServicerContext[Any, Any], why: str) -> NoReturn:
    """Ends a stream that was well-behaved until its peer went silent or another one took its place.

    Whoever calls this has done everything else: a peer that does not read holds it up until keepalive gives up.
    """
    try:
        await context.abort(grpc.StatusCode.ABORTED, why)
    except grpc.aio.InternalError:
        raise asyncio.CancelledError("the peer is gone") from None
    raise AssertionError("abort returned")


def _handler(
    method: MethodDescriptor, servicer: object, opening: Opening, refusals: Refusals, volume: Volume
) -> "grpc.RpcMethodHandler[Any, Any]":
    # One request is a stream of one, which looks the same on the wire. But grpc.aio would wait for it without end, and
    # a stream is read here.
    make: Any = (
        grpc.stream_stream_rpc_method_handler if method.server_streaming else grpc.stream_unary_rpc_method_handler
    )
    built: Method | None = getattr(servicer, method.name, None)
    name = f"{method.containing_service.name}.{method.name}"
    parse = message_factory.GetMessageClass(method.input_type).FromString
    render = message_factory.GetMessageClass(method.output_type).SerializeToString
    handler: grpc.RpcMethodHandler[Any, Any] = make(
        _guarded(method, built, opening, refusals),
        request_deserializer=volume.reading(name, parse),
        response_serializer=volume.writing(name, render),
    )
    return handler


async def _request(context: grpc.aio.ServicerContext[Any, Any], opening: Opening) -> Any:
    """The one request of a call. Raises as `Opening.first`, and StreamGarbled."""
    try:
        request = await opening.first(context.read(), name="request")
    except DecodeError:
        raise StreamGarbled("bytes that are not a message") from None
    if request is grpc.aio.EOF:
        raise StreamGarbled("a call without a request")
    return request


def _traced(method: MethodDescriptor, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Call:
    """The call as a span, if there are any. Probes have none, nor has what replicas ask each other by themselves."""
    if not are_recorded() or RULES[method.full_name].is_open or shown(context, METADATA_KEY) is not None:
        return NO_CALL
    name = f"{method.containing_service.name}/{method.name}"
    return serving(name, request, parent=shown(context, TRACEPARENT) or "")


def _guarded(method: MethodDescriptor, built: Method | None, opening: Opening, refusals: Refusals) -> Method:
    """The method with our errors as statuses, and defects as INTERNAL that tells nothing of the inside."""
    is_stream = method.client_streaming

    async def guarded(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        request = requests
        if built is None:
            await abort(context, errors.error(Reason.NOT_BUILT, f"{method.full_name} is not built in this version"))
        try:
            if is_stream:
                return await built(requests, context)
            request = await _request(context, opening)
            with _traced(method, request, context) as call:
                answer = await built(request, context)
                if isinstance(answer, command_service_pb2.ExecuteResponse):
                    call.result(answer.result)
            return answer
        except errors.OpenlineError as failure:
            error, result = failure.error, failure.result
        except StreamGarbled as garbled:
            await abort(context, errors.error(Reason.PROTOCOL_VIOLATION, str(garbled)))
        except grpc.aio.InternalError:
            # A write to a peer that is gone; the stream's owner has cleaned up already.
            raise asyncio.CancelledError("the peer is gone") from None
        except (grpc.aio.AbortError, grpc.aio.UsageError):
            raise
        except Exception:
            log.exception("rpc.failed", method=method.full_name, **names(request))
            await abort(context, errors.error(Reason.INTERNAL, "internal error; see the broker's log"))
        # Behind the handler, which keeps the failure; the request may have megabytes.
        del request
        if reason_of(error) is Reason.UNAUTHENTICATED and not is_stream:
            await refusals.hold(Kind.API_KEY, peer=context.peer())
        return await abort(context, error, result=result)

    return guarded


def names(request: Any) -> dict[str, str]:
    """What of a request names what it concerns, for a line of the log."""
    asked = getattr(request, "execute", request)  # within a request for a stream
    named = {name: getattr(asked, name, "") for name in ("command_id", "correlation_id", "session_id", "cluster_id")}
    return {name: text for name, text in named.items() if text and is_token(text)}
