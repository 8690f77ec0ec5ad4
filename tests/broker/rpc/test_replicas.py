"""Two replicas in one process, on one Redis: who may forward, and what crosses from one to the other."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from broker.core.proof import METADATA_KEY, Proof
from broker.store import keys
from openline import ids
from openline.errors import OpenlineError
from openline.reasons import NO, Reason
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1 import executor_service_pb2 as wire
from openline.v1.command_service_pb2_grpc import CommandServiceStub

PATIENCE_S = 20.0


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


async def eventually(ask: Callable[[], Awaitable[Any]], reason: Reason = Reason.CLUSTER_OFFLINE) -> Any:
    """The answer, once that is not this reason any more: replicas hear of each other within a second or two."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await ask()
            except OpenlineError as failure:
                if failure.reason is not reason:
                    raise
            await asyncio.sleep(0.05)


@pytest.fixture
async def replicas(start_broker: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Two that know each other."""
    async with start_broker(replica_id="r1") as one, start_broker(replica_id="r2") as other:
        await until(lambda: bool(one.inside.dispatcher._forwarding._peers.reachable))
        await until(lambda: bool(other.inside.dispatcher._forwarding._peers.reachable))
        yield one, other


@contextlib.asynccontextmanager
async def serving(executor: Any) -> AsyncIterator[list[wire.Execute]]:
    """The executor runs whatever comes; what came."""
    came: list[wire.Execute] = []

    async def serve() -> None:
        while True:
            frame = await executor.next()
            if frame.HasField("execute"):
                came.append(frame.execute)
                await executor.send(*executor._say.ran(frame.execute.command_id, b"x"))

    task = asyncio.create_task(serve())
    try:
        yield came
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_command_is_forwarded(replicas: tuple[Any, Any]) -> None:
    """Under the identity that the first replica has checked; the second one stores it, and nothing is left."""
    here, there = replicas
    executor = await there.executor()
    async with serving(executor) as came:
        answer = await eventually(lambda: here.execute(session_id="", correlation_id="corr"))
        assert (answer.result.stdout, answer.result.executor_id) == (b"x", "exec-1")
        assert answer.result.timings.route_s > 0
        [execute] = came
        assert (execute.identity.owner, execute.correlation_id) == ("alice", "corr")
        assert execute.seal
        stored = await here.get(answer.result.command_id)
        assert stored.result.stdout == b"x"
        for replica in replicas:
            await replica.inside.nothing_left()


async def test_who_repeats_a_call_is_told_by_the_replica_that_is_asked(replicas: tuple[Any, Any]) -> None:
    """Also of what another one runs, which counts nothing of it; and whoever asks that one is counted anew."""
    here, there = replicas
    executor = await there.executor()
    async with serving(executor):
        await eventually(lambda: here.execute(correlation_id="c"))
        hints = [(await here.execute(correlation_id="c")).result.hint for _ in range(2)]
        assert [bool(hint) for hint in hints] == [False, True]
        assert (await there.execute(correlation_id="c")).result.hint == ""
        assert (await here.execute(correlation_id="c")).result.hint.startswith("This was asked for 4 times")


async def test_a_forwarded_command_is_told_of_once(replicas: tuple[Any, Any]) -> None:
    """On its owner's list and in the audit trail, by the replica that has the executor."""
    here, there = replicas
    async with serving(await there.executor()):
        name = (await eventually(lambda: here.execute())).result.command_id
    for broker in replicas:
        broker.store.history.flush()
        broker.store.audit.flush()
    assert await here.store.behind.drain(PATIENCE_S)
    members = await here.store.history.page(keys.owned_commands("alice"), shown="", since="0", count=100)
    assert [(found, command.state) for found, command in members if command] == [(name, command_pb2.COMMAND_STATE_DONE)]
    trail = await here.store.audit.page(before="", since_ms=0, until_ms=None, count=100)
    told = [(entry.replica_id, entry.owner) for _, entry in trail if entry and entry.command_id == name]
    assert told == [("r2", "alice")]


async def test_a_pipe_of_a_caller_cannot_forward(replicas: tuple[Any, Any], frames: Any) -> None:
    """Whoever it says it asks for: only another replica is believed."""
    _, there = replicas
    executor = await there.executor()
    pipe = await there.pipe()
    identity = wire.Identity(owner="root", scopes=["admin"])
    for frame in (
        {"execute": pb.ExecuteRequest(cluster_id="prod", argv=["get", "pods"])},
        {"execute_stream": pb.ExecuteRequest(cluster_id="prod", argv=["get", "pods"])},
        {"watch": pb.WatchCommandRequest(command_id=ids.new_id())},
        {"cancel": pb.CancelCommandRequest(command_id=ids.new_id())},
    ):
        forwarded = pb.Forwarded(origin_replica_id="r1", identity=identity)
        await pipe.send(pb.CallerFrame(call_id=1, forwarded=forwarded, **frame))
        refusal = (await pipe.next()).error
        assert (refusal.reason, refusal.executed) == (Reason.UNAUTHENTICATED, NO)
    await executor.sync()


@pytest.mark.parametrize(("secret", "good"), [("the common secret of these", True), ("somebody's guess", False)])
async def test_a_replica_is_known_by_its_proof(start_broker: Any, secret: str, good: bool) -> None:
    """It sees every command; with a wrong secret it is nobody."""
    async with start_broker(replica_id="r1", peer_secret="the common secret of these") as broker:
        executor = await broker.executor()
        asked = broker.execute()
        name = await executor.begin_one()
        proof = Proof("r2", secret=hashlib.sha256(secret.encode()).digest())
        metadata = ((METADATA_KEY, proof.show("r1", clock_s=time.time())),)
        call = CommandServiceStub(broker.channel()).GetCommand(pb.GetCommandRequest(command_id=name), metadata=metadata)
        if good:
            assert (await call).command.command_id == name
        else:
            assert (await call.code()).name == "UNAUTHENTICATED"
        asked.cancel()


async def test_replicas_of_two_installations_do_not_forward(start_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They share a Redis and not the secret: no command goes to the wrong one, and its cluster is offline here."""
    monkeypatch.setattr("broker.core.directory.GONE_REPLICA_S", 1.0)
    async with (
        start_broker(replica_id="r1", peer_secret="the secret of the one") as one,
        start_broker(replica_id="r2", peer_secret="the secret of the other") as other,
    ):
        executor = await other.executor()
        await until(lambda: bool(one.inside.ledger._routes._directory.executors("prod")))
        refusal = await one.refused(timeout_s=5)
        assert (refusal.reason, refusal.error.executed) == (Reason.CLUSTER_OFFLINE, NO)
        await executor.sync()


async def test_an_executor_cannot_make_commands_up(broker: Any) -> None:
    """What it lists in Hello under no seal of ours, or for another cluster, is dropped, and nobody can read it."""
    made_up = ids.new_id()
    execute = wire.Execute(command_id=made_up, argv=["get"], timeout_s=5, identity=wire.Identity(owner="alice"))
    execute.seal = Proof("r1").seal(execute, cluster_id="prod", executor_id="exec-1")
    executor = broker.dial()
    welcome = await executor.hello(unacked_ids=[made_up], held=[wire.HeldCommand(execute=execute)])
    assert [verdict.action for verdict in welcome.verdicts] == [wire.VERDICT_ACTION_DROP]
    with pytest.raises(OpenlineError) as unknown:
        await broker.get(made_up)
    assert unknown.value.reason is Reason.COMMAND_UNKNOWN


async def test_the_hello_of_a_stream_that_was_given_up_moves_nothing(replicas: tuple[Any, Any], frames: Any) -> None:
    """An executor that has no answer from one replica goes on to the next; what it says there counts."""
    here, there = replicas
    executor = await there.executor(attempt=2)
    asked = asyncio.ensure_future(eventually(lambda: here.execute()))
    name = await executor.begin_one()
    with pytest.raises(OpenlineError, match="a later stream"):
        await here.dial().hello(attempt=1)
    await executor.send(frames.finished(name, exit_code=3))
    assert (await asked).result.exit_code == 3


async def test_a_command_goes_along_with_its_executor(replicas: tuple[Any, Any], frames: Any) -> None:
    """From one replica to the other: the caller waits where it asked, and live output goes on without a gap."""
    here, there = replicas
    executor = await here.executor()
    asked, watcher = here.execute(), here.stream()
    first, second = await executor.expect("execute"), await executor.expect("execute")
    live, plain = (first, second) if first.live else (second, first)
    for execute in (live, plain):
        await executor.send(frames.accepted(execute.command_id), frames.started(execute.command_id))
    await executor.send(frames.output(live.command_id, 0, b"a"))
    assert await watcher.output(1) == b"a"
    executor.call.cancel()
    held = [wire.HeldCommand(execute=live, first_seq=1), wire.HeldCommand(execute=plain)]
    again = there.dial()
    names = [live.command_id, plain.command_id]
    welcome = await again.hello(in_flight_ids=names, held=held, last_epoch=executor.welcome.epoch)
    assert {verdict.command_id: verdict.next_seq for verdict in welcome.verdicts} == dict(
        zip(names, (1, 0), strict=True)
    )
    assert welcome.epoch > executor.welcome.epoch
    await again.send(frames.output(live.command_id, 1, b"b"), frames.finished(live.command_id))
    await again.send(frames.output(plain.command_id, 0, b"x"), frames.finished(plain.command_id))
    assert (await asked).result.stdout == b"x"
    events = await watcher.rest()
    assert [event.output.data for event in events if event.HasField("output")] == [b"b"]
    assert not [event for event in events if event.HasField("gap")]
    for _ in names:
        assert (await again.expect("result_ack")).command_id in names
    for replica in replicas:
        await replica.inside.nothing_left()
