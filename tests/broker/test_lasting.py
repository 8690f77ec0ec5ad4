"""Calls that last: what becomes of them when their key is revoked or expires."""

import asyncio
import contextlib
from typing import Any

import grpc
import pytest

from broker.core.book import Origin
from broker.core.credentials import PEER, Caller, Credentials, Key, digest
from broker.lasting import LastingCalls
from openline.errors import OpenlineError, from_rpc_error
from openline.reasons import UNKNOWN, Reason
from openline.v1 import admin_service_pb2, cluster_service_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1.admin_service_pb2_grpc import AdminServiceStub
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub

PATIENCE_S = 20.0
CHIEF = (("x-api-key", "the-key-of-the-chief"),)


# By itself


def made(text: str) -> Key:
    caller = Caller(owner="alice", scopes=("read",), key_id=text, digest=digest(text))
    return Key(digest=caller.digest, origin=Origin.MADE, caller=caller)


@pytest.fixture
def credentials() -> Credentials:
    given = Credentials(api_keys=[], executor_tokens=[])
    given.keys.learn([made("one"), made("two")], now=0.0)
    return given


async def lasts(calls: LastingCalls, caller: Caller, begun: asyncio.Event) -> None:
    async with calls.of(caller):
        begun.set()
        await asyncio.Event().wait()


async def test_the_calls_of_a_key_end_with_it_and_no_others(credentials: Credentials) -> None:
    calls = LastingCalls(credentials)
    tasks = []
    for caller in (made("one").caller, made("one").caller, made("two").caller, PEER):
        begun = asyncio.Event()
        tasks.append(asyncio.create_task(lasts(calls, caller, begun)))
        await begun.wait()
    assert (len(calls), repr(calls)) == (3, "<LastingCalls 3>")
    calls.end([made("one")])
    calls.end([made("one")])
    for ended in tasks[:2]:
        with pytest.raises(OpenlineError) as why:
            await ended
        # A command may have been asked for with it.
        assert (why.value.reason, why.value.error.executed) == (Reason.UNAUTHENTICATED, UNKNOWN)
    assert not any(task.done() for task in tasks[2:])
    for task in tasks[2:]:
        task.cancel()
    await asyncio.gather(*tasks[2:], return_exceptions=True)
    assert len(calls) == 0


async def test_a_call_that_comes_when_its_key_has_ended(credentials: Credentials) -> None:
    """Between the check of the key and here it was revoked: nobody would end the call later."""
    calls = LastingCalls(credentials)
    with pytest.raises(OpenlineError) as why:
        async with calls.of(made("three").caller):
            raise AssertionError("it must not begin")
    assert why.value.reason is Reason.UNAUTHENTICATED
    assert len(calls) == 0


async def test_other_ends_are_left_alone(credentials: Credentials) -> None:
    """A timeout within is its owner's, and a call that is over is forgotten."""
    calls = LastingCalls(credentials)
    with pytest.raises(TimeoutError):
        async with calls.of(made("one").caller):
            raise TimeoutError
    async with calls.of(made("one").caller):
        pass
    calls.end([made("one")])
    assert len(calls) == 0


# In a broker


class Dave:
    """A key that was made, and is revoked when the test wants it."""

    def __init__(self, broker: Any) -> None:
        self._stub = AdminServiceStub(broker.channel())
        self.key = ""
        self._key_id = ""

    async def begin(self, *, ttl_s: float = 0.0) -> None:
        request = admin_service_pb2.CreateApiKeyRequest(owner="alice", scopes=["execute", "read"], ttl_s=ttl_s)
        answer = await self._stub.CreateApiKey(request, metadata=CHIEF)
        self.key, self._key_id = answer.key, answer.api_key.key_id

    async def revoke(self) -> None:
        await self._stub.RevokeApiKey(admin_service_pb2.RevokeApiKeyRequest(key_id=self._key_id), metadata=CHIEF)


@pytest.fixture
async def dave(broker: Any) -> Dave:
    key = Dave(broker)
    await key.begin()
    return key


async def end_of(watcher: Any) -> OpenlineError:
    """How it ends; what still comes before is passed over."""
    try:
        while True:
            await watcher.next()
    except OpenlineError as failure:
        return failure


async def test_a_watch_ends_with_its_key_and_the_command_runs_on(broker: Any, dave: Dave) -> None:
    """The watch of the same command with another key goes on to the result."""
    executor = await broker.executor()
    asked = broker.execute()
    command_id = await executor.begin_one()
    gone, stays = broker.watch(command_id, key=dave.key), broker.watch(command_id)
    await gone.next()
    await stays.next()
    await dave.revoke()
    assert (await end_of(gone)).reason is Reason.UNAUTHENTICATED
    assert await gone.call.code() is grpc.StatusCode.UNAUTHENTICATED
    await executor.send(broker._frames.finished(command_id))
    await asked
    assert (await stays.rest())[-1].result.command_id == command_id


@pytest.mark.parametrize("cancels", [False, True])
async def test_a_stream_ends_with_its_key(broker: Any, dave: Dave, cancels: bool) -> None:
    """The command runs on, unless it was to end with its caller."""
    executor = await broker.executor()
    stream = broker.stream(key=dave.key, cancel_on_disconnect=cancels)
    command_id = await executor.begin_one()
    await stream.next()
    await dave.revoke()
    ended = await end_of(stream)
    assert (ended.reason, ended.error.executed) == (Reason.UNAUTHENTICATED, UNKNOWN)
    if cancels:
        assert (await executor.expect("cancel")).command_id == command_id
    else:
        await executor.sync()
    await executor.send(broker._frames.finished(command_id))
    assert (await broker.get(command_id, wait_s=10)).result.command_id == command_id
    await executor.expect("result_ack")
    await broker.inside.nothing_left()


