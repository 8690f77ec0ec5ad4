"""Identical reads through the real broker: one runs, and each caller has an answer and a record of its own."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from broker.core import relaying
from broker.store import keys
from openline import ids
from openline.errors import OpenlineError
from openline.reasons import NO, YES, Reason
from openline.v1 import admin_service_pb2, command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1 import executor_service_pb2 as wire
from openline.v1.admin_service_pb2_grpc import AdminServiceStub

PATIENCE_S = 20.0
SHARED, CACHE = command_pb2.SERVED_FROM_SHARED, command_pb2.SERVED_FROM_CACHE
BOB, ROOT = "the-key-of-bob", "the-key-of-root"


@pytest.fixture
async def broker(start_broker: Any) -> AsyncIterator[Any]:
    """One that shares as it usually does, but for that no test machine is ever too slow for it."""
    async with start_broker(share_within=5.0) as running:
        yield running


@pytest.fixture
async def replicas(start_broker: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Two that know each other."""
    sharing = {"share_within": 5.0}
    async with start_broker(replica_id="r1", **sharing) as one, start_broker(replica_id="r2", **sharing) as other:
        for each in (one, other):
            await until(lambda each=each: bool(each.inside.dispatcher._forwarding._peers.reachable))  # type: ignore[misc]
        yield one, other


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


async def joined(broker: Any, count: int) -> None:
    """Waits until so many commands wait for what others run."""
    commands = broker.inside.ledger.commands
    await until(lambda: sum(bool(each.twin and each.twin.lead) for each in commands.values()) == count)


class Crowd:
    """Callers on one pipe, which all ask at the same time."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._calls = itertools.count(1)

    async def ask(self, count: int, *, key: str = "", **fields: Any) -> None:
        usual: dict[str, Any] = {"cluster_id": "prod", "argv": ["get", "pods"], "timeout_s": 20}
        request = pb.ExecuteRequest(**(usual | fields))
        frames = [pb.CallerFrame(call_id=next(self._calls), api_key=key, execute=request) for _ in range(count)]
        await self._pipe.send(*frames)

    async def answers(self, count: int) -> list[pb.ExecuteResponse]:
        return [(await self._pipe.next()).response for _ in range(count)]


async def test_two_hundred_at_once_run_once(broker: Any, frames: Any) -> None:
    """Each has its own id, record and entry in the trail and on the list, and nothing is left."""
    executor = await broker.executor()
    crowd = Crowd(await broker.pipe())
    await crowd.ask(200)
    lead = await executor.begin_one()
    await joined(broker, 199)
    await executor.send(frames.output(lead, 0, b"NAME"), frames.finished(lead))
    answers = await crowd.answers(200)
    results = [each.result for each in answers]
    assert Counter(each.served_from for each in results) == {0: 1, SHARED: 199}
    assert {each.run_by_command_id for each in results} == {"", lead}
    assert {each.stdout for each in results} == {b"NAME"}
    names = {each.command_id for each in results}
    assert len(names) == 200
    # Nothing else has come to the executor.
    assert (await executor.expect("result_ack")).command_id == lead
    await executor.sync()
    await broker.inside.nothing_left()
    other = next(each for each in results if each.served_from)
    stored = await broker.get(other.command_id)
    assert (stored.result, stored.state) == (other, command_pb2.COMMAND_STATE_DONE)
    events = await broker.watch(other.command_id).rest()
    assert b"".join(event.output.data for event in events) == b"NAME"
    broker.store.audit.flush()
    broker.store.history.flush()
    assert await broker.store.behind.drain(PATIENCE_S)
    trail = await broker.store.audit.page(before="", since_ms=0, until_ms=None, count=1000)
    told = Counter(entry.detail for _, entry in trail if entry)
    assert told == {"": 1, f"shared the run of {lead}": 199}
    members = await broker.store.history.page(keys.owned_commands("alice"), shown="", since="0", count=1000)
    assert {name for name, command in members if command} == names


async def test_each_owner_has_a_run(broker: Any, frames: Any) -> None:
    """Whatever masks one caller's output, another one never sees it."""
    executor = await broker.executor()
    crowd = Crowd(await broker.pipe())
    await crowd.ask(100)
    await crowd.ask(100, key=BOB)
    runs = [await executor.begin_one(), await executor.begin_one()]
    await joined(broker, 198)
    owners = {name: broker.inside.ledger.commands[name].ask.owner for name in runs}
    assert sorted(owners.values()) == ["alice", "bob"]
    await executor.send(
        *(frame for name in runs for frame in (frames.output(name, 0, name.encode()), frames.finished(name)))
    )
    results = [answer.result for answer in await crowd.answers(200)]
    assert Counter(result.stdout.decode() for result in results) == dict.fromkeys(runs, 100)
    for result in results[:100]:
        ran = result.run_by_command_id or result.command_id
        owner = (await broker.get(result.command_id, key=ROOT)).owner
        assert owners[ran] == owner
    await broker.inside.nothing_left()


