"""What is logged of a defect of ours: which command it was about, and whose conversation that is of."""

from typing import Any

import pytest

from broker.executions import Executions
from broker.lookups import Lookups
from openline.errors import OpenlineError
from openline.ids import new_id
from openline.reasons import Reason
from openline.v1 import command_service_pb2 as pb


def broken(*_arguments: Any, **_named: Any) -> Any:
    raise LookupError("the-inside-of-it")


async def refusal(asked: Any) -> OpenlineError:
    with pytest.raises(OpenlineError) as refused:
        await asked
    return refused.value


def told(log_lines: list[dict[str, Any]], event: str) -> list[tuple[Any, Any]]:
    return [(line.get("command_id"), line.get("correlation_id")) for line in log_lines if line["event"] == event]


async def test_a_unary_call(broker: Any, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]) -> None:
    monkeypatch.setattr(Executions, "start", broken)
    command_id = new_id()
    assert (await refusal(broker.execute(command_id=command_id, correlation_id="c"))).reason is Reason.INTERNAL
    assert told(log_lines, "rpc.failed") == [(command_id, "c")]


async def test_a_stream(broker: Any, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]) -> None:
    """The command's request is within the call's."""
    await broker.executor()
    monkeypatch.setattr(Lookups, "watch", broken)
    command_id = new_id()
    watcher = broker.stream(command_id=command_id, correlation_id="c")
    assert (await refusal(watcher.next())).reason is Reason.INTERNAL
    assert told(log_lines, "rpc.failed") == [(command_id, "c")]


async def test_a_call_on_a_pipe(broker: Any, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]) -> None:
    await broker.executor()
    monkeypatch.setattr(Lookups, "watch", broken)
    pipe = await broker.pipe()
    command_id = new_id()
    asked = pb.ExecuteRequest(cluster_id="prod", argv=["get"], command_id=command_id, correlation_id="c")
    await pipe.send(pb.CallerFrame(call_id=1, execute_stream=asked))
    assert (await pipe.next()).error.reason == Reason.INTERNAL
    assert told(log_lines, "pipe.call_failed") == [(command_id, "c")]


async def test_what_waited_for_redis(
    broker: Any, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(type(broker.store.claims), "claim", broken)
    command_id = new_id()
    asked = broker.execute(command_id=command_id, correlation_id="c", idempotency_key="k")
    assert (await refusal(asked)).reason is Reason.INTERNAL
    assert told(log_lines, "execution.failed") == [(command_id, "c")]


async def test_what_follows_the_answer(
    broker: Any, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]
) -> None:
    executor = await broker.executor()
    monkeypatch.setattr(type(broker.store.results), "put", broken)
    command_id = new_id()
    asked = broker.execute(command_id=command_id, correlation_id="c")
    await executor.run_one(b"x")
    assert (await asked).result.stdout == b"x"
    await executor.sync()
    assert told(log_lines, "result.not_kept") == [(command_id, "c")]
