"""GetOverview and WatchOverview: what is shown of replicas, clusters and commands, to whom, and what it costs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from broker import ended, merging, own_overview, views
from broker.core.proof import METADATA_KEY
from broker.rpc import overview as methods
from openline import __version__
from openline.errors import OpenlineError, error, from_rpc_error
from openline.reasons import Reason
from openline.settings import Address
from openline.v1 import admin_service_pb2, command_pb2
from openline.v1 import overview_pb2 as pb
from openline.v1.admin_service_pb2_grpc import AdminServiceStub
from openline.v1.cluster_service_pb2 import Replica

PATIENCE_S = 20.0
ROOT, OF_PROD = "the-key-of-root", "the-key-of-an-admin-of-prod"


@pytest.fixture
async def broker(start_broker: Any) -> AsyncIterator[Any]:
    async with start_broker(extra_keys=[f"pat:{OF_PROD}:admin@prod*"]) as running:
        yield running


@pytest.fixture
async def replicas(start_broker: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Any, Any]]:
    """Two that know each other, and wait for each other's answers."""
    monkeypatch.setattr(methods, "MAX_ANSWER_S", PATIENCE_S / 2)
    keys = [f"pat:{OF_PROD}:admin@prod*"]
    async with (
        start_broker(replica_id="r1", extra_keys=keys) as one,
        start_broker(replica_id="r2", extra_keys=keys) as other,
    ):
        for each in (one, other):
            await until(lambda each=each: bool(peers_of(each).reachable))  # type: ignore[misc]
        yield one, other


def peers_of(broker: Any) -> Any:
    return broker.inside.dispatcher._forwarding._peers


def views_of(broker: Any) -> Any:
    [made] = broker.inside.parts["Views"]
    return made


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


async def look(broker: Any, key: str | None = ROOT, **fields: Any) -> pb.Overview:
    """Raises OpenlineError for a status."""
    metadata = () if key is None else (("x-api-key", key),)
    try:
        call = AdminServiceStub(broker.channel()).GetOverview
        answer: pb.GetOverviewResponse = await call(
            pb.GetOverviewRequest(**fields), metadata=metadata, timeout=PATIENCE_S
        )
    except grpc.aio.AioRpcError as failure:
        raise from_rpc_error(failure) from failure
    return answer.overview


