"""The broker's spans, over real gRPC: what it is asked, what it asks executors, and whose traces these are in."""

import asyncio
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from openline import ids
from openline.errors import OpenlineError, error
from openline.reasons import Reason
from openline.v1 import cluster_service_pb2, command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1 import executor_service_pb2 as wire
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub

PATIENCE_S = 20.0
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = CALLER[:-1] + "0"
EXECUTE, STREAM = "openline.v1.CommandService/Execute", "openline.v1.CommandService/ExecuteStream"
WATCH, CANCEL = "openline.v1.CommandService/WatchCommand", "openline.v1.CommandService/CancelCommand"
DISPATCH = "openline.v1.ExecutorService/Connect"

Spans = InMemorySpanExporter


async def until(recorded: Spans, *names: str) -> dict[str, ReadableSpan]:
    """The spans by name, as soon as there are those; no others are expected, and none twice."""
    async with asyncio.timeout(PATIENCE_S):
        while len(spans := recorded.get_finished_spans()) < len(names):
            await asyncio.sleep(0.01)
    assert sorted(span.name for span in spans) == sorted(names)
    return {span.name: span for span in spans}


def below(span: ReadableSpan) -> str:
    """The traceparent under which this one's children are."""
    assert span.context
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"


def above(span: ReadableSpan) -> str:
    assert span.parent
    return f"00-{span.parent.trace_id:032x}-{span.parent.span_id:016x}-01"


def told(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {}).get(name)


def frame(call_id: int, **fields: Any) -> pb.CallerFrame:
    usual = {"cluster_id": "prod", "argv": ["get", "pods"], "timeout_s": 20, "traceparent": CALLER}
    return pb.CallerFrame(call_id=call_id, execute=pb.ExecuteRequest(**(usual | fields)))


async def test_an_execute_from_its_caller_to_the_executor(broker: Any, recorded: Spans) -> None:
    """Each hop is below the one before, and the executor is told of the last one."""
    executor = await broker.executor()
    answer = broker.execute(traceparent=CALLER, correlation_id="conv")
    execute = await executor.run_one(exit_code=3)
    await answer
    spans = await until(recorded, EXECUTE, DISPATCH)
    served, sent = spans[EXECUTE], spans[DISPATCH]
    assert (above(served), above(sent), execute.traceparent) == (CALLER, below(served), below(sent))
    assert (served.kind.name, sent.kind.name) == ("SERVER", "CLIENT")
    for span in (served, sent):
        assert told(span, "rpc.response.status_code") == "OK"
        assert told(span, "openline.command_id") == execute.command_id
        assert told(span, "openline.correlation_id") == "conv"
        assert told(span, "openline.outcome") == "exited"
        assert span.status.status_code.name == "UNSET"
    assert told(sent, "server.address") == "prod"
    assert "pods" not in served.to_json() + sent.to_json()
    await broker.inside.nothing_left()


@pytest.mark.parametrize("given", ["", CALLER, UNSAMPLED])
async def test_without_spans_what_came_goes_on(broker: Any, given: str) -> None:
    """To the letter."""
    executor = await broker.executor()
    answer = broker.execute(traceparent=given)
    assert (await executor.run_one()).traceparent == given
    await answer


async def test_what_is_not_sampled_is_not_recorded(broker: Any, recorded: Spans) -> None:
    """And the executor hears that it is not."""
    executor = await broker.executor()
    answer = broker.execute(traceparent=UNSAMPLED)
    execute = await executor.run_one()
    await answer
    assert (execute.traceparent[:35], execute.traceparent[-3:]) == (UNSAMPLED[:35], "-00")
    assert recorded.get_finished_spans() == ()
    await broker.inside.nothing_left()


async def test_each_frame_of_a_pipe_is_a_call(broker: Any, recorded: Spans) -> None:
    """Many traces on one stream, and each keeps to itself."""
    executor = await broker.executor()
    pipe = await broker.pipe()
    callers = [f"00-{number:032x}-{number:016x}-01" for number in (1, 2, 3)]
    await pipe.send(*(frame(number, traceparent=caller) for number, caller in enumerate(callers, start=1)))
    for _ in callers:
        await executor.run_one()
    for _ in callers:
        assert (await pipe.next()).HasField("response")
    async with asyncio.timeout(PATIENCE_S):
        while len(spans := recorded.get_finished_spans()) < 6:
            await asyncio.sleep(0.01)
    served = [span for span in spans if span.name == EXECUTE]
    sent = [span for span in spans if span.name == DISPATCH]
    assert sorted(map(above, served)) == callers
    assert sorted(map(above, sent)) == sorted(map(below, served))
    await broker.inside.nothing_left()


