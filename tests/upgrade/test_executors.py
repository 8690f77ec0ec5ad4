"""An executor of the last release with today's broker, and today's with a broker of the last release."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from openline import ids
from openline.errors import OpenlineError
from openline.reasons import YES, Reason
from openline.v1 import command_pb2

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]


@dataclass(frozen=True, slots=True)
class Pair:
    """A broker and the executor of cluster `east`, with a line between them."""

    here: Any
    line: Any
    caller: Any
    executor: Any
    broker_tree: Any
    executor_tree: Any


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["an old executor", "an old broker"])
async def pair(request: pytest.FixtureRequest, old: Any, new: Any, install: Callable[..., Any]) -> AsyncIterator[Pair]:
    executor_tree, broker_tree = (old, new) if request.param == "an old executor" else (new, old)
    async with install("east", "gone") as here:
        await here.broker(broker_tree, 0)
        line = await here.line()
        executor = await here.executor(executor_tree, "east", line.address)
        yield Pair(here, line, await here.caller(), executor, broker_tree, executor_tree)


def outputs(events: list[command_pb2.CommandEvent]) -> bytes:
    """What the events say was written, which must be without a gap."""
    shown = [event.output for event in events if event.HasField("output")]
    assert not [event for event in events if event.HasField("gap")]
    assert [output.seq for output in shown] == list(range(len(shown)))
    return b"".join(output.data for output in shown if output.source == command_pb2.OUTPUT_SOURCE_STDOUT)


async def test_they_meet(pair: Pair, new: Any, release: dict[str, str]) -> None:
    """On version 1 of the protocol; each says of itself which version it is."""
    [shown] = await pair.caller.executors("east")
    assert (shown.versions.executor == release["version"]) is (pair.executor_tree is not new)
    # A broker of 0.1.0 does not say what is spoken.
    assert shown.versions.protocol == (1 if pair.broker_tree is new or release["version"] != "0.1.0" else 0)


async def test_a_command_runs(pair: Pair, ask: Callable[..., Any]) -> None:
    """Output of both streams, exit code and timings; the result is kept, and the executor may forget it."""
    command_id = ids.new_id()
    answer = await pair.caller.execute(ask("east", "one", "fail-3", command_id=command_id))
    result = answer.result
    assert (result.outcome, result.exit_code) == (command_pb2.OUTCOME_EXITED, 3)
    assert (result.stdout, result.stderr) == (b"begun one\n", b"failed one\n")
    assert result.timings.run_s > 0
    assert (await pair.caller.get(command_id, wait_s=20)).result.stdout == b"begun one\n"
    assert pair.here.runs["one"] == 1


async def test_what_the_policy_denies_is_told(pair: Pair, ask: Callable[..., Any]) -> None:
    denied = ask("east", "denied")
    denied.argv[:] = ["delete", "pods", "denied"]
    with pytest.raises(OpenlineError) as told:
        await pair.caller.execute(denied)
    assert told.value.reason is Reason.POLICY_DENIED
    assert pair.here.runs["denied"] == 0


async def test_output_comes_as_it_is_written(pair: Pair, ask: Callable[..., Any]) -> None:
    """Without a gap, and then the result."""
    events = await pair.caller.stream(ask("east", "shown", "ticks-20"))
    assert outputs(events) == b"begun shown\n" + b"".join(b"tick %d\n" % n for n in range(1, 21)) + b"done shown\n"
    assert sum(event.HasField("output") for event in events) > 2
    assert events[-1].result.exit_code == 0


async def test_someone_cancels(pair: Pair, ask: Callable[..., Any]) -> None:
    """The caller gets the output so far, and anybody else under the id."""
    command_id = ids.new_id()
    asked = pair.caller.execute(ask("east", "stopped", "sleep-60", command_id=command_id))
    await pair.here.until_it_runs("stopped")
    await asyncio.sleep(0.5)
    await pair.caller.cancel(command_id)
    with pytest.raises(OpenlineError) as cancelled:
        await asked
    assert (cancelled.value.reason, cancelled.value.error.executed) == (Reason.CANCELLED, YES)
    assert (await pair.caller.get(command_id, wait_s=20)).result.stdout == b"begun stopped\n"


async def test_the_deadline_passes(pair: Pair, ask: Callable[..., Any]) -> None:
    with pytest.raises(OpenlineError) as late:
        await pair.caller.execute(ask("east", "late", "sleep-60", timeout_s=3))
    assert (late.value.reason, late.value.error.executed) == (Reason.COMMAND_TIMEOUT, YES)
    assert late.value.result is not None
    assert late.value.result.stdout == b"begun late\n"


async def test_the_line_breaks_while_commands_run(pair: Pair, ask: Callable[..., Any]) -> None:
    """One ends meanwhile, and its result is handed over; one runs on; live output goes on where it was."""
    with ExitStack() as stack, pair.here.held("later", "live"):
        stack.enter_context(pair.here.held("away"))
        asked = [pair.caller.execute(ask("east", name)) for name in ("away", "later")]
        live = pair.caller.stream(ask("east", "live", "ticks-30"))
        await pair.here.until_it_runs("away", "later", "live")
        await asyncio.sleep(0.5)
        with pair.line.broken():
            stack.close()
            await asyncio.sleep(1.5)
            assert not any(each.done() for each in (*asked, live))
    answers = await asyncio.gather(*asked)
    assert [answer.result.stdout for answer in answers] == [
        f"begun {name}\ndone {name}\n".encode() for name in ("away", "later")
    ]
    ticks = b"".join(b"tick %d\n" % n for n in range(1, 31))
    assert outputs(await live) == b"begun live\n" + ticks + b"done live\n"
    assert [pair.here.runs[name] for name in ("away", "later", "live")] == [1, 1, 1]
    assert len(pair.executor.lines("connection.opened")) == 2


async def test_an_executor_is_told_to_stop(pair: Pair, ask: Callable[..., Any]) -> None:
    """It finishes what runs, and takes nothing more."""
    executor = await pair.here.executor(pair.executor_tree, "gone", pair.line.address)
    asked = pair.caller.execute(ask("gone", "last", "sleep-2"))
    await pair.here.until_it_runs("last")
    await executor.stop()
    assert (await asked).result.stdout == b"begun last\ndone last\n"
    with pytest.raises(OpenlineError) as absent:
        await pair.caller.execute(ask("gone", "too-late"))
    assert absent.value.reason is Reason.CLUSTER_OFFLINE
