"""Calls as spans: the conventions for RPC, and what is ours."""

import asyncio
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from openline.errors import OpenlineError, error
from openline.reasons import MEANING, NO, Reason
from openline.tracing.calls import NO_CALL, calling, serving
from openline.v1 import command_pb2, session_service_pb2
from openline.v1 import command_service_pb2 as pb

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EXECUTE = "CommandService/Execute"
# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/#server
SERVER_ERRORS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}


def ended(recorded: InMemorySpanExporter) -> ReadableSpan:
    [span] = recorded.get_finished_spans()
    return span


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def exited(**fields: Any) -> command_pb2.CommandResult:
    return command_pb2.CommandResult(outcome=command_pb2.OUTCOME_EXITED, **fields)


def test_without_spans_a_request_stays_as_it_is() -> None:
    """What is passed on is what came, to the letter."""
    request = pb.ExecuteRequest(traceparent=CALLER)
    with calling(EXECUTE, request, server="x") as call:
        call.result(exited())
        call.failed(error(Reason.INTERNAL, "x"))
    assert call is NO_CALL
    assert request == pb.ExecuteRequest(traceparent=CALLER)


def test_a_call_puts_its_own_traceparent_into_the_request(recorded: InMemorySpanExporter) -> None:
    request = pb.ExecuteRequest(command_id="c", cluster_id="prod", correlation_id="k", argv=["get"], traceparent=CALLER)
    with calling(EXECUTE, request, server="a:1,b:2") as call:
        call.result(exited(command_id="c", exit_code=1))
    span = ended(recorded)
    assert span.context
    assert span.parent
    assert f"{span.context.span_id:016x}" in request.traceparent
    assert f"{span.parent.span_id:016x}" in CALLER
    assert (span.name, span.kind) == ("openline.v1.CommandService/Execute", SpanKind.CLIENT)
    assert span.status.status_code is StatusCode.UNSET  # it ran, and failed: that is an outcome
    assert attributes(span) == {
        "rpc.system.name": "grpc",
        "rpc.method": "openline.v1.CommandService/Execute",
        "rpc.response.status_code": "OK",
        "server.address": "a:1,b:2",
        "openline.command_id": "c",
        "openline.cluster_id": "prod",
        "openline.correlation_id": "k",
        "openline.outcome": "exited",
    }


def test_a_request_in_a_request_and_one_without_a_field(recorded: InMemorySpanExporter) -> None:
    """ExecuteStream's has the command in it; a look has its trace in the metadata."""
    streamed = pb.ExecuteStreamRequest(execute=pb.ExecuteRequest(command_id="c", traceparent=CALLER))
    serving("CommandService/ExecuteStream", streamed).end()
    serving("SessionService/GetSession", session_service_pb2.GetSessionRequest(session_id="s"), parent=CALLER).end()
    serving(EXECUTE, pb.ExecuteRequest(), parent=CALLER).end()
    spans = recorded.get_finished_spans()
    assert {f"{span.parent.span_id:016x}" for span in spans if span.parent} == {CALLER[36:52]}
    assert len(spans) == 3
    assert streamed.execute.traceparent != CALLER
    assert attributes(spans[1])["openline.session_id"] == "s"


def test_a_traceparent_that_is_malformed_is_left_for_those_who_refuse_it(recorded: InMemorySpanExporter) -> None:
    request = pb.ExecuteRequest(traceparent="00-x")
    serving(EXECUTE, request).end()
    assert request.traceparent == "00-x"
    assert ended(recorded).parent is None


@pytest.mark.parametrize("reason", Reason)
def test_which_ends_are_errors(recorded: InMemorySpanExporter, reason: Reason) -> None:
    """Of a client's all but OK; of a server's those that are its own fault."""
    code = MEANING[reason].grpc
    for call in (calling(EXECUTE, pb.ExecuteRequest(), server="x"), serving(EXECUTE, pb.ExecuteRequest())):
        with pytest.raises(OpenlineError), call:
            raise OpenlineError(error(reason, "secret words", executed=NO))
    asked, served = recorded.get_finished_spans()
    for span, is_error in ((asked, True), (served, code in SERVER_ERRORS)):
        assert attributes(span)["rpc.response.status_code"] == code
        assert (attributes(span)["openline.reason"], attributes(span)["openline.executed"]) == (reason, "no")
        assert attributes(span).get("error.type") == (reason if is_error else None)
        assert span.status.status_code is (StatusCode.ERROR if is_error else StatusCode.UNSET)
        assert "secret" not in str(span.to_json())


def test_a_result_without_an_exit_code_is_what_a_unary_call_answers(recorded: InMemorySpanExporter) -> None:
    """On a Pipe it is an answer like any other; the code is the same."""
    late = error(Reason.COMMAND_TIMEOUT, "too late")
    with serving(EXECUTE, pb.ExecuteRequest()) as call:
        call.result(command_pb2.CommandResult(outcome=command_pb2.OUTCOME_TIMED_OUT, error=late))
    told = attributes(ended(recorded))
    assert (told["rpc.response.status_code"], told["openline.outcome"]) == ("DEADLINE_EXCEEDED", "timed_out")
    assert told["error.type"] == "COMMAND_TIMEOUT"


def test_an_answer_of_before_says_so(recorded: InMemorySpanExporter) -> None:
    """It has the id of the command that ran."""
    with serving(EXECUTE, pb.ExecuteRequest(command_id="second")) as call:
        call.result(exited(command_id="first"), replayed=True)
    told = attributes(ended(recorded))
    assert (told["openline.replayed"], told["openline.command_id"]) == (True, "first")


async def test_a_caller_that_leaves(recorded: InMemorySpanExporter) -> None:
    """It is cancelled, which is no error of the server's."""

    async def wait() -> None:
        with serving(EXECUTE, pb.ExecuteRequest()):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    span = ended(recorded)
    assert attributes(span)["rpc.response.status_code"] == "CANCELLED"
    assert span.status.status_code is StatusCode.UNSET


async def test_a_watcher_that_has_seen_the_result_may_leave(recorded: InMemorySpanExporter) -> None:
    """Generators are closed where they stand, which is behind their last event."""

    async def events() -> Any:
        with calling("CommandService/ExecuteStream", pb.ExecuteRequest(), server="x") as call:
            call.result(exited())
            yield

    generator = events()
    await anext(generator)
    await generator.aclose()
    assert attributes(ended(recorded))["rpc.response.status_code"] == "OK"


def test_a_defect_is_internal(recorded: InMemorySpanExporter) -> None:
    """Its message stays inside."""
    with pytest.raises(ZeroDivisionError), serving(EXECUTE, pb.ExecuteRequest()):
        raise ZeroDivisionError("the secret")
    span = ended(recorded)
    assert attributes(span)["rpc.response.status_code"] == "INTERNAL"
    assert attributes(span)["error.type"] == "INTERNAL"
    assert "the secret" not in str(span.to_json())