async def test_a_stream_ends_with_its_result(broker: Any, frames: Any, recorded: Spans) -> None:
    """Also for who only watches; and a cancel is a call of its own, in the trace of who cancels."""
    executor = await broker.executor()
    pipe = await broker.pipe()
    command_id = ids.new_id()
    asked = pb.ExecuteRequest(
        cluster_id="prod", argv=["logs", "-f", "x"], timeout_s=20, command_id=command_id, traceparent=CALLER
    )
    watched = pb.WatchCommandRequest(command_id=command_id, traceparent=CALLER)
    cancelled = pb.CancelCommandRequest(command_id=command_id, traceparent=CALLER)
    await pipe.send(pb.CallerFrame(call_id=1, execute_stream=asked))
    await executor.begin_one()
    await pipe.send(pb.CallerFrame(call_id=2, watch=watched), pb.CallerFrame(call_id=3, cancel=cancelled))
    assert (await executor.expect("cancel")).command_id == command_id
    ended = {"outcome": command_pb2.OUTCOME_CANCELLED, "error": error(Reason.CANCELLED, "x")}
    await executor.send(frames.finished(command_id, **ended))
    spans = await until(recorded, STREAM, DISPATCH, WATCH, CANCEL)
    assert {above(spans[name]) for name in (STREAM, WATCH, CANCEL)} == {CALLER}
    assert {told(spans[name], "openline.outcome") for name in (STREAM, WATCH, DISPATCH)} == {"cancelled"}
    assert {told(spans[name], "rpc.response.status_code") for name in (STREAM, WATCH, DISPATCH)} == {"CANCELLED"}
    assert told(spans[CANCEL], "rpc.response.status_code") == "OK"
    await broker.inside.nothing_left()


async def test_a_caller_of_a_pipe_that_leaves(broker: Any, frames: Any, recorded: Spans) -> None:
    """Its span ends; that of the command, which runs on, does not."""
    executor = await broker.executor()
    pipe = await broker.pipe()
    await pipe.send(frame(1))
    command_id = await executor.begin_one()
    await pipe.send(pb.CallerFrame(call_id=1, abandon=pb.Abandon()))
    left = (await until(recorded, EXECUTE))[EXECUTE]
    assert told(left, "rpc.response.status_code") == "CANCELLED"
    assert left.status.status_code.name == "UNSET"
    await executor.send(frames.finished(command_id))
    sent = (await until(recorded, EXECUTE, DISPATCH))[DISPATCH]
    assert told(sent, "rpc.response.status_code") == "OK"


async def test_a_pipe_that_breaks_ends_the_spans_of_its_calls(broker: Any, recorded: Spans) -> None:
    executor = await broker.executor()
    pipe = await broker.pipe()
    await pipe.send(frame(1))
    await executor.begin_one()
    pipe.call.cancel()
    assert told((await until(recorded, EXECUTE))[EXECUTE], "rpc.response.status_code") == "CANCELLED"


@pytest.mark.parametrize("on_pipe", [True, False])
async def test_what_is_refused(broker: Any, recorded: Spans, on_pipe: bool) -> None:
    """It never comes to a dispatch. That a cluster is not there is no error of the server's; that it is away, is."""
    if on_pipe:
        pipe = await broker.pipe()
        await pipe.send(frame(1, cluster_id="nowhere"), frame(2), frame(3, traceparent="x"))
    else:
        for fields in ({"cluster_id": "nowhere"}, {}, {"traceparent": "x"}):
            await broker.refused(**({"traceparent": CALLER} | fields))
    spans = []
    async with asyncio.timeout(PATIENCE_S):
        while len(spans := recorded.get_finished_spans()) < 3:
            await asyncio.sleep(0.01)
    ends = {
        (told(span, "openline.reason"), span.status.status_code.name, told(span, "openline.executed")) for span in spans
    }
    assert ends == {
        ("CLUSTER_UNKNOWN", "UNSET", "no"),
        ("CLUSTER_OFFLINE", "ERROR", "no"),
        # One that was not read is refused, as before; its span is in a trace of its own.
        ("INVALID_COMMAND", "UNSET", "no"),
    }
    assert [span.parent for span in spans if told(span, "openline.reason") == "INVALID_COMMAND"] == [None]
    await broker.inside.nothing_left()


async def test_a_wrong_key(broker: Any, recorded: Spans) -> None:
    """Its answer is held back; what it is, is known at once."""
    pipe = await broker.pipe(key="a-wrong-key-of-somebody")
    await pipe.send(frame(1))
    refused = (await until(recorded, EXECUTE))[EXECUTE]
    assert told(refused, "openline.reason") == "UNAUTHENTICATED"
    assert refused.status.status_code.name == "UNSET"


