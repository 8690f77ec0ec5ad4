"""A real broker, scraped over HTTP as Prometheus does it."""

import asyncio
import contextlib
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker.server import CannotListen
from broker.store.store import open_store
from openline import __version__
from openline.errors import OpenlineError, error
from openline.metrics import BROKER
from openline.reasons import Reason
from openline.v1 import executor_service_pb2 as wire
from tests.programs import free_port

PATIENCE_S = 20.0
PREFIX = "openline_broker_"

Sample = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """What one GET of /metrics found; `scrape("name", label=value)` is a sample, 0 for one that is not there."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self._samples: dict[Sample, float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self._samples.get((PREFIX + name, frozenset(labels.items())), 0)

    def series(self) -> set[Sample]:
        return set(self._samples)


class Metrics:
    def __init__(self, port: int) -> None:
        self.port = port
        self.settings = {"metrics_listen": f"127.0.0.1:{port}"}

    async def scrape(self) -> Scrape:
        def get() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=PATIENCE_S) as answer:
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                text: str = answer.read().decode()
                return text

        return Scrape(await asyncio.to_thread(get))

    async def until(self, name: str, value: float, **labels: str) -> Scrape:
        """Scrapes until a sample has this value."""
        async with asyncio.timeout(PATIENCE_S):
            while (found := await self.scrape())(name, **labels) != value:
                await asyncio.sleep(0.02)
        return found


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(free_port())


@pytest.fixture
async def broker(start_broker: Any, metrics: Metrics) -> AsyncIterator[Any]:
    async with start_broker(**metrics.settings) as running:
        yield running


async def test_every_metric_is_there_with_its_help(broker: Any, metrics: Metrics) -> None:
    """And none that the table does not name, but for the process's own."""
    families = {family.name: family for family in (await metrics.scrape()).families}
    named = {each.name.removesuffix("_total"): each for each in BROKER}
    assert {name for name in families if not name.startswith("process_")} == set(named)
    for name, each in named.items():
        assert (families[name].documentation, families[name].type) == (each.help, each.kind)


async def test_commands_are_counted_once_when_they_end(broker: Any, metrics: Metrics) -> None:
    """By outcome, reason and whether they are agent calls; exits with where their time went."""
    executor = await broker.executor()
    for fields in ({}, {"correlation_id": "c"}, {"correlation_id": "c"}):
        asked = broker.execute(**fields)
        await executor.run_one(b"hello")
        await asked
        await executor.expect("result_ack")
    denied = broker.execute()
    denied_id = (await executor.expect("execute")).command_id
    await executor.send(executor._say.rejected(denied_id, error(Reason.POLICY_DENIED, "no")))
    with pytest.raises(OpenlineError):
        await denied
    found = await metrics.scrape()
    assert found("commands_total", outcome="exited", reason="", agent_call="no") == 1
    assert found("commands_total", outcome="exited", reason="", agent_call="yes") == 2
    assert found("commands_total", outcome="rejected", reason="POLICY_DENIED", agent_call="no") == 1
    assert found("command_duration_seconds_count", agent_call="yes") == 2
    for stage in ("queue", "route", "deliver", "run", "return"):
        assert found("command_stage_seconds_count", stage=stage) == 3
    assert found("output_bytes_total") == 15
    assert found("executor_connections") == 1
    assert found("executor_connects_total", kind="first") == 1
    assert found("redis_round_trip_seconds_count") > 0
    assert found("redis_degraded") == 0


async def test_what_was_refused_is_counted_by_its_reason(broker: Any, metrics: Metrics) -> None:
    await broker.refused()
    await broker.refused(correlation_id="c")
    await broker.refused(key="no-such-key")
    await broker.refused(cluster_id="nowhere")
    await broker.refused(wait_for_cluster_s=0.01)
    found = await metrics.scrape()
    assert found("commands_total", outcome="refused", reason="CLUSTER_OFFLINE", agent_call="no") == 1
    assert found("commands_total", outcome="refused", reason="CLUSTER_OFFLINE", agent_call="yes") == 1
    assert found("commands_total", outcome="refused", reason="UNAUTHENTICATED", agent_call="no") == 1
    assert found("commands_total", outcome="refused", reason="CLUSTER_UNKNOWN", agent_call="no") == 1
    assert found("commands_total", outcome="rejected", reason="CLUSTER_OFFLINE", agent_call="no") == 1


async def test_what_is_going_on_is_a_gauge(broker: Any, metrics: Metrics) -> None:
    executor = await broker.executor(max_concurrency=1)
    pipe = await broker.pipe()
    running = [broker.execute() for _ in range(4)]
    command_id = await executor.begin_one()
    await broker.inside.until_called(4)
    found = await metrics.until("commands_in_flight", 1, state="running")
    assert found("commands_in_flight", state="queued") + found("commands_in_flight", state="written") == 3
    assert found("pipes_open") == 1
    for task in running:
        task.cancel()
    await pipe.call.done_writing()
    await metrics.until("pipes_open", 0)
    assert command_id in broker.inside.ledger.commands