async def test_a_wait_for_a_result_ends_with_its_key(broker: Any, dave: Dave) -> None:
    executor = await broker.executor()
    asked = broker.execute()
    command_id = await executor.begin_one()
    waits = asyncio.create_task(broker.get(command_id, wait_s=60, key=dave.key))
    async with asyncio.timeout(PATIENCE_S):
        while len(broker.inside.dispatcher.audience._waiting.get(command_id, ())) < 2:
            await asyncio.sleep(0.01)
        await dave.revoke()
        with pytest.raises(OpenlineError) as why:
            await waits
    assert why.value.reason is Reason.UNAUTHENTICATED
    await executor.send(broker._frames.finished(command_id))
    await asked


async def test_a_pipe_stays_open_and_answers_others(broker: Any, dave: Dave) -> None:
    """What the key watches on it ends, and its calls are refused; a gateway's other callers notice nothing."""
    executor = await broker.executor()
    pipe = await broker.pipe()
    request = pb.ExecuteRequest(cluster_id="prod", argv=["logs", "-f", "x"], timeout_s=20)
    await pipe.send(pb.CallerFrame(call_id=1, api_key=dave.key, execute_stream=request))
    command_id = await executor.begin_one()
    watch = pb.WatchCommandRequest(command_id=command_id)
    await pipe.send(
        pb.CallerFrame(call_id=2, api_key=dave.key, watch=watch),
        pb.CallerFrame(call_id=3, watch=watch),
    )
    began: set[int] = set()
    while began != {1, 2, 3}:
        began.add((await pipe.next()).call_id)
    await dave.revoke()
    ended: dict[int, str] = {}
    while len(ended) < 2:
        reply = await pipe.next()
        if reply.HasField("error"):
            ended[reply.call_id] = reply.error.reason
    assert ended == dict.fromkeys((1, 2), "UNAUTHENTICATED")
    for call_id, frame in enumerate(({"execute": request}, {"execute_stream": request}, {"watch": watch}), start=4):
        await pipe.send(pb.CallerFrame(call_id=call_id, api_key=dave.key, **frame))  # type: ignore[arg-type]
        refused = await pipe.next()
        assert (refused.call_id, refused.error.reason) == (call_id, "UNAUTHENTICATED")
    # The ids of the calls that were ended are free.
    await pipe.send(pb.CallerFrame(call_id=1, cancel=pb.CancelCommandRequest(command_id=command_id)))
    assert (await executor.expect("cancel")).command_id == command_id
    await executor.send(broker._frames.finished(command_id))
    told: set[int] = set()
    while told != {1, 3}:
        reply = await pipe.next()
        if reply.HasField("cancelled") or reply.event.HasField("result"):
            told.add(reply.call_id)


async def test_a_command_that_was_asked_for_before_is_answered(broker: Any, dave: Dave) -> None:
    """Whoever replaces a key loses no answer; unary, and on a pipe."""
    executor = await broker.executor()
    pipe = await broker.pipe(key=dave.key)
    unary = broker.execute(key=dave.key)
    first = await executor.begin_one()
    await pipe.send(pb.CallerFrame(call_id=1, execute=pb.ExecuteRequest(cluster_id="prod", argv=["get"])))
    second = await executor.begin_one()
    await dave.revoke()
    for command_id in (first, second):
        await executor.send(broker._frames.finished(command_id))
    assert (await unary).result.command_id == first
    assert (await pipe.next()).response.result.command_id == second


async def test_a_watch_of_clusters_ends_with_its_key(broker: Any) -> None:
    """Also when that expires."""
    dave = Dave(broker)
    await dave.begin(ttl_s=1.0)
    stub = ClusterServiceStub(broker.channel())
    call = stub.WatchClusters(cluster_service_pb2.WatchClustersRequest(), metadata=(("x-api-key", dave.key),))

    async def read_on() -> None:
        async for _ in call:
            pass

    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await asyncio.wait_for(read_on(), PATIENCE_S)
    assert from_rpc_error(ended.value).reason is Reason.UNAUTHENTICATED


async def test_a_watcher_that_does_not_read_is_ended_as_well(broker: Any, dave: Dave) -> None:
    """What is written to it waits for ever; the watch is over here all the same, and holds nothing."""
    executor = await broker.executor()
    asked = broker.execute()
    command_id = await executor.begin_one()
    watcher = broker.watch(command_id, key=dave.key)
    await watcher.next()
    for seq in range(32):
        await executor.send(broker._frames.output(command_id, seq, b"x" * 65_536))
    await executor.sync()
    watches = broker.inside.dispatcher.audience._watches
    assert len(watches[command_id]) == 1
    await dave.revoke()
    async with asyncio.timeout(PATIENCE_S):
        while watches:
            await asyncio.sleep(0.01)
    await executor.send(broker._frames.finished(command_id))
    await asked
    with contextlib.suppress(asyncio.CancelledError):
        watcher.call.cancel()