async def test_a_look_has_its_trace_in_the_metadata(broker: Any, recorded: Spans) -> None:
    """As callers with an instrumented gRPC send it. A wrong one is none."""
    stub = ClusterServiceStub(broker.channel())
    for trace in (CALLER, "nonsense"):
        metadata = (("x-api-key", "the-key-of-alice"), ("traceparent", trace))
        await stub.GetCluster(cluster_service_pb2.GetClusterRequest(cluster_id="prod"), metadata=metadata)
    first, second = recorded.get_finished_spans()
    assert (first.name, told(first, "openline.cluster_id")) == ("openline.v1.ClusterService/GetCluster", "prod")
    assert (above(first), second.parent) == (CALLER, None)


async def test_probes_and_lasting_streams_have_no_span(broker: Any, recorded: Spans) -> None:
    """They would be most of what there is, or never end."""
    check = broker.channel().unary_unary("/grpc.health.v1.Health/Check")
    await check(b"")
    executor = await broker.executor()
    pipe = await broker.pipe()
    await executor.sync()
    executor.call.cancel()
    pipe.call.cancel()
    with pytest.raises(OpenlineError):
        await broker.get(ids.new_id())
    await until(recorded, "openline.v1.CommandService/GetCommand")


async def test_an_executor_that_comes_back_is_asked_again_in_the_same_trace(broker: Any, recorded: Spans) -> None:
    """The frame was lost with the stream; the span of the first one has ended, and there is one for the second."""
    executor = await broker.executor()
    answer = broker.execute(traceparent=CALLER)
    first = await executor.expect("execute")
    executor.call.cancel()
    again = await broker.executor()
    second = await again.run_one()
    await answer
    async with asyncio.timeout(PATIENCE_S):
        while len(spans := recorded.get_finished_spans()) < 3:
            await asyncio.sleep(0.01)
    lost, sent = sorted((s for s in spans if s.name == DISPATCH), key=lambda span: span.end_time or 0)
    assert (below(lost), below(sent)) == (first.traceparent, second.traceparent)
    assert above(lost) == above(sent)
    assert [told(span, "rpc.response.status_code") for span in (lost, sent)] == ["CANCELLED", "OK"]
    await broker.inside.nothing_left()


async def test_the_seal_is_on_what_the_executor_was_told(start_broker: Any, frames: Any, recorded: Spans) -> None:
    """It hands that back to another replica, which takes the command over."""
    secret = "what-the-replicas-know-each-other-by"
    async with (
        start_broker(peer_secret=secret) as one,
        start_broker(replica_id="replica-2", peer_secret=secret) as other,
    ):
        executor = await one.executor()
        answer = one.execute(traceparent=CALLER)
        execute = await executor.expect("execute")
        await executor.send(frames.accepted(execute.command_id), frames.started(execute.command_id))
        await executor.sync()
        executor.call.cancel()
        there = other.dial()
        held = [{"execute": execute, "first_seq": 0}]
        [verdict] = (await there.hello(in_flight_ids=[execute.command_id], held=held, last_epoch=1)).verdicts
        assert verdict.action == wire.VERDICT_ACTION_KEEP
        await there.send(frames.finished(execute.command_id))
        await answer
        async with asyncio.timeout(PATIENCE_S):
            while not any(span.name == DISPATCH for span in recorded.get_finished_spans()):
                await asyncio.sleep(0.01)


async def test_the_line_of_the_audit_leads_to_the_trace(
    broker: Any, recorded: Spans, log_lines: list[dict[str, Any]]
) -> None:
    """Of what ran and of what was refused; to the broker's own span, where there is one."""
    executor = await broker.executor()
    answer = broker.execute(traceparent=CALLER)
    await executor.run_one()
    await answer
    await broker.refused(cluster_id="nowhere", traceparent=CALLER)
    async with asyncio.timeout(PATIENCE_S):
        while len(lines := [line for line in log_lines if line["event"] == "audit"]) < 2:
            await asyncio.sleep(0.01)
    spans = [below(span) for span in recorded.get_finished_spans() if span.name == EXECUTE]
    assert sorted(f"00-{line['trace_id']}-{line['span_id']}-01" for line in lines) == sorted(spans)


async def test_the_line_of_the_audit_without_spans(broker: Any, log_lines: list[dict[str, Any]]) -> None:
    """To the caller's then, if that is sampled."""
    executor = await broker.executor()
    for trace in (CALLER, UNSAMPLED):
        answer = broker.execute(traceparent=trace)
        await executor.run_one()
        await answer
    async with asyncio.timeout(PATIENCE_S):
        while len(lines := [line for line in log_lines if line["event"] == "audit"]) < 2:
            await asyncio.sleep(0.01)
    assert [line.get("trace_id") for line in lines] == [CALLER[3:35], None]
    assert [line.get("span_id") for line in lines] == [CALLER[36:52], None]
