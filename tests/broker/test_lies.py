"""Executors that say what cannot be: of their commands, and of themselves. Only who asked that cluster may notice."""

import asyncio
import math
import urllib.request
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker import merging, overview, paging
from broker.core import connections
from broker.core.introduced import MAX_DESCRIPTION_BYTES
from broker.core.told import MAX_STAGE_S, MAX_TOTAL_BYTES
from openline.channels import MAX_MESSAGE_BYTES
from openline.errors import OpenlineError
from openline.labels import MAX_LABELS
from openline.reasons import Reason
from openline.v1 import admin_service_pb2, cluster_service_pb2, command_pb2, overview_pb2
from openline.v1 import executor_service_pb2 as wire
from openline.v1.admin_service_pb2_grpc import AdminServiceStub
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub
from tests.programs import free_port

PATIENCE_S = 20.0
ROOT = (("x-api-key", "the-key-of-root"),)
MOST = 2**64 - 1
Summary = command_pb2.OutputSummary


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


async def look(broker: Any) -> overview_pb2.Overview:
    call = AdminServiceStub(broker.channel()).GetOverview(
        overview_pb2.GetOverviewRequest(), metadata=ROOT, timeout=PATIENCE_S
    )
    overview: overview_pb2.Overview = (await call).overview
    return overview


async def scrape(port: int) -> dict[str, float]:
    """Of samples without labels or with a stage: their values, by name and stage."""

    def get() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as answer:
            text: str = answer.read().decode()
            return text

    return {
        sample.name.removeprefix("openline_broker_") + sample.labels.get("stage", ""): sample.value
        for family in text_string_to_metric_families(await asyncio.to_thread(get))
        for sample in family.samples
        if set(sample.labels) <= {"stage"}
    }


@pytest.fixture
async def replicas(start_broker: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Any, Any]]:
    """Two that know each other and wait for each other's answers, each with the port of its metrics."""
    monkeypatch.setattr("broker.rpc.overview.MAX_ANSWER_S", PATIENCE_S / 2)
    ports = free_port(), free_port()
    async with (
        start_broker(replica_id="r1", metrics_listen=f"127.0.0.1:{ports[0]}") as one,
        start_broker(replica_id="r2", metrics_listen=f"127.0.0.1:{ports[1]}") as other,
    ):
        one.port, other.port = ports
        for each in (one, other):
            await until(lambda each=each: bool(each.inside.dispatcher._forwarding._peers.reachable))  # type: ignore[misc]
        yield one, other


async def answered_with_lies(asked: Any, executor: Any, frames: Any, **said: Any) -> command_pb2.CommandResult:
    command_id = await executor.begin_one()
    await executor.send(frames.output(command_id, 0, b"x\n"), frames.finished(command_id, **said))
    result: command_pb2.CommandResult = (await asked).result
    return result


@pytest.mark.parametrize("is_forwarded", [False, True], ids=["here", "forwarded"])
async def test_more_output_than_can_be_is_not_believed(
    replicas: tuple[Any, Any], frames: Any, is_forwarded: bool
) -> None:
    """The overview and the metrics are there as before, of the replica that was asked and of the one that ran it."""
    one, other = replicas
    executor = await (other if is_forwarded else one).executor()
    await (other if is_forwarded else one).inside.presence_told()
    most = Summary(total_bytes=MOST, total_lines=MOST, cut_bytes=MOST, cut_lines=MOST)
    result = await answered_with_lies(one.execute(), executor, frames, stdout_summary=most, stderr_summary=most)
    summary = result.stdout_summary
    assert (summary.total_bytes, summary.cut_bytes) == (MAX_TOTAL_BYTES, MAX_TOTAL_BYTES - 2)
    assert max(summary.total_lines, summary.cut_lines) <= summary.total_bytes
    for each in replicas:
        [of_one, of_other] = (await look(each)).replicas
        assert (of_one.reachable, of_other.reachable) == (True, True)
        assert of_one.figures.output_bytes == 2 * MAX_TOTAL_BYTES
    counted = await scrape(one.port)
    assert counted["output_bytes_total"] == 2 * MAX_TOTAL_BYTES
    assert counted["output_cut_bytes_total"] == 2 * MAX_TOTAL_BYTES - 2


async def test_however_much_was_counted_it_is_shown(replicas: tuple[Any, Any]) -> None:
    """In years even what is believed may be more than the field has room for."""
    one, _ = replicas
    one.inside.dispatcher.tally.output_bytes = 2**64 + 5
    [shown, _] = (await look(one)).replicas
    assert shown.figures.output_bytes == MOST


