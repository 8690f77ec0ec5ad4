"""Idempotency keys: the same key is the same command, whatever happens; nothing runs twice."""

import asyncio
import contextlib
import itertools
from typing import Any

import grpc
import pytest

from broker import earlier, forwarding
from broker.store.claims import Claim, fingerprint
from broker.store.embedded import embedded_valkey
from broker.store.store import Store, open_store
from openline import errors, ids
from openline.errors import OpenlineError
from openline.reasons import NO, UNKNOWN, Reason, reason_of
from openline.v1 import command_pb2, session_service_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1 import executor_service_pb2 as wire
from openline.v1.session_service_pb2_grpc import SessionServiceStub

PATIENCE_S = 20.0
ALICE = (("x-api-key", "the-key-of-alice"),)


async def refusal(asked: Any) -> OpenlineError:
    with pytest.raises(OpenlineError) as refused:
        await asked
    return refused.value


async def serve(executor: Any) -> None:
    """Runs whatever comes; the output is the command's id."""
    while True:
        frame = await executor.next()
        if frame.HasField("execute"):
            name = frame.execute.command_id
            await executor.send(*executor._say.ran(name, name.encode()))


@contextlib.asynccontextmanager
async def serving(executor: Any) -> Any:
    """While something else is waited for; the executor is of no use afterwards."""
    task = asyncio.create_task(serve(executor))
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_fifty_at_once_are_one_run(broker: Any, frames: Any) -> None:
    """Fifty equal answers, of which one is the first."""
    executor = await broker.executor()
    channel_calls = [broker.execute(idempotency_key="k") for _ in range(50)]
    name = await executor.begin_one()
    await broker.inside.until_called(50)
    await executor.send(frames.output(name, 0, b"once"), frames.finished(name))
    answers = await asyncio.gather(*channel_calls)
    assert len({answer.result.SerializeToString(deterministic=True) for answer in answers}) == 1
    assert answers[0].result.stdout == b"once"
    assert [answer.replayed for answer in answers].count(False) == 1
    assert (await executor.expect("result_ack")).command_id == name
    await executor.sync()
    await broker.inside.nothing_left()


@pytest.mark.parametrize("same_id", [False, True])
async def test_afterwards_it_is_the_stored_result(broker: Any, same_id: bool) -> None:
    """Also for a retry to the letter, which brings the same command id."""
    executor = await broker.executor()
    name = ids.new_id() if same_id else ""
    asked = broker.execute(idempotency_key="k", command_id=name)
    await executor.run_one(b"once")
    first = await asked
    await executor.expect("result_ack")
    await broker.inside.nothing_left()
    again = await broker.execute(idempotency_key="k", command_id=name)
    assert (again.replayed, first.replayed) == (True, False)
    assert again.result == first.result
    # Later ones too, with whatever timeout, and as a stream.
    assert (await broker.execute(idempotency_key="k", timeout_s=3)).result == first.result
    events = await broker.stream(idempotency_key="k", argv=["get", "pods"]).rest()
    assert events[-1].result == first.result
    await executor.sync()