async def test_a_thousand_of_many_kinds(broker: Any) -> None:
    """Of each kind no more run than must, and all are answered."""
    executor = await broker.executor(max_concurrency=64)
    crowd = Crowd(await broker.pipe())
    came: list[wire.Execute] = []

    async def serve() -> None:
        while True:
            frame = await executor.next()
            if frame.HasField("execute"):
                came.append(frame.execute)
                await executor.send(*executor._say.ran(frame.execute.command_id, frame.execute.argv[1].encode()))

    # All are here before the first one ends.
    for number in range(20):
        await crowd.ask(50, argv=["get", "pods", "-n", f"ns-{number}"])
    await until(lambda: len(broker.inside.ledger.commands) == 1000)
    serving = asyncio.create_task(serve())
    results = [answer.result for answer in await crowd.answers(1000)]
    serving.cancel()
    assert len(came) == 20
    assert len({result.command_id for result in results}) == 1000
    assert Counter(bool(result.served_from) for result in results) == {True: 980, False: 20}
    await broker.inside.nothing_left()


async def test_a_run_of_its_own(broker: Any) -> None:
    """For whoever says so, whoever reads output as it comes, and where the broker is told not to share."""
    executor = await broker.executor()
    first = broker.execute()
    await executor.begin_one()
    own = broker.execute(max_age_s=0.0)
    await executor.run_one()
    assert (await own).result.served_from == 0
    stream = broker.stream(argv=["get", "pods"])
    await executor.run_one()
    assert (await stream.rest())[-1].result.served_from == 0
    first.cancel()


async def test_an_operator_can_turn_it_off(start_broker: Any, frames: Any) -> None:
    """Whatever requests say."""
    async with start_broker(share_within=0.0) as broker:
        executor = await broker.executor()
        asked = [broker.execute(max_age_s=5.0) for _ in range(3)]
        began = [await executor.begin_one() for _ in asked]
        await executor.send(*map(frames.finished, began))
        for each in asked:
            assert (await each).result.served_from == 0
            await executor.expect("result_ack")
        again = broker.execute(max_age_s=5.0)
        await executor.run_one()
        assert (await again).result.served_from == 0


async def test_an_answer_of_a_moment_ago(broker: Any, frames: Any) -> None:
    """Only for those who say so, of those who said so; of their own, and while its executor is there."""
    executor = await broker.executor()
    first = broker.execute(max_age_s=5.0)
    execute = await executor.run_one(b"NAME")
    assert (await first).result.served_from == 0
    await executor.expect("result_ack")
    result = (await broker.execute(max_age_s=5.0)).result
    assert (result.served_from, result.run_by_command_id, result.stdout) == (CACHE, execute.command_id, b"NAME")
    assert 0 < result.age_s < 5
    assert (await broker.get(result.command_id)).result == result
    # The usual one is not so old.
    for fields in ({}, {"key": BOB, "max_age_s": 5.0}, {"max_age_s": 0.0}):
        other = broker.execute(**fields)
        await executor.run_one(b"NEWS")
        assert (await other).result.served_from == 0
        await executor.expect("result_ack")
    # What the executor allows has changed.
    await executor.send(wire.ExecutorFrame(capabilities=wire.Capabilities(verbs=["get"])))
    other = broker.execute(max_age_s=5.0)
    await executor.run_one(b"NEWS")
    assert (await other).result.served_from == 0
    await executor.expect("result_ack")
    executor.call.cancel()
    await until(lambda: not len(broker.inside.ledger.connections))
    assert (await broker.refused(max_age_s=5.0)).reason is Reason.CLUSTER_OFFLINE


