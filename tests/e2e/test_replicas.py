"""Many replicas as one, as the table of promises has it. Only lines are cut here; `test_outages` kills replicas."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from openline import ids
from openline.errors import OpenlineError
from openline.reasons import NO, YES, Reason
from openline.v1 import command_pb2

CLUSTERS = [f"cluster-{number}" for number in range(12)]


@pytest.fixture(scope="module")
def fleet(long_allowance: None, make_fleet: Callable[..., Any]) -> Iterator[Any]:
    """Two replicas for all tests, each of which has a cluster of its own."""
    with make_fleet(replicas=2, clusters=CLUSTERS).running() as running:
        yield running


_left = iter(CLUSTERS)


@pytest.fixture
async def asked(fleet: Any) -> AsyncIterator[Any]:
    """Who asks the replica that has not got the executor."""
    async with fleet.callers() as callers:
        yield callers[0]


@pytest.fixture
async def cluster(fleet: Any, open_cluster: Callable[..., Any]) -> AsyncIterator[Any]:
    """A cluster whose executor is connected to the second replica, and its caller there."""
    async with open_cluster(next(_left), fleet.brokers[1].address) as cluster:
        await cluster.start()
        await fleet.know(cluster)
        yield cluster


def outputs(events: list[command_pb2.CommandEvent]) -> bytes:
    """What the events say was written, which must be without a gap."""
    shown = [event.output for event in events if event.HasField("output")]
    assert not [event for event in events if event.HasField("gap")]
    assert [output.seq for output in shown] == list(range(len(shown)))
    return b"".join(output.data for output in shown if output.source == command_pb2.OUTPUT_SOURCE_STDOUT)


async def test_the_executor_is_connected_to_another_replica(asked: Any, cluster: Any) -> None:
    """The command is forwarded: output, exit code and timings come back, and its record is the same everywhere."""
    command_id = ids.new_id()
    answer = await asked.execute(cluster.request("one", "fail-3", command_id=command_id))
    assert (answer.result.outcome, answer.result.exit_code) == (command_pb2.OUTCOME_EXITED, 3)
    assert (answer.result.stdout, answer.result.stderr) == (b"begun one\n", b"failed one\n")
    assert not answer.degraded
    records = [await each.get(command_id) for each in (asked, cluster.caller)]
    assert [record.result.exit_code for record in records] == [3, 3]
    assert cluster.runs == {"one": 1}


async def test_a_forwarded_commands_output_comes_as_it_is_written(asked: Any, cluster: Any) -> None:
    """Live: the first line is there before the last one is written, also for who attaches on either replica."""
    command_id = ids.new_id()
    with cluster.held("one"):
        stream = asked.stream(cluster.request("one", "ticks-20", command_id=command_id))
        await cluster.until_it_runs("one")
        watchers = [each.watch(command_id) for each in (asked, cluster.caller)]
        async with asyncio.timeout(10):
            # The process has begun before the executor says so.
            while (running := await asked.get(command_id)).state != command_pb2.COMMAND_STATE_RUNNING:
                await asyncio.sleep(0.01)
        assert not running.HasField("result")
    whole = b"begun one\n" + b"".join(b"tick %d\n" % tick for tick in range(1, 21)) + b"done one\n"
    for events in await asyncio.gather(stream, *watchers):
        assert outputs(events) == whole
        assert events[-1].result.exit_code == 0
        assert len([event for event in events if event.HasField("output")]) > 3
    assert cluster.runs == {"one": 1}


async def test_what_is_denied_elsewhere_is_denied_here(asked: Any, cluster: Any) -> None:
    """An error crosses the replicas as it is."""
    for caller in (asked, cluster.caller):
        request = cluster.request("one")
        del request.argv[:]
        request.argv.extend(["get", "secrets"])
        with pytest.raises(OpenlineError) as denied:
            await caller.execute(request)
        assert (denied.value.reason, denied.value.error.executed) == (Reason.POLICY_DENIED, NO)
        assert denied.value.error.metadata["rule"]
    assert not cluster.runs


async def test_a_forwarded_command_is_cancelled(asked: Any, cluster: Any) -> None:
    """On the replica that was asked, and on the one that has it; the caller gets the output so far."""
    for name, through in (("one", asked), ("two", cluster.caller)):
        command_id = ids.new_id()
        begun = asked.execute(cluster.request(name, "sleep-30", command_id=command_id))
        await cluster.until_it_runs(name)
        await through.cancel(command_id)
        with pytest.raises(OpenlineError) as cancelled:
            await begun
        assert (cancelled.value.reason, cancelled.value.error.executed) == (Reason.CANCELLED, YES)
        records = [(await each.get(command_id, wait_s=10)).result for each in (asked, cluster.caller)]
        assert [record.outcome for record in records] == [command_pb2.OUTCOME_CANCELLED] * 2
        assert [record.stdout for record in records] == [f"begun {name}\n".encode()] * 2


async def test_a_forwarded_command_runs_out_of_time(asked: Any, cluster: Any) -> None:
    """The caller gets the output so far."""
    with pytest.raises(OpenlineError) as late:
        await asked.execute(cluster.request("one", "sleep-300", timeout_s=3))
    assert (late.value.reason, late.value.error.executed) == (Reason.COMMAND_TIMEOUT, YES)
    assert late.value.result is not None
    assert late.value.result.stdout == b"begun one\n"


async def test_the_caller_of_a_forwarded_command_goes_away(asked: Any, cluster: Any) -> None:
    """The command runs on, and its result can be fetched by id; unless the caller asked that it be cancelled."""
    stays, goes = ids.new_id(), ids.new_id()
    begun = [
        asked.execute(cluster.request("stays", "sleep-1", command_id=stays)),
        asked.execute(cluster.request("goes", "sleep-30", command_id=goes, cancel_on_disconnect=True)),
    ]
    await cluster.until_it_runs("stays", "goes")
    for caller in begun:
        caller.cancel()
    await asyncio.gather(*begun, return_exceptions=True)
    for caller in (asked, cluster.caller):
        stayed, gone = [(await caller.get(command_id, wait_s=10)).result for command_id in (stays, goes)]
        assert (stayed.outcome, stayed.stdout) == (command_pb2.OUTCOME_EXITED, b"begun stays\ndone stays\n")
        assert (gone.outcome, gone.stdout) == (command_pb2.OUTCOME_CANCELLED, b"begun goes\n")
    assert cluster.runs == {"stays": 1, "goes": 1}


async def test_the_same_idempotency_key_arrives_again_on_any_replica(asked: Any, cluster: Any) -> None:
    """Fifty at once over all replicas: one run, fifty equal answers; and so it is later."""
    callers = itertools.cycle((asked, cluster.caller))
    request = cluster.request("one", "sleep-1", idempotency_key="the-same")
    answers = await asyncio.gather(*(next(callers).execute(request) for _ in range(50)))
    told = {(answer.result.command_id, answer.result.exit_code, answer.result.stdout) for answer in answers}
    assert [(exit_code, stdout) for _, exit_code, stdout in told] == [(0, b"begun one\ndone one\n")]
    assert sum(not answer.replayed for answer in answers) == 1
    for caller in (asked, cluster.caller):
        later = await caller.execute(request)
        assert later.replayed
        assert (later.result.command_id, later.result.exit_code, later.result.stdout) in told
    other = cluster.request("other", idempotency_key="the-same")
    for caller in (asked, cluster.caller):
        with pytest.raises(OpenlineError) as conflict:
            await caller.execute(other)
        assert conflict.value.reason is Reason.IDEMPOTENCY_CONFLICT
    assert cluster.runs == {"one": 1}


async def test_an_executors_stream_breaks_and_it_comes_back_to_another_replica(
    fleet: Any, open_cluster: Callable[..., Any]
) -> None:
    """Whoever waits at the first one gets the result, whoever watches there misses nothing, and nothing runs twice."""
    opened = open_cluster(next(_left), *fleet.addresses)
    async with fleet.callers() as callers, opened as cluster, AsyncExitStack() as stack:
        await cluster.start()
        await fleet.know(cluster)
        before = {one.executor_id: one for one in (await callers[0].cluster(cluster.cluster_id)).executors}["only"]
        at = [broker.name for broker in fleet.brokers].index(before.replica_id)
        first, second = callers[at], callers[1 - at]
        watched = ids.new_id()
        names = ("waits0", "waits1", "keyed", "live")
        stack.enter_context(cluster.held(*names))
        waits = [caller.execute(cluster.request(f"waits{n}")) for n, caller in enumerate((first, second))]
        keyed = [caller.execute(cluster.request("keyed", idempotency_key="moving")) for caller in (first, second)]
        streams = [first.stream(cluster.request("live", "ticks-20", command_id=watched))]
        await cluster.until_it_runs(*names)
        streams.append(second.watch(watched))
        await asyncio.sleep(0.5)  # until it is watched
        with cluster.lines[at].broken():
            await stack.aclose()
            answers = await asyncio.gather(*waits)
            assert [answer.result.stdout for answer in answers] == [
                f"begun waits{n}\ndone waits{n}\n".encode() for n in range(2)
            ]
            assert [(await each).result.stdout for each in keyed] == [b"begun keyed\ndone keyed\n"] * 2
            whole = b"begun live\n" + b"".join(b"tick %d\n" % tick for tick in range(1, 21)) + b"done live\n"
            for events in await asyncio.gather(*streams):
                assert outputs(events) == whole
                assert events[-1].result.exit_code == 0
            [after] = (await callers[0].cluster(cluster.cluster_id)).executors
            assert after.replica_id == fleet.brokers[1 - at].name
            assert after.instance_id == before.instance_id
            later = await first.execute(cluster.request("later", wait_for_cluster_s=10))
            assert later.result.stdout == b"begun later\ndone later\n"
        assert cluster.runs == {"waits0": 1, "waits1": 1, "keyed": 1, "live": 1, "later": 1}


async def test_several_executors_in_one_cluster(fleet: Any, open_cluster: Callable[..., Any]) -> None:
    """One of them runs each command, wherever it is connected; when one goes, the others carry on."""
    name = next(_left)
    async with (
        open_cluster(name, fleet.brokers[0].address, executor_id="one") as one,
        open_cluster(name, fleet.brokers[1].address, executor_id="other") as other,
    ):
        # Alone, so that both replicas have heard of it.
        await other.start("--max-concurrency", "2")
        await fleet.know(other)
        await one.start("--max-concurrency", "2")
        # More than the places of the one that is asked: the other one's are used.
        names = [f"n{number}" for number in range(4)]
        with one.held(*names), other.held(*names):
            asked = [one.execute(each) for each in names]
            await one.until(lambda: sum(one.runs.values()) == 2 and other.runs)
        ran = [answer.result.executor_id for answer in await asyncio.gather(*asked)]
        assert {"one", "other"} == set(ran)
        assert one.runs + other.runs == dict.fromkeys(names, 1)
        one.stop()
        # What is on its way to a process that has just been killed is lost; the broker hears of it at once.
        async with asyncio.timeout(30):
            while await one.executor() is not None:
                await asyncio.sleep(0.05)
        later = await asyncio.gather(*(one.execute(f"m{number}", wait_for_cluster_s=20) for number in range(4)))
        assert [answer.result.executor_id for answer in later] == ["other"] * 4
        assert all(other.runs[f"m{number}"] == 1 for number in range(4))