async def test_a_caller_comes_back_with_its_key_after_its_replica_broke_off(
    broker: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command is looked for like one without a key; as it is surely nowhere, it runs."""
    monkeypatch.setattr(forwarding, "CLOCK_SLACK_S", -1000.0)  # as if this replica had been here for long
    name = ids.new_id()
    claim = Claim(fingerprint("prod", "", "get", "pods"), name)
    assert await store.claims.claim("alice", "k", claim, runs_s=20) is None
    executor = await broker.executor()
    asked = broker.execute(idempotency_key="k", command_id=name, attach=True)
    assert (await executor.run_one(b"once")).command_id == name
    assert (await asked).result.stdout == b"once"


async def test_the_first_try_gives_up_late(broker: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It frees its claim only when the retry, on another replica, has begun to run: the key is not free then."""
    monkeypatch.setattr(forwarding, "CLOCK_SLACK_S", -1000.0)
    name = ids.new_id()
    first_try = Claim(fingerprint("prod", "", "get", "pods"), name)
    assert await store.claims.claim("alice", "k", first_try, runs_s=20) is None
    executor = await broker.executor()
    asked = broker.execute(idempotency_key="k", command_id=name, attach=True)
    assert (await executor.run_one(b"once")).command_id == name
    store.claims.release("alice", "k", first_try)
    assert await store.behind.drain(10.0)
    other = await broker.execute(idempotency_key="k")
    assert other.replayed
    assert other.result.command_id == (await asked).result.command_id == name


async def test_a_stream_attaches_to_the_running_command(broker: Any, frames: Any) -> None:
    """From its beginning; the one who asked first is answered as ever."""
    executor = await broker.executor()
    watchers = [broker.stream(idempotency_key="k")]
    name = await executor.begin_one()
    await executor.send(frames.output(name, 0, b"a"))
    await watchers[0].output(1)
    watchers.append(broker.stream(idempotency_key="k"))
    assert await watchers[1].output(1) == b"a"
    asked = broker.execute(idempotency_key="k", argv=["logs", "-f", "x"])
    await broker.inside.until_called(3)
    await executor.send(frames.output(name, 1, b"b"), frames.finished(name))
    results = [(await watcher.rest())[-1].result for watcher in watchers]
    assert results[0] == results[1] == (await asked).result
    await executor.expect("result_ack")
    await broker.inside.nothing_left()


@pytest.mark.parametrize("another", [{"argv": ["get", "nodes"]}, {"cluster_id": "staging"}, {"argv": ["get pods"]}])
async def test_another_request_with_the_same_key_is_a_conflict(broker: Any, another: dict[str, Any]) -> None:
    """While the first one runs and afterwards; the first one is not hurt."""
    executor = await broker.executor()
    asked = broker.execute(idempotency_key="k")
    execute = await executor.expect("execute")
    for _ in range(2):
        conflict = await refusal(broker.execute(**({"idempotency_key": "k"} | another)))
        assert (conflict.reason, conflict.error.executed) == (Reason.IDEMPOTENCY_CONFLICT, NO)
        if not asked.done():
            await executor.send(*executor._say.ran(execute.command_id, b"x"))
            assert (await asked).result.stdout == b"x"


async def test_the_same_key_of_another_caller_is_another_key(broker: Any) -> None:
    executor = await broker.executor()
    async with serving(executor):
        alice = await broker.execute(idempotency_key="k")
        bob = await broker.execute(idempotency_key="k", key="the-key-of-bob")
    assert alice.result.command_id != bob.result.command_id
    assert not bob.replayed


async def test_a_non_zero_exit_and_a_timeout_keep_the_key(broker: Any, frames: Any) -> None:
    """They have run: the same key does not run them again."""
    executor = await broker.executor()
    asked = broker.execute(idempotency_key="failed")
    await executor.run_one(b"x", exit_code=1)
    assert (await asked).result.exit_code == 1
    await executor.expect("result_ack")
    asked = broker.execute(idempotency_key="expired")
    name = await executor.begin_one()
    await executor.send(frames.finished(name, outcome=command_pb2.OUTCOME_TIMED_OUT))
    assert (await refusal(asked)).reason is Reason.COMMAND_TIMEOUT
    await executor.expect("result_ack")
    assert (await broker.execute(idempotency_key="failed")).result.exit_code == 1
    assert (await refusal(broker.execute(idempotency_key="expired"))).reason is Reason.COMMAND_TIMEOUT
    await executor.sync()


async def test_what_may_have_run_keeps_the_key(broker: Any) -> None:
    """EXECUTOR_LOST is the answer, again and again."""
    executor = await broker.executor()
    asked = broker.execute(idempotency_key="k")
    await executor.begin_one()
    executor = await broker.executor(instance_id="instance-2")
    for lost in (asked, broker.execute(idempotency_key="k")):
        ended = await refusal(lost)
        assert (ended.reason, ended.error.executed) == (Reason.EXECUTOR_LOST, UNKNOWN)
    await executor.sync()


async def test_a_key_whose_first_replica_was_killed_is_looked_for_and_then_run(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a retry to the letter: nobody has the command, so it has surely not been run."""
    monkeypatch.setattr(forwarding, "CLOCK_SLACK_S", -1000.0)
    monkeypatch.setattr(earlier, "REPLAY_WAIT_S", 0.2)
    name = ids.new_id()
    claim = Claim(fingerprint("prod", "", "get", "pods"), name)
    [executions] = broker.inside.parts["Executions"]
    assert await executions._store.claims.claim("alice", "k", claim, runs_s=10) is None
    executor = await broker.executor()
    asked = broker.execute(idempotency_key="k", command_id=name)
    await executor.run_one(b"once")
    assert (await asked).result.stdout == b"once"
    await executor.expect("result_ack")
    await broker.inside.nothing_left()


# What was surely not run


async def test_a_refused_command_frees_its_key(broker: Any, frames: Any) -> None:
    """Denied, cancelled before it was sent, without a cluster, in an unknown session: asked again, it runs."""
    assert (await refusal(broker.execute(idempotency_key="k"))).reason is Reason.CLUSTER_OFFLINE
    assert (await refusal(broker.execute(idempotency_key="s", session_id="none"))).reason is Reason.SESSION_UNKNOWN
    executor = await broker.executor()
    asked = broker.execute(idempotency_key="k")
    execute = await executor.expect("execute")
    denied = errors.error(Reason.POLICY_DENIED, "no", executed=NO)
    await executor.send(frames.rejected(execute.command_id, denied))
    assert (await refusal(asked)).reason is Reason.POLICY_DENIED
    await executor.expect("result_ack")
    async with serving(executor):
        assert not (await broker.execute(idempotency_key="k")).replayed
        assert not (await broker.execute(idempotency_key="s")).replayed


async def test_many_at_once_for_an_absent_cluster_are_all_told_that(broker: Any) -> None:
    """None of them has run, and none is told that it may have."""
    told = await asyncio.gather(*(refusal(broker.execute(idempotency_key="k")) for _ in range(20)))
    assert {(one.reason, one.error.executed) for one in told} == {(Reason.CLUSTER_OFFLINE, NO)}
    await broker.inside.nothing_left()
    executor = await broker.executor()
    async with serving(executor):
        assert not (await broker.execute(idempotency_key="k")).replayed


async def test_one_after_the_other_may_have_the_key_and_be_refused(
    broker: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its while to be found: whoever waits for them all is not told that something may have run."""
    words = fingerprint("prod", "", "get", "pods")
    claims = [Claim(words, ids.new_id()) for _ in range(6)]
    claim = store.claims.claim
    assert await claim("alice", "k", claims[0], runs_s=20) is None
    seen: list[Claim | None] = []
    now = 0.0

    async def see(*arguments: Any, **named: Any) -> Claim | None:
        seen.append(await claim(*arguments, **named))
        return seen[-1]

    async def wait_for(held: Claim) -> None:
        """Most of the while that this one has goes by, once it was seen."""
        nonlocal now
        async with asyncio.timeout(PATIENCE_S):
            while held not in seen:
                await asyncio.sleep(0.01)
        now += 0.7 * earlier.REPLAY_WAIT_S

    monkeypatch.setattr(store.claims, "claim", see)
    monkeypatch.setattr(earlier, "monotonic", lambda: now)
    asked = broker.execute(idempotency_key="k")
    for before, after in itertools.pairwise(claims):
        await wait_for(before)
        assert await store.claims.take_over("alice", "k", before, after)
    await wait_for(claims[-1])
    store.claims.release("alice", "k", claims[-1])
    refused = await refusal(asked)
    assert (refused.reason, refused.error.executed) == (Reason.CLUSTER_OFFLINE, NO)


async def test_one_that_waits_for_its_cluster_is_attached_to(broker: Any) -> None:
    """Two with one key wait for one cluster: one run when it comes."""
    asked = [broker.execute(idempotency_key="k", wait_for_cluster_s=20) for _ in range(2)]
    await broker.inside.until_called(2)
    executor = await broker.executor()
    await executor.run_one(b"once")
    first, second = await asyncio.gather(*asked)
    assert first.result == second.result
    await executor.expect("result_ack")
    await executor.sync()


async def test_one_that_waited_in_vain_frees_its_key(broker: Any) -> None:
    waited = await refusal(broker.execute(idempotency_key="k", wait_for_cluster_s=0.1))
    assert waited.reason is Reason.CLUSTER_OFFLINE
    executor = await broker.executor()
    async with serving(executor):
        assert not (await broker.execute(idempotency_key="k")).replayed


@pytest.mark.parametrize("with_session", [False, True])
async def test_a_caller_who_leaves_before_anything_was_sent_frees_the_key(broker: Any, with_session: bool) -> None:
    """The claim is on its way to Redis when nobody wants it any more: the key does not stay taken for an hour."""
    executor = await broker.executor()
    session_id = ""
    if with_session:
        request = session_service_pb2.CreateSessionRequest(cluster_id="prod")
        made = await SessionServiceStub(broker.channel()).CreateSession(request, metadata=ALICE)
        session_id = made.session.session_id
    pipe = await broker.pipe()
    fields: dict[str, Any] = {"cluster_id": "prod", "argv": ["get", "pods"], "idempotency_key": "k"}
    asked = pb.ExecuteRequest(session_id=session_id, **fields)
    await pipe.send(pb.CallerFrame(call_id=1, execute=asked), pb.CallerFrame(call_id=1, abandon=pb.Abandon()))
    await pipe.send(pb.CallerFrame(heartbeat=wire.Heartbeat(seq=1)))
    assert (await pipe.next()).HasField("heartbeat_ack")
    await broker.inside.nothing_left()
    assert await broker.store.behind.drain(PATIENCE_S)
    async with serving(executor):
        answer = await broker.execute(idempotency_key="k", session_id=session_id)
    assert not answer.replayed
    assert answer.result.outcome == command_pb2.OUTCOME_EXITED


async def test_a_caller_who_leaves_keeps_the_key_of_what_was_sent(broker: Any, frames: Any) -> None:
    """It runs on, and whoever comes with the key gets its result; and if it is denied after all, the key is free."""
    executor = await broker.executor()
    for denied in (False, True):
        asked = broker.execute(idempotency_key=f"k-{denied}")
        name = (await executor.expect("execute")).command_id
        asked.cancel()
        await broker.inside.until_called(0)
        if denied:
            await executor.send(frames.rejected(name, errors.error(Reason.POLICY_DENIED, "no", executed=NO)))
        else:
            await executor.send(*frames.ran(name, b"once"))
        assert (await executor.expect("result_ack")).command_id == name
        assert await broker.store.behind.drain(PATIENCE_S)
        again_asked = broker.execute(idempotency_key=f"k-{denied}")
        if denied:
            await executor.run_one(b"again")
            await executor.expect("result_ack")
        again = await again_asked
        assert again.replayed is not denied
        assert (again.result.command_id == name) is not denied


# Without Redis


async def test_redis_away_nothing_is_dispatched(start_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim must be there before anything is sent, so STORE_UNAVAILABLE; without a key commands go on."""
    monkeypatch.setattr("broker.store.store.DRAIN_S", 0.1)
    async with contextlib.AsyncExitStack() as stack:
        valkey = contextlib.AsyncExitStack()
        url = await valkey.enter_async_context(embedded_valkey(None))
        store = await stack.enter_async_context(open_store(url, result_ttl_s=60))
        broker = await stack.enter_async_context(start_broker(store))
        executor = await broker.executor()
        assert await store.behind.drain(PATIENCE_S)
        await valkey.aclose()
        refused = await refusal(broker.execute(idempotency_key="k"))
        assert (refused.reason, refused.error.executed) == (Reason.STORE_UNAVAILABLE, NO)
        assert refused.error.retry_after_s > 0
        await executor.sync()
        asked = broker.execute()
        await executor.run_one(b"x")
        assert (await asked).result.stdout == b"x"


async def test_a_defect_on_the_way_is_told(
    broker: Any, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]
) -> None:
    """Nobody waits for an answer that will not come; what went wrong is in the log, not in the answer."""

    async def broken(*_arguments: Any, **_named: Any) -> None:
        raise LookupError("the-inside-of-it")

    monkeypatch.setattr(type(broker.store.claims), "claim", broken)
    pipe = await broker.pipe()
    asked = pb.ExecuteRequest(cluster_id="prod", argv=["get"], idempotency_key="k")
    await pipe.send(pb.CallerFrame(call_id=1, execute=asked))
    answer = await pipe.next()
    assert reason_of(answer.error) is Reason.INTERNAL
    assert "the-inside-of-it" not in str(answer)
    assert "execution.failed" in {line["event"] for line in log_lines}
    failed = await refusal(broker.execute(idempotency_key="k"))
    assert failed.reason is Reason.INTERNAL
    assert failed.error.executed == UNKNOWN
    assert isinstance(failed.__cause__, grpc.aio.AioRpcError)