async def test_a_broker_may_keep_answers_for_all(start_broker: Any) -> None:
    async with start_broker(share_within=1.0, cache_for=5.0) as broker:
        executor = await broker.executor()
        first = broker.execute()
        await executor.run_one(b"NAME")
        await first
        assert (await broker.execute()).result.served_from == CACHE


async def test_an_age_that_is_none(broker: Any) -> None:
    await broker.executor()
    for age_s in (-1.0, float("nan")):
        refused = await broker.refused(max_age_s=age_s)
        assert (refused.reason, refused.error.violations[0].field) == (Reason.INVALID_COMMAND, "max_age_s")


async def test_a_key_without_the_scope_has_no_part_in_it(broker: Any) -> None:
    """Nor has one that is wrong: what is checked is checked before."""
    executor = await broker.executor()
    first = broker.execute()
    await executor.begin_one()
    for key, reason in (("the-key-of-carol", Reason.SCOPE_MISSING), ("wrong", Reason.UNAUTHENTICATED)):
        assert (await broker.refused(key=key)).reason is reason
    first.cancel()


async def test_the_caller_of_the_one_that_runs_is_gone(broker: Any, frames: Any) -> None:
    """The process goes on for the other one, also if it was to be cancelled then."""
    executor = await broker.executor()
    name = ids.new_id()
    gone = broker.execute(cancel_on_disconnect=True, command_id=name)
    lead = await executor.begin_one()
    stays = broker.execute()
    await joined(broker, 1)
    gone.cancel()
    await until(lambda: broker.inside.ledger.commands[lead].result is not None)
    await executor.sync()
    await executor.send(frames.output(lead, 0, b"NAME"), frames.finished(lead))
    assert (await stays).result.stdout == b"NAME"
    assert (await broker.get(name)).result.outcome == command_pb2.OUTCOME_CANCELLED
    await broker.inside.nothing_left()


async def test_everybody_is_gone(broker: Any, frames: Any) -> None:
    """Then it is killed."""
    executor = await broker.executor()
    callers = [broker.execute(cancel_on_disconnect=True) for _ in range(3)]
    lead = await executor.begin_one()
    await joined(broker, 2)
    for each in callers:
        each.cancel()
    assert (await executor.expect("cancel")).command_id == lead
    await executor.send(frames.finished(lead, outcome=command_pb2.OUTCOME_CANCELLED))
    await broker.inside.nothing_left()


async def test_the_one_that_runs_is_cancelled_by_its_id(broker: Any, frames: Any) -> None:
    """Its caller is told at once, and so is whoever looks; it is stored when the process has ended."""
    executor = await broker.executor()
    first = broker.execute()
    lead = await executor.begin_one()
    watcher = broker.watch(lead)
    assert (await watcher.next()).state == command_pb2.COMMAND_STATE_RUNNING
    other = broker.execute()
    await joined(broker, 1)
    assert await broker.cancel(lead, why="enough") == "RUNNING"
    with pytest.raises(OpenlineError) as cancelled:
        await first
    assert (cancelled.value.reason, cancelled.value.error.executed) == (Reason.CANCELLED, YES)
    [last] = await watcher.rest()
    assert last.result.outcome == command_pb2.OUTCOME_CANCELLED
    shown = await broker.get(lead)
    assert (shown.state, shown.result.error.message) == (command_pb2.COMMAND_STATE_DONE, "enough")
    assert await broker.cancel(lead) == "DONE"
    await executor.sync()
    await executor.send(frames.output(lead, 0, b"NAME"), frames.finished(lead))
    assert (await other).result.stdout == b"NAME"
    await executor.expect("result_ack")
    await broker.inside.nothing_left()
    assert (await broker.get(lead)).result == shown.result


async def test_one_that_has_joined_is_cancelled_by_its_id(broker: Any, frames: Any) -> None:
    executor = await broker.executor()
    first = broker.execute()
    lead = await executor.begin_one()
    name = ids.new_id()
    other = broker.execute(command_id=name)
    await joined(broker, 1)
    assert await broker.cancel(name) == "QUEUED"
    with pytest.raises(OpenlineError) as cancelled:
        await other
    assert (cancelled.value.reason, cancelled.value.error.executed) == (Reason.CANCELLED, NO)
    await executor.send(frames.finished(lead))
    await first
    await broker.inside.nothing_left()