class Watcher:
    """Reads when the test wants it."""

    def __init__(self, broker: Any, key: str = ROOT, **fields: Any) -> None:
        request = pb.WatchOverviewRequest(**fields)
        self.call = AdminServiceStub(broker.channel()).WatchOverview(request, metadata=(("x-api-key", key),))

    async def next(self) -> pb.Overview:
        """Raises OpenlineError for a status."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                message = await self.call.read()
        except grpc.aio.AioRpcError as failure:
            raise from_rpc_error(failure) from failure
        assert message is not grpc.aio.EOF
        overview: pb.Overview = message.overview
        return overview

    async def until(self, so: Callable[[pb.Overview], Any]) -> pb.Overview:
        async with asyncio.timeout(PATIENCE_S):
            while not so(overview := await self.next()):
                pass
        return overview


async def refusal(asked: Any) -> OpenlineError:
    with pytest.raises(OpenlineError) as refused:
        await asked
    return refused.value


def by_id(overview: pb.Overview) -> dict[str, pb.ReplicaOverview]:
    return {replica.replica.replica_id: replica for replica in overview.replicas}


def cluster(overview: pb.Overview, cluster_id: str) -> Any:
    [found] = [each for each in overview.clusters if each.cluster_id == cluster_id]
    return found


def states(replica: pb.ReplicaOverview) -> dict[str, int]:
    return {
        command_pb2.CommandState.Name(each.state).removeprefix("COMMAND_STATE_"): each.commands
        for each in replica.in_flight
    }


# What is shown


async def test_a_replica_with_nothing_to_do(broker: Any) -> None:
    """Itself, its clusters, and that there are no commands."""
    overview = await look(broker)
    [replica] = overview.replicas
    assert (replica.replica.replica_id, replica.reachable, replica.version) == ("replica-1", True, __version__)
    assert replica.replica.address == broker.address
    assert replica.replica.started_at.seconds <= overview.at.seconds
    assert (overview.replica_id, overview.is_whole) == ("replica-1", True)
    assert [each.cluster_id for each in overview.clusters] == ["prod", "staging"]
    assert not any(each.connected or each.active for each in overview.clusters)
    assert (overview.connected_clusters, overview.active_clusters, overview.more_clusters) == (0, 0, 0)
    assert (len(overview.commands), overview.more_commands, len(overview.ended)) == (0, 0, 0)
    assert len(replica.loads) == 0
    assert len(replica.figures.total.counts) == len(replica.figures.total.bounds_s) + 1


async def test_a_command_from_its_wait_to_its_end(broker: Any) -> None:
    """As it runs, with whose it is; then with how it ended, and counted."""
    executor = await broker.executor(max_concurrency=1)
    await look(broker)  # from now on those that end are remembered
    asked = broker.execute(correlation_id="talk-1", argv=["get", "pods", "-n", "shop"])
    command_id = await executor.begin_one()
    waits = [broker.execute() for _ in range(2)]
    await until(lambda: len(broker.inside.ledger.commands) == 3)
    overview = await look(broker)
    [running, *_] = overview.commands
    assert running.command.command_id == command_id
    assert list(running.command.argv) == ["get", "pods", "-n", "shop"]
    assert (running.command.owner, running.command.correlation_id) == ("alice", "talk-1")
    assert running.command.cluster_id == "prod"
    assert running.command.state == command_pb2.COMMAND_STATE_RUNNING
    assert 0 < running.running_s <= running.elapsed_s
    assert (running.executor_id, running.replica_id, running.cancelling) == ("exec-1", "replica-1", False)
    assert running.command.created_at.seconds
    # One more than there is room for is sent ahead, and one waits here.
    assert states(overview.replicas[0]) == {"RUNNING": 1, "WRITTEN": 1, "QUEUED": 1}
    elapsed = [each.elapsed_s for each in overview.commands]
    assert elapsed == sorted(elapsed, reverse=True)
    prod = cluster(overview, "prod")
    assert (prod.connected, prod.active, overview.connected_clusters, overview.active_clusters) == (True, True, 1, 1)
    assert 50 < prod.active_for_s <= 60
    [shown] = prod.executors
    assert (shown.executor_id, shown.replica_id, shown.running, shown.max_concurrency) == ("exec-1", "replica-1", 2, 1)
    await executor.send(*executor._say.ran(command_id, b"x", exit_code=7)[2:])
    assert (await asked).result.exit_code == 7
    overview = await look(broker)
    [done] = overview.ended
    assert (done.command.command_id, done.exit_code) == (command_id, 7)
    assert done.outcome == command_pb2.OUTCOME_EXITED
    assert (done.executor_id, done.replica_id) == ("exec-1", "replica-1")
    assert done.total_s > 0
    assert done.ended_s_ago >= 0
    [count] = overview.replicas[0].figures.ends
    assert (count.outcome, count.reason, count.agent_call, count.count) == ("exited", "", True, 1)
    assert sum(overview.replicas[0].figures.total.counts) == 1
    assert {each.stage: sum(each.durations.counts) for each in overview.replicas[0].figures.stages} == dict.fromkeys(
        ("queue", "route", "deliver", "run", "return"), 1
    )
    for wait in waits:
        wait.cancel()


async def test_what_was_refused_is_counted_by_its_reason(broker: Any) -> None:
    assert (await broker.refused(cluster_id="staging")).reason is Reason.CLUSTER_OFFLINE
    [count] = (await look(broker)).replicas[0].figures.ends
    assert (count.outcome, count.reason, count.count) == ("refused", "CLUSTER_OFFLINE", 1)


async def test_a_command_that_is_being_cancelled_is_shown_so(broker: Any) -> None:
    executor = await broker.executor()
    asked = broker.execute()
    command_id = await executor.begin_one()
    await broker.cancel(command_id)
    [shown] = (await look(broker)).commands
    assert shown.cancelling
    asked.cancel()


async def test_ended_commands_are_remembered_only_while_somebody_looks(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else pays for them."""
    executor = await broker.executor()
    remembered = broker.inside.dispatcher.ended

    async def run_one() -> None:
        asked = broker.execute()
        await executor.run_one()
        await asked
        await executor.expect("result_ack")

    await run_one()
    assert len(remembered) == 0
    await look(broker)
    await run_one()
    assert len(remembered) == 1
    monkeypatch.setattr(ended, "LOOKED_AT_FOR_S", 0.0)
    await look(broker)
    await run_one()
    assert len(remembered) == 0