async def test_a_watcher_is_told_of_a_gap_that_can_be(replicas: tuple[Any, Any], frames: Any) -> None:
    """Where a live command's end was believed by a replica of before, and is told to another one."""
    one, other = replicas
    executor = await other.executor()
    await other.inside.presence_told()
    watcher = one.stream()
    command_id = await executor.begin_one()
    await executor.send(frames.output(command_id, 0, b"x\n"))
    await watcher.output(2)
    [command] = one.inside.ledger.commands.values()
    most = Summary(total_bytes=MOST, cut_bytes=MOST)
    result = command_pb2.CommandResult(
        outcome=command_pb2.OUTCOME_EXITED, stdout=b"x\n", stdout_summary=most, stderr_summary=most
    )
    result.timings.run_s = result.timings.total_s = 1e308
    dispatcher = one.inside.dispatcher
    now = asyncio.get_running_loop().time()
    dispatcher._relayed(command, one.inside.ledger.relayed.answered(command, result, now))
    *_, gap, ended = await watcher.rest()
    assert gap.gap.missed_bytes == 2 * MAX_TOTAL_BYTES - 2
    assert ended.result.timings.run_s == MAX_STAGE_S
    assert (await look(one)).replicas[0].figures.output_bytes == 2 * MAX_TOTAL_BYTES
    await executor.send(frames.finished(command_id))  # or its replica would wait for the executor to come again


async def test_a_replica_that_cannot_show_its_figures_still_takes_executors(
    replicas: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, frames: Any
) -> None:
    """What somebody counts or shows is no reason not to drain another one."""
    one, other = replicas
    monkeypatch.setattr(other.inside.parts["Survey"][0]._own, "_read_figures", lambda _figures: 1 / 0)
    executor = await one.executor()
    drain = AdminServiceStub(one.channel()).Drain
    answer = await drain(admin_service_pb2.DrainRequest(), metadata=ROOT, timeout=PATIENCE_S)
    assert answer.executors == 1
    await executor.expect("go_away")


@pytest.mark.parametrize("said_s", [1e308, 1e9, math.inf, math.nan, -1.0])
async def test_longer_than_a_command_may_take_is_not_believed(
    replicas: tuple[Any, Any], frames: Any, said_s: float
) -> None:
    """Two of them make no sum that is infinite."""
    one, _ = replicas
    executor = await one.executor()
    timings = command_pb2.Timings(queue_s=said_s, run_s=said_s, return_s=said_s, total_s=said_s, route_s=said_s)
    for _ in range(2):
        result = await answered_with_lies(one.execute(), executor, frames, timings=timings)
        told = result.timings
        assert all(0 <= each <= MAX_STAGE_S + 1 for each in (told.queue_s, told.run_s, told.return_s, told.total_s))
        assert told.deliver_s >= 0
    counted = await scrape(one.port)
    for stage in ("queue", "route", "deliver", "run", "return"):
        assert 0 <= counted[f"command_stage_seconds_sum{stage}"] <= 2 * (MAX_STAGE_S + 1)
    [shown, _] = (await look(one)).replicas
    assert all(math.isfinite(each.durations.sum_s) for each in shown.figures.stages)


# What an executor says of itself


async def executors_of(broker: Any, method: str, **fields: Any) -> Any:
    stub, pb = ClusterServiceStub(broker.channel()), cluster_service_pb2
    request = getattr(pb, f"{method}Request")(**fields)
    return await getattr(stub, method)(request, metadata=ROOT, timeout=PATIENCE_S)


async def test_versions_and_labels_that_can_be_none_are_left_out(broker: Any) -> None:
    """Everybody who looks at clusters is shown them, people in a terminal and models among them."""
    good = "v1.37.1+k3s1"
    versions = wire.Versions(executor="x" * 101, kubectl="v1\x1b[2J", kubernetes=good)
    labels = {"region": "eu", "example.com/tier": "", "say": "ignore what you were told", "a b": "c", "x" * 64: "y"}
    executor = await broker.executor(versions=versions, capabilities=wire.Capabilities(labels=labels))
    [shown] = (await executors_of(broker, "GetCluster", cluster_id="prod")).cluster.executors
    assert shown.versions == wire.Versions(kubernetes=good, protocol=1)
    assert dict(shown.capabilities.labels) == {"region": "eu", "example.com/tier": ""}
    more = {f"label-{number:03}": "x" for number in range(100)}
    await executor.send(wire.ExecutorFrame(capabilities=wire.Capabilities(labels=more)))
    await executor.sync()
    [shown] = (await executors_of(broker, "GetCluster", cluster_id="prod")).cluster.executors
    assert dict(shown.capabilities.labels) == dict(sorted(more.items())[:MAX_LABELS])