async def test_the_kill_switch_of_a_session(broker: Any, frames: Any) -> None:
    """Those of another session go on with what it ran; the switch of their owner ends that as well."""
    executor = await broker.executor()
    crowd = Crowd(await broker.pipe())
    await crowd.ask(3, correlation_id="one")
    lead = await executor.begin_one()
    await joined(broker, 2)
    stub = AdminServiceStub(broker.channel())
    metadata = (("x-api-key", ROOT),)
    everything = admin_service_pb2.CancelAllRequest(owner="alice", reason="stop")
    lead_command = broker.inside.ledger.commands[lead]
    await broker.cancel(lead, why="its session")
    assert lead_command.result is not None
    assert (await stub.CancelAll(everything, metadata=metadata)).cancelled == 2
    assert (await executor.expect("cancel")).command_id == lead
    await executor.send(frames.finished(lead, outcome=command_pb2.OUTCOME_CANCELLED))
    assert {answer.result.outcome for answer in await crowd.answers(3)} == {command_pb2.OUTCOME_CANCELLED}
    await broker.inside.nothing_left()


async def test_idempotency_keys_are_each_their_own(broker: Any, frames: Any) -> None:
    """Two keys are two commands with one run; a key again is the same command, also of one that did not run itself."""
    executor = await broker.executor()
    one, two = broker.execute(idempotency_key="one"), broker.execute(idempotency_key="two")
    lead = await executor.begin_one()
    await joined(broker, 1)
    again = broker.execute(idempotency_key="two")
    await broker.inside.until_called(3)
    await executor.send(frames.finished(lead))
    results = [(await each).result for each in (one, two, again)]
    assert len({result.command_id for result in results}) == 2
    assert results[1] == results[2]
    later = await broker.execute(idempotency_key="two")
    assert (later.replayed, later.result.command_id) == (True, results[1].command_id)
    await executor.expect("result_ack")
    await executor.sync()


@pytest.mark.usefixtures("one_window")
async def test_each_counts_in_its_callers_quota(start_broker: Any, frames: Any) -> None:
    """In flight while it waits, and in the minute, as if it had run."""
    limits = {"quota_in_flight": 3, "quota_commands_per_minute": 4}
    async with start_broker(share_within=5.0, **limits) as broker:
        executor = await broker.executor()
        asked = [broker.execute() for _ in range(3)]
        lead = await executor.begin_one()
        await joined(broker, 2)
        assert (await broker.refused()).metadata["quota"] == "in-flight"
        await executor.send(frames.finished(lead))
        for each in asked:
            await each
        await executor.expect("result_ack")
        last = broker.execute()
        await executor.run_one()
        assert (await last).quotas[0].remaining == 0
        assert (await broker.refused()).metadata["quota"] == "commands"


async def test_it_is_counted(broker: Any, frames: Any) -> None:
    """As answers that were shared, and not as output or time of a run."""
    executor = await broker.executor()
    crowd = Crowd(await broker.pipe())
    await crowd.ask(5, max_age_s=5.0)
    lead = await executor.begin_one()
    await joined(broker, 4)
    summary = command_pb2.OutputSummary(total_bytes=4)
    await executor.send(frames.output(lead, 0, b"NAME"), frames.finished(lead, stdout_summary=summary))
    await crowd.answers(5)
    await crowd.ask(2, max_age_s=5.0)
    await crowd.answers(2)
    tally = broker.inside.dispatcher.tally
    assert tally.shared == {SHARED: 4, CACHE: 2}
    assert sum(tally.ended.values()) == 7
    assert (tally.output_bytes, list(tally.stages["run"].buckets())[-1]) == (4, ("+Inf", 1))


# Many replicas