async def test_long_argv_is_cut(broker: Any) -> None:
    executor = await broker.executor()
    asked = broker.execute(argv=["get", "pods", "a" * 200, "b" * 195, "c" * 50])
    await executor.begin_one()
    [shown] = (await look(broker)).commands
    assert list(shown.command.argv) == ["get", "pods", "a" * 200, "…"]
    asked.cancel()


async def test_what_is_shown_is_bounded(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says how much more there is: of commands the oldest are shown."""
    monkeypatch.setattr(own_overview, "MOST_COMMANDS", 2)
    monkeypatch.setattr(merging, "MOST_COMMANDS", 2)
    monkeypatch.setattr(merging, "MOST_CLUSTERS", 1)
    executor = await broker.executor(max_concurrency=8)
    asked = []
    for _ in range(4):
        asked.append(broker.execute())
        await executor.begin_one()
    overview = await look(broker)
    oldest = list(broker.inside.ledger.commands)[:2]
    assert [each.command.command_id for each in overview.commands] == oldest
    assert overview.more_commands == 2
    assert [each.cluster_id for each in overview.clusters] == ["prod"]
    assert (overview.more_clusters, overview.connected_clusters, overview.active_clusters) == (1, 1, 1)
    for each in asked:
        each.cancel()


async def test_since_when_a_cluster_is_away(broker: Any) -> None:
    """One that was never there has no such time."""
    executor = await broker.executor()
    assert not cluster(await look(broker), "prod").HasField("last_seen")
    await broker.inside.presence_told()
    await executor.call.done_writing()
    await until(lambda: len(broker.inside.ledger.connections) == 0)
    async with asyncio.timeout(PATIENCE_S):
        while not cluster(overview := await look(broker), "prod").HasField("last_seen"):
            await asyncio.sleep(0.02)
    assert not cluster(overview, "prod").connected
    assert not cluster(overview, "staging").HasField("last_seen")


# Many replicas


async def test_all_replicas_are_shown_by_whichever_is_asked(replicas: tuple[Any, Any]) -> None:
    """With their executors and commands; one that was forwarded once, as the replica has it that runs it."""
    one, other = replicas
    executor = await other.executor(max_concurrency=2)
    await other.inside.presence_told()
    asked = one.execute()
    command_id = await executor.begin_one()
    for each in replicas:
        async with asyncio.timeout(PATIENCE_S):
            while not (overview := await look(each)).commands:
                await asyncio.sleep(0.02)
        shown = by_id(overview)
        assert {name: (each.reachable, each.replica.executors) for name, each in shown.items()} == {
            "r1": (True, 0),
            "r2": (True, 1),
        }
        [command] = overview.commands
        assert (command.command.command_id, command.replica_id) == (command_id, "r2")
        assert command.command.state == command_pb2.COMMAND_STATE_RUNNING
        assert overview.more_commands == 0
        assert (states(shown["r1"]), states(shown["r2"])) == ({"FORWARDED": 1}, {"RUNNING": 1})
        [there] = cluster(overview, "prod").executors
        assert (there.replica_id, there.running) == ("r2", 1)
        assert cluster(overview, "prod").active
        assert all(len(each.loads) == 0 for each in overview.replicas)
    await executor.send(*executor._say.ran(command_id)[2:])
    await asked
    for each in replicas:
        overview = await look(each)
        [ended] = overview.ended
        # Where it ran, not who was asked for it.
        assert (ended.command.command_id, ended.executor_id, ended.replica_id) == (command_id, "exec-1", "r2")
        assert {name: len(each.figures.ends) for name, each in by_id(overview).items()} == {"r1": 1, "r2": 0}


async def test_a_replica_that_does_not_answer_is_shown_as_such(
    replicas: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the bound; what Redis knows of it is there, and its executors as they were heard of."""
    one, other = replicas
    await other.executor()
    await other.inside.presence_told()
    await until(lambda: one.inside.dispatcher._forwarding._directory.of_executor("prod", "exec-1") is not None)

    freeze(other, monkeypatch)
    began = asyncio.get_running_loop().time()
    overview = await look(one)
    assert asyncio.get_running_loop().time() - began < PATIENCE_S / 2
    silent = by_id(overview)["r2"]
    assert (silent.reachable, silent.version, len(silent.in_flight)) == (False, "", 0)
    assert (silent.replica.address, silent.replica.HasField("started_at")) == (other.address, True)
    assert by_id(overview)["r1"].reachable
    assert cluster(overview, "prod").connected


def freeze(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call to it is answered from now on, and it is soon given up."""
    monkeypatch.setattr(methods, "MAX_ANSWER_S", 1.0)
    [opening] = broker.inside.parts["Opening"]

    async def first(reading: Any, **_: Any) -> None:
        await reading
        await asyncio.sleep(PATIENCE_S)

    monkeypatch.setattr(opening, "first", first)


@contextlib.contextmanager
def held(broker: Any) -> Iterator[None]:
    """Calls to it are answered when this is over."""
    [opening] = broker.inside.parts["Opening"]
    over, as_usual = asyncio.Event(), opening.first

    async def first(reading: Any, **named: Any) -> Any:
        await over.wait()
        return await as_usual(reading, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "MAX_ANSWER_S", PATIENCE_S / 2)
        patch.setattr(opening, "first", first)
        try:
            yield
        finally:
            over.set()


async def test_a_replica_of_an_older_version_is_reachable_without_figures(
    replicas: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while one version takes the place of another."""
    one, other = replicas
    [survey] = other.inside.parts["Survey"]

    def is_older(_within: Any) -> Any:
        raise OpenlineError(error(Reason.NOT_BUILT, "no such method"))

    monkeypatch.setattr(survey, "own", is_older)
    older = by_id(await look(one))["r2"]
    assert (older.reachable, older.version, older.HasField("figures")) == (True, "", False)
    assert older.replica.address == other.address


async def test_a_replica_that_redis_has_forgotten_and_that_still_listens_is_shown(broker: Any) -> None:
    """A frozen one is still there, by its address."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        address = Address(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        peers = peers_of(broker)
        peers._vanished[address] = asyncio.get_running_loop().time() + PATIENCE_S
        shown = [each for each in (await look(broker)).replicas if not each.replica.replica_id]
        assert [(each.replica.address, each.reachable) for each in shown] == [(address, False)]


async def test_a_replica_is_told_of_one_alone_and_asks_no_further(replicas: tuple[Any, Any]) -> None:
    """One hop."""
    one, other = replicas
    [address] = [peer for peer in peers_of(one)._peers.values()]
    stub = AdminServiceStub(other.channel())
    metadata = peers_of(one)._metadata(address)
    answer = await stub.GetOverview(pb.GetOverviewRequest(clusters=["*"]), metadata=metadata, timeout=PATIENCE_S)
    assert [each.replica.replica_id for each in answer.overview.replicas] == ["r2"]
    forged = ((METADATA_KEY, "not a proof"),)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetOverview(pb.GetOverviewRequest(), metadata=forged, timeout=PATIENCE_S)
    assert from_rpc_error(refused.value).reason is Reason.UNAUTHENTICATED


# Who sees what


async def test_a_key_of_some_clusters_is_shown_those_alone(replicas: tuple[Any, Any], frames: Any) -> None:
    """Also of other replicas; what is counted over all clusters it is not told."""
    one, other = replicas
    prod = await other.executor()
    staging = other.dial(token="the-token-of-staging")
    await staging.hello(cluster_id="staging", executor_id="exec-2", instance_id="instance-2")
    await other.inside.presence_told()
    asked = [other.execute(), other.execute(cluster_id="staging")]
    command_id = await prod.begin_one()
    of_staging = await staging.begin_one()
    overview = await look(one, OF_PROD)
    assert not overview.is_whole
    assert [each.cluster_id for each in overview.clusters] == ["prod"]
    assert [each.command.command_id for each in overview.commands] == [command_id]
    assert (overview.more_commands, overview.connected_clusters, overview.active_clusters) == (0, 1, 1)
    shown = by_id(overview)["r2"]
    assert (shown.replica.executors, states(shown), shown.HasField("figures")) == (1, {"RUNNING": 1}, False)
    assert "staging" not in str(overview)
    whole = await look(one)
    assert (len(whole.commands), by_id(whole)["r2"].replica.executors) == (2, 2)
    assert [each.cluster_id for each in (await look(one, clusters=["stag*"])).clusters] == ["staging"]
    await prod.send(frames.finished(command_id))
    await staging.send(frames.finished(of_staging))
    await asyncio.gather(*asked)


async def test_a_silent_replica_tells_a_key_of_some_clusters_nothing(
    replicas: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many executors Redis says it has are those of all clusters."""
    one, other = replicas
    await other.executor()
    freeze(other, monkeypatch)
    [hearing] = one.inside.parts["Hearing"]
    hearing.replicas = [Replica(replica_id="r2", address=other.address, executors=9)]
    assert by_id(await look(one, OF_PROD))["r2"].replica.executors == 0


@pytest.mark.parametrize("clusters", [["staging"], ["*"], ["prod*", "staging"]])
async def test_no_key_asks_for_what_it_does_not_see(broker: Any, clusters: list[str]) -> None:
    assert (await refusal(look(broker, OF_PROD, clusters=clusters))).reason is Reason.SCOPE_MISSING
    watcher = Watcher(broker, OF_PROD, clusters=clusters)
    assert (await refusal(watcher.next())).reason is Reason.SCOPE_MISSING


async def test_patterns_that_cannot_be_are_refused(broker: Any) -> None:
    assert (await refusal(look(broker, clusters=["No!"]))).reason is Reason.INVALID_COMMAND
    assert (await refusal(Watcher(broker, clusters=["No!"]).next())).reason is Reason.INVALID_COMMAND


@pytest.mark.parametrize("key", ["the-key-of-alice", "the-key-of-carol", "the-key-of-the-auditor"])
async def test_only_admins_see_it(broker: Any, key: str) -> None:
    assert (await refusal(look(broker, key))).reason is Reason.SCOPE_MISSING
    assert (await refusal(Watcher(broker, key).next())).reason is Reason.SCOPE_MISSING


# Watching


async def test_a_watcher_sees_what_changes(broker: Any) -> None:
    watcher = Watcher(broker, interval_s=0.5)
    assert not (await watcher.next()).commands
    executor = await broker.executor()
    asked = broker.execute()
    command_id = await executor.begin_one()
    overview = await watcher.until(lambda overview: overview.commands)
    assert overview.commands[0].command.command_id == command_id
    await executor.send(*executor._say.ran(command_id)[2:])
    await asked
    overview = await watcher.until(lambda overview: overview.ended)
    assert not overview.commands
    watcher.call.cancel()


async def test_all_watchers_of_the_same_share_one_view_that_ends_with_the_last(replicas: tuple[Any, Any]) -> None:
    """The other replica is asked once for all of them, and not at all when nobody is there."""
    one, other = replicas
    [survey] = other.inside.parts["Survey"]
    asked = 0
    own = survey.own

    def count(within: Any) -> Any:
        nonlocal asked
        asked += 1
        return own(within)

    survey.own = count
    watchers = [Watcher(one, interval_s=10) for _ in range(5)]
    limited = Watcher(one, OF_PROD, interval_s=10)
    for watcher in [*watchers, limited]:
        await watcher.next()
    assert len(views_of(one)) == 2
    # At most: at first, and once more for those who came a moment later.
    assert asked <= 4
    for watcher in [*watchers, limited]:
        watcher.call.cancel()
    await until(lambda: len(views_of(one)) == 0)
    before = asked
    await asyncio.sleep(0.2)
    assert asked == before
    assert not any(task.get_name() == "overview" and "View" in repr(task) for task in asyncio.all_tasks())


async def test_who_comes_later_waits_for_nobody_s_interval(broker: Any) -> None:
    """An overview of now, not one of up to ten seconds ago."""
    slow = Watcher(broker, interval_s=10)
    await slow.next()
    executor = await broker.executor()
    asked = broker.execute()
    await executor.begin_one()
    eager = Watcher(broker, interval_s=0.5)
    async with asyncio.timeout(views.MAX_INTERVAL_S / 2):
        await eager.until(lambda overview: overview.commands)
    for watcher in (slow, eager):
        watcher.call.cancel()
    asked.cancel()


async def test_each_watcher_has_its_own_pace(broker: Any) -> None:
    eager, slow = Watcher(broker, interval_s=0.5), Watcher(broker, interval_s=10)
    await slow.next()
    late = asyncio.create_task(slow.next())
    for _ in range(4):
        await eager.next()
    assert not late.done()
    for each in (eager, slow):
        each.call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await late


async def test_who_reads_slowly_is_given_the_newest(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing collects for it."""
    monkeypatch.setattr(views, "MIN_INTERVAL_S", 0.01)
    monkeypatch.setattr(methods, "MIN_INTERVAL_S", 0.01)
    made: list[views.View] = []
    init = views.View.__init__

    def remember(view: views.View, *arguments: Any) -> None:
        made.append(view)
        init(view, *arguments)

    monkeypatch.setattr(views.View, "__init__", remember)
    watcher = Watcher(broker, interval_s=0.01)
    await watcher.next()
    [view] = made
    watch = views.Watch(view, interval_s=0.01)
    view.join(watch)
    overviews = aiter(watch)
    await anext(overviews)
    before = view.number
    await until(lambda: view.number > before + 5)
    newest = view.newest
    assert await anext(overviews) is newest
    await overviews.aclose()
    view.leave(watch)
    watcher.call.cancel()


async def test_watchers_are_bounded(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place is free again when its watcher has left."""
    monkeypatch.setattr(views, "MAX_WATCHES", 1)
    watcher = Watcher(broker)
    await watcher.next()
    assert (await refusal(Watcher(broker).next())).reason is Reason.QUOTA_EXCEEDED
    watcher.call.cancel()
    await until(lambda: len(views_of(broker)) == 0)
    await Watcher(broker).next()


async def test_one_owners_watchers_leave_places_to_the_others(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of some clusters locks out nobody but its own owner."""
    monkeypatch.setattr(views, "MAX_WATCHES_OF_OWNER", 2)
    held = [Watcher(broker, OF_PROD) for _ in range(2)]
    for watcher in held:
        await watcher.next()
    refused = await refusal(Watcher(broker, OF_PROD).next())
    assert (refused.reason, refused.error.metadata["limit"]) == (Reason.QUOTA_EXCEEDED, "2")
    operator = Watcher(broker)
    assert (await operator.next()).is_whole
    held[0].call.cancel()
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(OpenlineError):
                await Watcher(broker, OF_PROD).next()
                break
            await asyncio.sleep(0.01)
    for each in (*held, operator):
        each.call.cancel()
    await until(lambda: repr(views_of(broker)) in ("<Views 0 watches=0>", "<Views 1 watches=1>"))


async def test_one_owner_has_a_few_views(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each asks all replicas; one that it has already is open to any number of its watchers."""
    monkeypatch.setattr(views, "MAX_VIEWS_OF_OWNER", 2)
    held = [Watcher(broker, OF_PROD, clusters=[pattern]) for pattern in ("prod", "prod-*", "prod")]
    for watcher in held:
        await watcher.next()
    refused = await refusal(Watcher(broker, OF_PROD, clusters=["prod-east"]).next())
    assert (refused.reason, refused.error.metadata["limit"]) == (Reason.QUOTA_EXCEEDED, "2")
    held.append(Watcher(broker, clusters=["prod-east"]))
    await held[-1].next()
    for watcher in held:
        watcher.call.cancel()
    await until(lambda: repr(views_of(broker)) == "<Views 0 watches=0>")
    await Watcher(broker, OF_PROD, clusters=["prod-east"]).next()


async def test_views_are_bounded(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for that of everything, which is one alone: whoever operates all clusters is not locked out."""
    monkeypatch.setattr(views, "MAX_VIEWS", 1)
    await Watcher(broker, clusters=["prod"]).next()
    assert (await refusal(Watcher(broker, clusters=["staging"]).next())).reason is Reason.QUOTA_EXCEEDED
    assert (await Watcher(broker).next()).is_whole
    await Watcher(broker, clusters=["prod"]).next()


async def test_looks_are_bounded(start_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As each of them asks all replicas."""
    monkeypatch.setattr(methods, "MAX_LOOKS", 1)
    async with start_broker(replica_id="r1") as one, start_broker(replica_id="r2") as other:
        await until(lambda: bool(peers_of(one).reachable))
        with held(other):
            looks = [asyncio.create_task(look(one)) for _ in range(3)]
            await until(lambda: sum(each.done() for each in looks) == 2)
        answers = await asyncio.gather(*looks, return_exceptions=True)
        refused = [each.reason for each in answers if isinstance(each, OpenlineError)]
        assert refused == [Reason.QUOTA_EXCEEDED] * 2
        await look(one)


async def test_one_owners_looks_leave_places_to_the_others(start_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks all the time keeps nobody but itself from it."""
    monkeypatch.setattr(methods, "MAX_LOOKS_OF_OWNER", 1)
    keys = [f"pat:{OF_PROD}:admin@prod*"]
    async with start_broker(replica_id="r1", extra_keys=keys) as one, start_broker(replica_id="r2") as other:
        await until(lambda: bool(peers_of(one).reachable))
        with held(other):
            looks = [asyncio.create_task(look(one, key)) for key in (OF_PROD, OF_PROD, OF_PROD, ROOT)]
            await until(lambda: sum(each.done() for each in looks) == 2)
        *answers, operators = await asyncio.gather(*looks, return_exceptions=True)
        refused = [each.error.metadata["limit"] for each in answers if isinstance(each, OpenlineError)]
        assert refused == ["1", "1"]
        assert isinstance(operators, pb.Overview)
        await look(one, OF_PROD)  # its place is free again


@pytest.mark.parametrize("interval_s", [0.4, 10.5, -1.0, float("nan"), float("inf")])
async def test_intervals_that_cannot_be_are_refused(broker: Any, interval_s: float) -> None:
    assert (await refusal(Watcher(broker, interval_s=interval_s).next())).reason is Reason.INVALID_COMMAND


async def test_a_watch_ends_with_its_key(broker: Any) -> None:
    stub, metadata = AdminServiceStub(broker.channel()), (("x-api-key", ROOT),)
    wanted = admin_service_pb2.CreateApiKeyRequest(owner="eve", scopes=["admin"])
    made = await stub.CreateApiKey(wanted, metadata=metadata)
    watcher = Watcher(broker, made.key, interval_s=10)
    await watcher.next()
    await stub.RevokeApiKey(admin_service_pb2.RevokeApiKeyRequest(key_id=made.api_key.key_id), metadata=metadata)
    assert (await refusal(watcher.next())).reason is Reason.UNAUTHENTICATED
    await until(lambda: len(views_of(broker)) == 0)


async def test_a_replica_that_stops_sends_its_watchers_elsewhere(start_broker: Any) -> None:
    """At once, whatever their intervals."""
    async with start_broker() as broker:
        watcher = Watcher(broker, interval_s=10)
        await watcher.next()
        told = asyncio.create_task(refusal(watcher.next()))
        [made] = broker.inside.parts["Views"]
        made.close()
        assert (await told).reason is Reason.BROKER_UNAVAILABLE
        assert (await refusal(Watcher(broker).next())).reason is Reason.BROKER_UNAVAILABLE


async def test_a_defect_ends_the_view_and_is_told(
    broker: Any, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]
) -> None:
    """Nobody waits for what does not come any more; who comes next has another view."""
    watcher = Watcher(broker, interval_s=0.5)
    await watcher.next()
    with monkeypatch.context() as patch:
        patch.setattr(own_overview.OwnOverview, "read", lambda *_: 1 / 0)
        assert (await refusal(watcher.until(lambda _: False))).reason is Reason.INTERNAL
    assert [line["event"] for line in log_lines if line["log_level"] == "error"] == ["overview.failed"]
    await Watcher(broker).next()
