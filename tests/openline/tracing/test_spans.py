"""Spans over OpenTelemetry's API, with its SDK and an exporter in memory."""

import asyncio

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, StatusCode

from openline.tracing.spans import MAX_CHARACTERS, SCHEMA_URL, Kind, are_recorded, begin, record_with
from openline.tracing.traceparent import read

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def ids(traceparent: str) -> tuple[int, int]:
    """The trace and the span that it says."""
    said = read(traceparent)
    assert said is not None
    return said.trace_id, said.span_id


def known(context: SpanContext | None) -> tuple[int, int]:
    assert context is not None
    return context.trace_id, context.span_id


def test_there_are_none_until_somebody_records_them() -> None:
    assert not are_recorded()
    assert begin("x", Kind.SERVER, parent=CALLER, attributes={}) is None


def test_a_span_is_below_its_parent_and_names_itself_to_the_next_hop(recorded: InMemorySpanExporter) -> None:
    above = begin("above", Kind.SERVER, parent=CALLER, attributes={"a": "b", "empty": "", "n": 1})
    assert above is not None
    below = begin("below", Kind.CLIENT, parent=above.traceparent, attributes={})
    assert below is not None
    below.end()
    above.end(error="INTERNAL")
    inner, outer = recorded.get_finished_spans()
    chain = [ids(CALLER), ids(above.traceparent), ids(below.traceparent)]
    assert [known(outer.parent), known(outer.context), known(inner.context)] == chain
    assert known(inner.parent) == known(outer.context)
    assert len({trace_id for trace_id, _ in chain}) == 1
    assert dict(outer.attributes or {}) == {"a": "b", "n": 1, "error.type": "INTERNAL"}
    assert (outer.status.status_code, inner.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert outer.instrumentation_scope
    assert outer.instrumentation_scope.schema_url == SCHEMA_URL


def test_a_trace_that_is_not_sampled_stays_so(recorded: InMemorySpanExporter) -> None:
    """Nothing is recorded, and the next hop hears that nothing is to be."""
    span = begin("x", Kind.SERVER, parent=CALLER[:-1] + "0", attributes={})
    assert span is not None
    span.note({"a": 1})
    span.name("y")
    span.end(error="x")
    assert recorded.get_finished_spans() == ()
    said = read(span.traceparent)
    assert said is not None
    assert (said.trace_id, said.flags) == (ids(CALLER)[0], 0)


def test_a_parent_that_cannot_be_read_begins_a_trace(recorded: InMemorySpanExporter) -> None:
    for parent in ("", "00-x", f"00-{'0' * 32}-{'0' * 16}-01"):
        span = begin("x", Kind.SERVER, parent=parent, attributes={})
        assert span is not None
        span.end()
    spans = recorded.get_finished_spans()
    assert [span.parent for span in spans] == [None, None, None]
    assert len({span.context.trace_id for span in spans if span.context}) == 3


def test_what_callers_send_is_cut(recorded: InMemorySpanExporter) -> None:
    """Ids that nobody has checked yet, and paths, can be as long as a request."""
    span = begin("x", Kind.SERVER, parent="", attributes={"a": "x" * 100_000})
    assert span is not None
    span.note({"b": "y" * 100_000})
    span.end()
    [ended] = recorded.get_finished_spans()
    assert {len(str(value)) for value in (ended.attributes or {}).values()} == {MAX_CHARACTERS}


async def test_there_is_no_current_span(recorded: InMemorySpanExporter) -> None:
    """A span of one task is not the parent of what another one begins, nor of what its own does without saying so."""
    outer = begin("outer", Kind.SERVER, parent="", attributes={})

    async def inner() -> None:
        span = begin("inner", Kind.SERVER, parent="", attributes={})
        assert span is not None
        span.end()

    await asyncio.create_task(inner())
    await inner()
    assert outer is not None
    assert [span.parent for span in recorded.get_finished_spans()] == [None, None]


def test_a_second_end_changes_nothing(recorded: InMemorySpanExporter) -> None:
    span = begin("x", Kind.SERVER, parent="", attributes={})
    assert span is not None
    span.end()
    span.end(error="late")
    [ended] = recorded.get_finished_spans()
    assert ended.status.status_code is StatusCode.UNSET


def test_nothing_is_recorded_any_more(recorded: InMemorySpanExporter) -> None:
    """What was begun before ends as it would have."""
    span = begin("x", Kind.SERVER, parent="", attributes={})
    record_with(None)
    assert begin("y", Kind.SERVER, parent="", attributes={}) is None
    assert span is not None
    span.end()
    assert [ended.name for ended in recorded.get_finished_spans()] == ["x"]