async def test_what_is_asked_of_two_replicas_runs_once(replicas: tuple[Any, Any], frames: Any) -> None:
    """The one that has the executor shares; the other one tells its callers."""
    here, there = replicas
    executor = await there.executor()
    await known(here)
    asked = [each.execute() for each in (here, there, here, there, here)]
    lead = await executor.begin_one()
    await joined(there, 4)
    await executor.send(frames.output(lead, 0, b"NAME"), frames.finished(lead))
    results = [(await each).result for each in asked]
    assert {result.stdout for result in results} == {b"NAME"}
    assert {result.run_by_command_id or result.command_id for result in results} == {lead}
    assert len({result.command_id for result in results}) == 5
    for result in results:
        assert (await here.get(result.command_id)).result.served_from == result.served_from
    assert here.inside.dispatcher.tally.forwarded == 3
    for each in replicas:
        await each.inside.nothing_left()


async def test_an_answer_of_a_moment_ago_on_another_replica(replicas: tuple[Any, Any]) -> None:
    here, there = replicas
    executor = await there.executor()
    await known(here)
    first = there.execute(max_age_s=5.0)
    await executor.run_one(b"NAME")
    await first
    answer = await here.execute(max_age_s=5.0)
    assert (answer.result.served_from, answer.result.stdout) == (CACHE, b"NAME")
    await executor.expect("result_ack")
    await executor.sync()


async def test_a_replica_of_a_version_before_does_not_share(
    replicas: tuple[Any, Any], frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its callers have no way to say that they want a run of their own, so each of them has one."""
    here, there = replicas
    executor = await there.executor()
    await known(here)
    first = there.execute()
    own = await executor.begin_one()
    as_now = relaying.forwarded

    def as_before(command: Any, *, by: str) -> pb.Forwarded:
        said = as_now(command, by=by)
        said.ClearField("share_s")
        said.ClearField("cache_s")
        return said

    monkeypatch.setattr(relaying, "forwarded", as_before)
    other = here.execute()
    await executor.run_one(b"x")
    assert (await other).result.served_from == 0
    await executor.send(frames.finished(own))
    await first


async def test_the_one_that_runs_is_cancelled_on_another_replica(replicas: tuple[Any, Any], frames: Any) -> None:
    """Its caller is told, and those of the replica that has the executor have what it runs."""
    here, there = replicas
    executor = await there.executor()
    await known(here)
    first = here.execute()
    lead = await executor.begin_one()
    other = there.execute()
    await joined(there, 1)
    await here.cancel(lead)
    with pytest.raises(OpenlineError) as cancelled:
        await first
    assert cancelled.value.reason is Reason.CANCELLED
    for each in replicas:
        assert (await each.get(lead)).result.outcome == command_pb2.OUTCOME_CANCELLED
    await executor.send(frames.output(lead, 0, b"NAME"), frames.finished(lead))
    assert (await other).result.stdout == b"NAME"
    for each in replicas:
        await each.inside.nothing_left()
        assert (await each.get(lead)).result.outcome == command_pb2.OUTCOME_CANCELLED


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_its_executor_moves_to_another_replica(
    replicas: tuple[Any, Any], frames: Any, is_cancelled: bool
) -> None:
    """What it runs is followed there, for all who wait for it.

    The other replica knows nothing of who was told what, and stores what has become of it.
    """
    here, there = replicas
    executor = await there.executor(instance_id="instance-1")
    await known(here)
    first = there.execute()
    execute = await executor.expect("execute")
    lead = execute.command_id
    await executor.send(frames.accepted(lead), frames.started(lead))
    other = there.execute()
    await joined(there, 1)
    if is_cancelled:
        await there.cancel(lead)
        with pytest.raises(OpenlineError):
            await first
    executor.call.cancel()
    held = wire.HeldCommand(execute=execute)
    moved = await here.executor(instance_id="instance-1", in_flight_ids=[lead], held=[held])
    assert [verdict.action for verdict in moved.welcome.verdicts] == [wire.VERDICT_ACTION_KEEP]
    await moved.send(frames.output(lead, 0, b"NAME"), frames.finished(lead))
    assert (await other).result.stdout == b"NAME"
    if not is_cancelled:
        assert (await first).result.stdout == b"NAME"
    for each in replicas:
        await each.inside.nothing_left()
    assert (await there.get(lead)).result.outcome == command_pb2.OUTCOME_EXITED


async def known(replica: Any) -> None:
    """Waits until this replica knows who is connected to the other one."""
    directory = replica.inside.dispatcher._forwarding._directory
    await until(lambda: bool(directory.executors("prod")))
