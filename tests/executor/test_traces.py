"""The process of a command in its trace: what it is told, what its span says, what is handed back."""

from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from openline import ids

SENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SENT[:-1] + "0"
PRINT = 'echo "${TRACEPARENT-none} ${TRACESTATE-none}"'


async def told(broker: Any, frame: Any) -> str:
    """What the process of a command says."""
    connection = await broker.connection()
    await connection.welcome()
    await connection.send(frame)
    _, stdout, _ = await connection.result(frame.execute.command_id)
    return str(stdout.decode()).strip()


def ended(recorded: InMemorySpanExporter) -> ReadableSpan:
    [span] = recorded.get_finished_spans()
    return span


@pytest.mark.parametrize("sent", [SENT, UNSAMPLED, f"00-{'0' * 32}-{'0' * 16}-00"])
async def test_without_spans_the_process_is_told_what_came(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any, sent: str
) -> None:
    async with dial(stub_kubectl(PRINT)):
        assert await told(broker, execute(traceparent=sent)) == f"{sent} none"


@pytest.mark.parametrize("sent", ["", "x", f"{SENT}\nLD_PRELOAD=/tmp/evil.so", SENT.upper()])
async def test_what_is_no_traceparent_is_in_no_environment(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any, sent: str
) -> None:
    """Whatever a broker sends."""
    async with dial(stub_kubectl(PRINT)):
        assert await told(broker, execute(traceparent=sent)) == "none none"


async def test_the_process_is_below_its_span(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any, recorded: InMemorySpanExporter
) -> None:
    """Which is below what came; arguments and output are not in it."""
    frame = execute("get", "pods", "the-argument", traceparent=SENT)
    async with dial(stub_kubectl(f"{PRINT}; exit 3")) as _:
        own, _ = (await told(broker, frame)).split()
    span = ended(recorded)
    assert span.context
    assert span.parent
    assert (own, f"{span.parent.span_id:016x}") == (f"{SENT[:36]}{span.context.span_id:016x}-01", SENT[36:52])
    assert (span.name, span.kind.name, span.status.status_code.name) == ("kubectl", "CLIENT", "ERROR")
    about = dict(span.attributes or {})
    assert int(str(about.pop("process.pid"))) > 1
    assert about == {
        "process.executable.name": "kubectl",
        "process.exit.code": 3,
        "error.type": "3",
        "openline.command_id": frame.execute.command_id,
    }
    assert "the-argument" not in span.to_json()


async def test_a_process_that_exits_well_or_is_not_sampled(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any, recorded: InMemorySpanExporter
) -> None:
    async with dial(stub_kubectl(PRINT)):
        own, _ = (await told(broker, execute(traceparent=UNSAMPLED))).split()
    assert (own[:35], own[-3:]) == (SENT[:35], "-00")
    assert recorded.get_finished_spans() == ()


async def test_a_process_that_cannot_be_started(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any, recorded: InMemorySpanExporter
) -> None:
    kubectl = stub_kubectl(PRINT)
    async with dial(kubectl):
        connection = await broker.connection()
        await connection.welcome()
        kubectl.unlink()
        frame = execute(traceparent=SENT)
        await connection.send(frame)
        await connection.result(frame.execute.command_id)
    span = ended(recorded)
    assert (span.attributes or {})["error.type"] == "EXECUTOR_FAILED"
    assert span.status.status_code.name == "ERROR"


async def test_what_is_handed_back_is_what_came(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any, recorded: InMemorySpanExporter
) -> None:
    """The seal is on it, so the span of the process must not be in it."""
    frame = execute(traceparent=SENT, command_id=ids.new_id())
    async with dial(stub_kubectl("sleep 60")):
        connection = await broker.connection()
        await connection.welcome()
        await connection.send(frame)
        await connection.expect("accepted")
        await connection.expect("started")
        connection.end()
        again = await broker.connection()
        [held] = (await again.welcome()).held
        assert held.execute.traceparent == SENT


async def test_the_lines_of_a_command_lead_to_its_trace(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any
) -> None:
    """If somebody keeps that."""
    with structlog.testing.capture_logs() as all_lines:
        for sent in (SENT, UNSAMPLED):
            async with dial(stub_kubectl(PRINT)):
                await told(broker, execute(traceparent=sent))
    lines = [line for line in all_lines if line["event"] == "command.finished"]
    assert [(line.get("trace_id"), line.get("span_id")) for line in lines] == [(SENT[3:35], SENT[36:52]), (None, None)]