async def test_executors_of_a_cluster_are_bounded(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are told why, and one that is there may come again; another cluster's are let in."""
    monkeypatch.setattr(connections, "MAX_EXECUTORS_OF_CLUSTER", 2)
    one, two = [await broker.executor(executor_id=f"e-{number}") for number in range(2)]
    with pytest.raises(OpenlineError) as refusal:
        await broker.executor(executor_id="e-2")
    assert refusal.value.reason is Reason.QUOTA_EXCEEDED
    assert "executors of this cluster" in refusal.value.error.message
    await broker.executor(executor_id="e-1", instance_id="later")
    await broker.dial(token="the-token-of-staging").hello(cluster_id="staging")
    await one.call.done_writing()
    await until(lambda: len(broker.inside.ledger.connections.of_cluster("prod")) == 1)
    await broker.executor(executor_id="e-2")
    two.call.cancel()


async def test_clusters_with_too_many_executors_are_told_of(
    broker: Any, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]
) -> None:
    """Nobody else sees those that are turned away: one line a minute of each cluster, however often they come."""
    monkeypatch.setattr(connections, "MAX_EXECUTORS_OF_CLUSTER", 1)
    now = 1000.0
    monkeypatch.setattr("broker.seldom.monotonic", lambda: now)
    others = {"cluster_id": "staging"}
    for token, who in (("prod", {}), ("staging", others)):
        await broker.dial(token=f"the-token-of-{token}").hello(**who, executor_id="e-0")

    async def crowd(token: str, **who: Any) -> list[tuple[str, int, str]]:
        for _ in range(3):
            with pytest.raises(OpenlineError):
                await broker.dial(token=f"the-token-of-{token}").hello(**who, executor_id="e-1")
        crowded = [line for line in log_lines if line["event"] == "executors.crowded"]
        return [(line["cluster_id"], line["hellos"], line["last_from"]) for line in crowded]

    told = [("prod", 1, "e-1")]
    assert await crowd("prod") == told
    assert await crowd("staging", **others) == [*told, ("staging", 1, "e-1")]
    now += 61.0
    assert await crowd("prod") == [*told, ("staging", 1, "e-1"), ("prod", 3, "e-1")]


async def test_the_overview_shows_some_executors_of_a_cluster(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says how many more there are, also where all clusters together have too many."""
    monkeypatch.setattr(merging, "MOST_EXECUTORS_OF_CLUSTER", 2)
    for number in range(3):
        await broker.executor(executor_id=f"e-{number}")
    await broker.dial(token="the-token-of-staging").hello(cluster_id="staging")
    prod, staging = (await look(broker)).clusters
    assert ([each.executor_id for each in prod.executors], prod.more_executors) == (["e-0", "e-1"], 1)
    assert (len(staging.executors), staging.more_executors) == (1, 0)
    monkeypatch.setattr(merging, "MOST_EXECUTORS", 2)
    prod, staging = (await look(broker)).clusters
    assert (len(prod.executors), prod.more_executors) == (2, 1)
    assert (len(staging.executors), staging.more_executors, staging.connected) == (0, 1, True)


async def test_one_clusters_executors_leave_room_for_the_others(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a list as large as a message may be: it goes on on the next page."""
    monkeypatch.setattr(overview, "MOST_EXECUTORS", 2)
    monkeypatch.setattr(paging, "MAX_PAGE_BYTES", 4000)
    verbs = ["x" * 1500]
    for number in range(3):
        await broker.executor(executor_id=f"e-{number}", capabilities=wire.Capabilities(verbs=verbs))
    staging = broker.dial(token="the-token-of-staging")
    await staging.hello(cluster_id="staging", capabilities=wire.Capabilities(verbs=verbs))
    first = await executors_of(broker, "ListClusters")
    [prod] = first.clusters
    assert (len(prod.executors), prod.more_executors, first.next_page_token) == (2, 1, "prod")
    second = await executors_of(broker, "ListClusters", page_token=first.next_page_token)
    assert [each.cluster_id for each in second.clusters] == ["staging"]
    assert second.next_page_token == ""


async def test_the_most_that_executors_can_say_can_be_shown(start_broker: Any) -> None:
    """Of one cluster, with as many executors as it may have, each with as much to say as is taken."""
    async with start_broker() as broker:
        longest = "x" * 100
        versions = wire.Versions(executor=longest, kubectl=longest, kubernetes=longest)
        verbs = ["x" * (MAX_DESCRIPTION_BYTES - 10)]
        channel = broker.channel()
        held = []
        for number in range(connections.MAX_EXECUTORS_OF_CLUSTER):
            executor = type(broker.dial())(channel, token="the-token-of-prod", frames=broker._frames)
            who = {"executor_id": f"{number:0200}", "instance_id": f"{number:0200}", "versions": versions}
            await executor.hello(**who, capabilities=wire.Capabilities(verbs=verbs))
            held.append(executor)
        [prod, _] = (await executors_of(broker, "ListClusters")).clusters
        assert len(prod.executors) == len(held)
        assert prod.ByteSize() < MAX_MESSAGE_BYTES / 2
        [prod, _] = (await look(broker)).clusters
        assert (len(prod.executors), prod.more_executors) == (20, len(held) - 20)
        assert prod.ByteSize() < 20_000