async def test_output_that_was_cut_is_counted(start_broker: Any, metrics: Metrics) -> None:
    async with start_broker(max_output_bytes=1024, **metrics.settings) as broker:
        executor = await broker.executor()
        asked = broker.execute()
        await executor.run_one(b"x" * 5000)
        await asked
        found = await metrics.scrape()
    assert (found("output_bytes_total"), found("output_cut_bytes_total"), found("commands_truncated_total")) == (
        5000,
        5000 - 1024,
        1,
    )


async def test_quota_refusals_are_counted(start_broker: Any, metrics: Metrics) -> None:
    async with start_broker(quota_in_flight=1, **metrics.settings) as broker:
        executor = await broker.executor()
        running = broker.execute()
        await executor.begin_one()
        await broker.refused()
        running.cancel()
        found = await metrics.scrape()
    assert found("quota_refusals_total", quota="in-flight") == 1
    assert found("commands_total", outcome="refused", reason="QUOTA_EXCEEDED", agent_call="no") == 1


async def test_labels_are_not_for_others_to_choose(broker: Any, metrics: Metrics) -> None:
    """Whatever executors and callers say, there are as many series as before."""
    executor = await broker.executor()
    seen = []
    for n in range(3):
        asked = broker.execute(correlation_id=f"c-{n}", argv=["get", f"x{n}"])
        command_id = (await executor.expect("execute")).command_id
        odd = error(Reason.POLICY_DENIED, "no", metadata={f"rule{n}": "x"})
        odd.reason = f"MADE_UP_{n}"
        await executor.send(executor._say.rejected(command_id, odd))
        with pytest.raises(OpenlineError):
            await asked
        await executor.expect("result_ack")
        await broker.refused(key=f"key-{n}", cluster_id=f"cluster-{n}", correlation_id=f"c-{n}")
        seen.append((await metrics.scrape()).series())
    assert seen[0] == seen[1] == seen[2]


async def test_what_the_policy_denies_is_counted_by_its_rule(broker: Any, metrics: Metrics) -> None:
    """A rule that this version does not know is another one."""
    executor = await broker.executor()
    for rule in ("verb", "verb", "of-tomorrow", ""):
        asked = broker.execute()
        command_id = (await executor.expect("execute")).command_id
        denied = error(Reason.POLICY_DENIED, "no", metadata={"rule": rule})
        await executor.send(executor._say.rejected(command_id, denied))
        with pytest.raises(OpenlineError):
            await asked
        await executor.expect("result_ack")
    found = await metrics.scrape()
    assert found("policy_denials_total", rule="verb") == 2
    assert found("policy_denials_total", rule="other") == 2
    assert found("policy_denials_total", rule="flag") == 0


async def test_what_commands_wait_for_is_told_apart(broker: Any, metrics: Metrics) -> None:
    """A place on an executor, or a cluster that is not there."""
    executor = await broker.executor(max_concurrency=1)
    running = [broker.execute() for _ in range(3)]
    absent = broker.execute(cluster_id="staging", wait_for_cluster_s=30)
    await executor.begin_one()
    await broker.inside.until_called(4)
    found = await metrics.until("commands_waiting", 1, waits_for="cluster")
    assert found("commands_waiting", waits_for="place") == 1  # one is on its way, behind the one that runs
    assert found("commands_waiting", waits_for="redis") == 0
    assert found("commands_in_flight", state="queued") == 2
    for task in (*running, absent):
        task.cancel()


async def test_clusters_and_executors_come_and_go(broker: Any, metrics: Metrics) -> None:
    """A cluster without an executor is offline; an executor that left with a command is away, for the grace."""
    found = await metrics.until("clusters", 2, state="offline")
    executor = await broker.executor()
    found = await metrics.until("clusters", 1, state="connected")
    assert found("clusters", state="offline") == 1
    assert found("executors_away") == 0
    asked = broker.execute()
    await executor.begin_one()
    executor.call.cancel()
    found = await metrics.until("executors_away", 1)
    assert found("clusters", state="connected") == 0
    asked.cancel()


async def test_clusters_on_another_replica_are_connected(start_broker: Any) -> None:
    """Whichever replica is scraped."""
    pages = [Metrics(free_port()) for _ in range(2)]
    async with contextlib.AsyncExitStack() as stack:
        here, there = [
            await stack.enter_async_context(start_broker(replica_id=f"r{number}", **page.settings))
            for number, page in enumerate(pages)
        ]
        await there.executor()
        for page in pages:
            await page.until("clusters", 1, state="connected")
        found = await pages[0].scrape()
        assert found("executor_connections") == 0
        assert found("build_info", version=__version__, replica_id="r0") == 1
        assert here.address != there.address


async def test_bytes_are_counted_by_method(broker: Any, metrics: Metrics) -> None:
    """Of streams as well, both ways."""
    executor = await broker.executor()
    before = await metrics.scrape()
    asked = broker.execute(argv=["get", *(f"{n:0>1000}" for n in range(20))])
    await executor.run_one(b"y" * 30_000)
    await asked
    await executor.expect("result_ack")
    found = await metrics.scrape()

    def grew(direction: str, method: str) -> float:
        name = f"{direction}_bytes_total"
        return found(name, method=method) - before(name, method=method)

    assert 20_000 < grew("received", "CommandService.Execute") < 21_000
    assert 30_000 < grew("sent", "CommandService.Execute") < 31_000
    assert 30_000 < grew("received", "ExecutorService.Connect") < 31_000
    assert 20_000 < grew("sent", "ExecutorService.Connect") < 21_000
    assert grew("sent", "CommandService.Pipe") == 0


async def test_frames_of_a_newer_contract_are_counted(broker: Any, metrics: Metrics) -> None:
    executor = await broker.executor()
    await executor.send(wire.ExecutorFrame(), wire.ExecutorFrame())
    await executor.sync()
    assert (await metrics.scrape())("unknown_frames_total") == 2


async def test_a_replica_that_drains_says_so(broker: Any, metrics: Metrics) -> None:
    assert (await metrics.scrape())("draining") == 0
    broker.inside.dispatcher._presence.is_draining = True
    assert (await metrics.scrape())("draining") == 1


async def test_calls_that_made_room_are_counted(broker: Any, metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.opening.MAX_SILENT", 2)
    silent = [broker.open_pipe() for _ in range(5)]
    await metrics.until("calls_crowded_out_total", 3)
    for each in silent:
        each.call.cancel()


async def test_what_is_never_stored_is_counted(
    broker: Any, metrics: Metrics, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]
) -> None:
    """A result for which there is no room; its caller has it all the same. The line says whose conversation it was."""
    executor = await broker.executor()
    monkeypatch.setattr("broker.store.behind.MAX_KEPT_BYTES", 0)
    asked = broker.execute(correlation_id="lost")
    await executor.run_one(b"hello")
    assert (await asked).result.stdout == b"hello"
    found = await metrics.until("records_lost_total", 1, record="result")
    await metrics.until("records_lost_total", 1, record="audit")
    assert found("redis_writes_lost_total", why="full") > 0
    [line] = [line for line in log_lines if line["event"] == "result.dropped"]
    assert (line["correlation_id"], line["why"]) == ("lost", "too much waits for Redis")


async def test_what_redis_takes_for_wrong_is_counted(
    broker: Any, metrics: Metrics, redis: Any, log_lines: list[dict[str, Any]]
) -> None:
    """It answers that it will not have it, and is not asked again."""
    executor = await broker.executor()
    await metrics.until("redis_writes_waiting", 0)
    await redis.execute_command("ACL", "SETUSER", "default", "-set", "-evalsha", "-eval")
    try:
        asked = broker.execute(correlation_id="lost")
        await executor.run_one(b"hello")
        await asked
        found = await metrics.until("records_lost_total", 1, record="result")
    finally:
        await redis.execute_command("ACL", "SETUSER", "default", "+@all")
    assert found("redis_writes_lost_total", why="refused") > 0
    [line] = [line for line in log_lines if line["event"] == "result.dropped"]
    assert (line["correlation_id"], line["why"]) == ("lost", "Redis refused it")


async def test_redis_away_shows(start_broker: Any, metrics: Metrics) -> None:
    async with contextlib.AsyncExitStack() as stack:
        nowhere = await stack.enter_async_context(open_store("redis://127.0.0.1:1", result_ttl_s=60))
        broker = await stack.enter_async_context(start_broker(nowhere, **metrics.settings))
        await broker.refused()
        found = await metrics.until("redis_degraded", 1)
        assert found("redis_writes_waiting") > 0
        assert found("redis_writes_waiting_bytes") > 0


async def test_a_replica_that_stops_can_be_scraped(start_broker: Any, metrics: Metrics) -> None:
    """While it drains; and a scraper that says nothing does not hold up the stop."""

    async def finish(executor: Any, command_id: str) -> Scrape:
        assert (await executor.expect("go_away")).reason
        found = await metrics.scrape()
        await executor.send(executor._say.finished(command_id))
        await running
        executor.call.cancel()
        return found

    async with start_broker(**metrics.settings) as broker:
        executor = await broker.executor()
        running = broker.execute()
        command_id = await executor.begin_one()
        _, silent = await asyncio.open_connection("127.0.0.1", metrics.port)
        # They stay open while the broker stops.
        channels, broker._channels = broker._channels, []
        watching = asyncio.create_task(finish(executor, command_id))
    silent.close()
    for channel in channels:
        await channel.close()
    assert (await watching)("commands_in_flight", state="running") == 1
    with pytest.raises(urllib.error.URLError):
        await metrics.scrape()


async def test_a_port_that_is_taken_is_told(start_broker: Any, metrics: Metrics) -> None:
    # With SO_REUSEADDR: a test before may have had connections to this port.
    with (
        socket.create_server(("127.0.0.1", metrics.port)),
        pytest.raises(CannotListen, match="--metrics-listen: cannot listen on "),
    ):
        async with start_broker(**metrics.settings):
            pass
