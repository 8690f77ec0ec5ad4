"""Floods and bad manners, over real gRPC: whatever one peer does, the broker goes on serving the others."""

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from broker import opening, server
from broker.core import suspicion
from broker.core.suspicion import Kind
from broker.rpc import keyless, pipe
from openline import ids, limits
from openline.channels import KEEPALIVE_MS, SERVER_OPTIONS
from openline.errors import OpenlineError, from_rpc_error
from openline.reasons import Reason, reason_of
from openline.v1 import cluster_service_pb2, session_service_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1 import executor_service_pb2 as wire
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub
from openline.v1.command_service_pb2_grpc import CommandServiceStub
from openline.v1.session_service_pb2_grpc import SessionServiceStub

PATIENCE_S = 20.0
ALICE = (("x-api-key", "the-key-of-alice"),)
WRONG = (("x-api-key", "a-key-that-nobody-has"),)
# So many of the good caller's commands are answered while a flood goes on.
SERVED = 10

Flood = Callable[[], Awaitable[None]]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


class Good:
    """An executor that answers, and callers who ask it."""

    def __init__(self, broker: Any, executor: Any) -> None:
        self._broker = broker
        self._executor = executor
        # Opened before the flood, as those of callers are who are there already.
        self._channel = broker.channel()

    async def run(self) -> None:
        """The executor runs whatever comes."""
        while True:
            frame = await self._executor.next()
            if frame.HasField("execute"):
                await self._executor.send(*self._executor._say.ran(frame.execute.command_id, b"served"))

    async def ask(self) -> None:
        request = pb.ExecuteRequest(cluster_id="prod", argv=["get", "pods"], timeout_s=PATIENCE_S)
        answer = await CommandServiceStub(self._channel).Execute(request, metadata=ALICE, timeout=PATIENCE_S)
        assert answer.result.stdout == b"served"

    async def is_served(self, *, new_connections: bool = True) -> None:
        """Both callers who are there and those who come."""
        for _ in range(SERVED):
            await self.ask()
            if new_connections:
                assert (await self._broker.execute()).result.stdout == b"served"


@contextlib.asynccontextmanager
async def good_people(broker: Any) -> AsyncIterator[Good]:
    good = Good(broker, await broker.executor())
    running = asyncio.create_task(good.run())
    try:
        await good.ask()
        yield good
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def flooded(flood: Flood, *, width: int) -> AsyncIterator[Callable[[], int]]:
    """Runs the flood again and again, so many at a time, until the block is left; gives how often it has run."""
    runs = itertools.count()
    ran = 0

    async def again() -> None:
        nonlocal ran
        while True:
            await flood()
            ran = next(runs) + 1

    tasks = [asyncio.create_task(again()) for _ in range(width)]
    try:
        yield lambda: ran
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} == {asyncio.CancelledError}, ends


async def refused(call: Awaitable[Any]) -> OpenlineError:
    with pytest.raises(grpc.aio.AioRpcError) as status:
        await call
    return from_rpc_error(status.value)


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives brokers that start from now on other options: `options(**{"grpc.max_connection_idle_ms": 500})`."""

    def change(**other: int) -> None:
        monkeypatch.setattr(server, "SERVER_OPTIONS", list((dict(SERVER_OPTIONS) | other).items()))

    return change


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals are held back for a moment only, so that a flood is one."""
    monkeypatch.setattr(suspicion, "HOLD_S", 0.02)
    monkeypatch.setattr(suspicion, "MAX_RATE", 100_000.0)


def counts(broker: Any) -> dict[Kind, int]:
    [refusals] = broker.inside.parts["Refusals"]
    return dict(refusals.counts)


# Wrong keys and tokens

FLOODS: dict[str, Callable[[grpc.aio.Channel], Awaitable[Any]]] = {
    "Execute": lambda channel: CommandServiceStub(channel).Execute(
        pb.ExecuteRequest(cluster_id="prod"), metadata=WRONG
    ),
    "ExecuteStream": lambda channel: (
        CommandServiceStub(channel).ExecuteStream(pb.ExecuteStreamRequest(), metadata=WRONG).read()
    ),
    "ListClusters": lambda channel: ClusterServiceStub(channel).ListClusters(
        cluster_service_pb2.ListClustersRequest(), metadata=WRONG
    ),
    "CreateSession without a key": lambda channel: SessionServiceStub(channel).CreateSession(
        session_service_pb2.CreateSessionRequest(cluster_id="prod")
    ),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", FLOODS)
async def test_wrong_keys_by_the_thousand(
    broker: Any, name: str, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]
) -> None:
    """Each is refused and counted, one line is logged, and others are served: more are asked than are held back."""
    monkeypatch.setattr(suspicion, "MAX_HELD", 20)
    channels = [broker.channel() for _ in range(4)]
    turns = itertools.cycle(channels)

    async def guess() -> None:
        assert (await refused(FLOODS[name](next(turns)))).reason is Reason.UNAUTHENTICATED

    async with good_people(broker) as good, flooded(guess, width=60) as guesses:
        await good.is_served()
        await until(lambda: guesses() >= 500)
    assert counts(broker)[Kind.API_KEY] >= 500
    assert counts(broker)[Kind.EXECUTOR_TOKEN] == 0
    [line] = [line for line in log_lines if line["event"] == "credentials.refused"]
    assert (line["api_keys"], line["log_level"]) == (1, "warning")
    assert line["last_from"].startswith("ipv4:127.0.0.1:")


@pytest.mark.usefixtures("quick")
async def test_wrong_keys_on_a_pipe(broker: Any) -> None:
    """Thousands in a few messages: each frame is answered once, and callers on the same pipe are served."""
    count = 8_000

    def execute(call_id: int, key: str) -> pb.CallerFrame:
        request = pb.ExecuteRequest(cluster_id="prod", argv=["get", "pods"], timeout_s=PATIENCE_S)
        return pb.CallerFrame(call_id=call_id, api_key=key, execute=request)

    async with good_people(broker) as good:
        stream = await broker.pipe(key=None)
        for first in range(1, count, 1000):
            frames = [execute(call_id, "wrong" * 5) for call_id in range(first, first + 1000)]
            await stream.send(*frames, execute(count + first, "the-key-of-alice"))
        await good.is_served()
        answers = [await stream.next() for _ in range(count + 8)]
    served = {answer.call_id for answer in answers if answer.HasField("response")}
    assert served == set(range(count + 1, 2 * count + 1, 1000))
    refusals = [answer.call_id for answer in answers if answer.HasField("error")]
    assert sorted(refusals) == list(range(1, count + 1))
    assert {reason_of(answer.error) for answer in answers if answer.HasField("error")} == {Reason.UNAUTHENTICATED}
    assert counts(broker)[Kind.API_KEY] == count


@pytest.mark.usefixtures("quick")
async def test_wrong_executor_tokens_by_the_thousand(broker: Any, log_lines: list[dict[str, Any]]) -> None:
    channels = itertools.cycle([broker.channel() for _ in range(4)])
    hello = wire.Hello(protocol_version=1, cluster_id="prod", executor_id="exec-1", instance_id="instance-1")

    async def guess() -> None:
        stub = next(channels).stream_stream(
            "/openline.v1.ExecutorService/Connect",
            request_serializer=wire.ConnectRequest.SerializeToString,
            response_deserializer=wire.ConnectResponse.FromString,
        )
        call = stub(metadata=(("authorization", "Bearer a-token-that-nobody-has"),))
        await call.write(wire.ConnectRequest(frames=[wire.ExecutorFrame(hello=hello)]))
        assert (await refused(call.read())).reason is Reason.UNAUTHENTICATED

    async with good_people(broker) as good, flooded(guess, width=40) as guesses:
        await good.is_served()
        await until(lambda: guesses() >= 300)
    assert counts(broker)[Kind.EXECUTOR_TOKEN] >= 300
    assert [line["executor_tokens"] for line in log_lines if line["event"] == "credentials.refused"] == [1]


async def test_a_wrong_key_waits_for_its_answer_and_a_good_one_does_not(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a call of its own, on a pipe and on an executor's stream; beyond the bound the answer comes at once."""
    monkeypatch.setattr(suspicion, "HOLD_S", 3600.0)
    monkeypatch.setattr(suspicion, "MAX_HELD", 3)
    async with good_people(broker) as good:
        held = asyncio.create_task(refused(FLOODS["ListClusters"](broker.channel())))
        stream = await broker.pipe(key="wrong-key-of-a-pipe")
        await stream.send(pb.CallerFrame(call_id=1, execute=pb.ExecuteRequest(cluster_id="prod", argv=["get"])))
        executor = broker.dial(token="wrong-token-of-an-executor")
        connecting = asyncio.create_task(executor.hello())
        await until(lambda: sum(counts(broker).values()) == 3)
        await good.is_served()
        await stream.send(pb.CallerFrame(heartbeat=wire.Heartbeat(seq=1)))
        assert (await stream.next()).HasField("heartbeat_ack")
        assert not held.done()
        assert not connecting.done()
        assert (await refused(FLOODS["ListClusters"](broker.channel()))).reason is Reason.UNAUTHENTICATED
        for task in (held, connecting):
            task.cancel()
        await asyncio.gather(held, connecting, return_exceptions=True)


async def test_an_answer_that_was_held_back_comes(broker: Any) -> None:
    """With the usual wait."""
    began = asyncio.get_running_loop().time()
    assert (await broker.refused(key="not-a-good-key")).reason is Reason.UNAUTHENTICATED
    assert asyncio.get_running_loop().time() - began >= suspicion.HOLD_S


async def test_a_pipe_that_ends_while_an_answer_is_held_back(broker: Any, log_lines: list[dict[str, Any]]) -> None:
    stream = await broker.pipe(key="wrong-key-of-a-pipe")
    await stream.send(pb.CallerFrame(call_id=1, execute=pb.ExecuteRequest(cluster_id="prod", argv=["get"])))
    await until(lambda: counts(broker)[Kind.API_KEY] == 1)
    stream.call.cancel()
    await until(lambda: any(line["event"] == "pipe.closed" for line in log_lines))
    await asyncio.sleep(suspicion.HOLD_S)
    assert [line for line in log_lines if line["log_level"] == "error"] == []


async def test_a_wrong_credential_in_band_leaves_the_stream_as_it_was(
    broker: Any, log_lines: list[dict[str, Any]]
) -> None:
    """For as long as the token before is good. It is told of once, however often it is shown."""
    async with good_people(broker) as good:
        executor = await broker.executor(executor_id="exec-2")
        for _ in range(3):
            await executor.send(wire.ExecutorFrame(credential=wire.Credential(token="a-token-that-nobody-has")))
        await executor.sync()
        await good.is_served()
        [line] = [line for line in log_lines if line["event"] == "credential.refused"]
        assert (line["cluster_id"], line["executor_id"]) == ("prod", "exec-2")
        assert counts(broker)[Kind.EXECUTOR_TOKEN] == 3


# Connections


class Bare:
    """A connection that says this and no more, and takes nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, address: str, said: bytes = b"", *, tls: ssl.SSLContext | None = None) -> Self:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
        writer.write(said)
        return cls(reader, writer)

    async def closed(self) -> None:
        """Waits until the broker has closed it."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(4096):
                pass
        self.close()

    def close(self) -> None:
        self._writer.close()


UNCHECKED = ssl.create_default_context()
UNCHECKED.check_hostname = False
UNCHECKED.verify_mode = ssl.CERT_NONE
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"  # and empty SETTINGS


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, str]:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    return {"tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "key.pem")}


@pytest.mark.parametrize("is_tls", [False, True])
async def test_connections_that_say_nothing_are_closed(
    start_broker: Any, options: Any, tls: dict[str, str], is_tls: bool
) -> None:
    """Neither TLS's handshake nor HTTP/2's waits for long."""
    # One of them speaks TLS, and must have done so by then.
    options(**{"grpc.server_handshake_timeout_ms": 1500 if is_tls else 300})
    async with asyncio.timeout(PATIENCE_S), start_broker(**(tls if is_tls else {})) as broker:
        silent = [await Bare.open(broker.address) for _ in range(50)]
        if is_tls:
            silent.append(await Bare.open(broker.address, tls=UNCHECKED))
        await asyncio.gather(*(each.closed() for each in silent))


async def test_connections_without_calls_are_closed(start_broker: Any, options: Any) -> None:
    options(**{"grpc.max_connection_idle_ms": 300})
    # Shorter than keepalive, which would end them as well: they answer no PING.
    async with asyncio.timeout(KEEPALIVE_MS / 1000 - 1), start_broker() as broker:
        idle = [await Bare.open(broker.address, PREFACE) for _ in range(50)]
        await asyncio.gather(*(each.closed() for each in idle))


async def test_a_caller_does_not_notice_that_its_idle_connection_was_closed(start_broker: Any, options: Any) -> None:
    options(**{"grpc.max_connection_idle_ms": 100})
    async with start_broker() as broker, good_people(broker) as good:
        for _ in range(5):
            await good.ask()
            await asyncio.sleep(0.3)


async def test_connections_are_bounded(start_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those beyond it are closed at once, and who is there is served; there is room again when some have gone."""
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 20)
    async with start_broker() as broker, good_people(broker) as good:
        flood = [await Bare.open(broker.address, PREFACE) for _ in range(200)]
        over = [asyncio.create_task(each.closed()) for each in flood]
        await until(lambda: sum(task.done() for task in over) >= 180)
        await good.is_served(new_connections=False)
        for each in flood:
            each.close()
        await asyncio.gather(*over)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(OpenlineError):  # until it has noticed that they have gone
                    await good.is_served()
                    break
                await asyncio.sleep(0.1)


def test_connections_leave_files_for_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.MAX_CONNECTIONS < 65_536 - server.RESERVED_FILES
    monkeypatch.setattr(server, "open_files", lambda: 1024)
    assert server.connections_allowed() == 512
    monkeypatch.setattr(server, "open_files", lambda: 256)
    assert server.connections_allowed() == 1


async def test_calls_on_one_connection_are_bounded(start_broker: Any, options: Any) -> None:
    """Its own calls wait for each other; those of others do not."""
    options(**{"grpc.max_concurrent_streams": 10})
    async with start_broker() as broker, good_people(broker) as good:
        channel = broker.channel()
        await channel.channel_ready()  # before that it does not know how many it may open
        for _ in range(100):
            health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await ClusterServiceStub(channel).ListClusters(
                cluster_service_pb2.ListClustersRequest(), metadata=ALICE, timeout=0.5
            )
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await good.is_served()


# Calls that say nothing


def silent(channel: grpc.aio.Channel, method: str) -> Any:
    """A call that is opened and sends no message."""
    call = channel.stream_stream(f"/openline.v1.{method}")
    return call(metadata=(("authorization", "Bearer the-token-of-prod"), *ALICE))


SILENT = ("ExecutorService/Connect", "CommandService/Pipe", "CommandService/Execute", "ClusterService/ListClusters")


@pytest.mark.parametrize("method", SILENT)
async def test_a_call_without_a_first_message_is_ended(
    broker: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that takes a single request, for which gRPC itself would wait without end."""
    monkeypatch.setattr(limits, "HELLO_TIMEOUT_S", 0.1)
    refusal = await refused(silent(broker.channel(), method).read())
    assert refusal.reason is Reason.PROTOCOL_VIOLATION
    assert "within 0.1 s" in refusal.error.message


async def test_silent_calls_make_room_for_each_other(
    broker: Any, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]
) -> None:
    """The oldest ends first, and whoever says its first word at once is served."""
    monkeypatch.setattr(opening, "MAX_SILENT", 20)
    [opened] = broker.inside.parts["Opening"]
    async with good_people(broker) as good:
        methods = itertools.cycle(SILENT)
        ends: list[asyncio.Task[OpenlineError]] = []
        while len(ends) < 60:
            ends.append(asyncio.create_task(refused(silent(broker.channel(), next(methods)).read())))
            over = max(0, len(ends) - 20)
            await until(lambda over=over: (len(opened), sum(end.done() for end in ends)) == (len(ends) - over, over))
        assert {end.result().reason for end in ends[:40]} == {Reason.BROKER_UNAVAILABLE}
        await good.is_served()
        await broker.executor(executor_id="exec-2")
        assert not ends[-1].done()
        for task in ends:
            task.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
    [line] = [line for line in log_lines if line["event"] == "calls.crowded_out"]
    assert line["calls"] == 1


async def test_a_flood_of_silent_calls(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MAX_SILENT", 100)
    channels = itertools.cycle([broker.channel() for _ in range(4)])
    methods = itertools.cycle(SILENT)

    async def open_one() -> None:
        assert (await refused(silent(next(channels), next(methods)).read())).reason is Reason.BROKER_UNAVAILABLE

    async with good_people(broker) as good, flooded(open_one, width=200) as opened:
        await good.is_served()
        await until(lambda: opened() >= 500)


async def test_a_flood_of_calls_that_are_cancelled_at_once(broker: Any) -> None:
    """As HTTP/2's rapid reset does it."""
    channels = itertools.cycle([broker.channel() for _ in range(4)])
    methods = itertools.cycle(SILENT)

    async def open_one() -> None:
        call = silent(next(channels), next(methods))
        try:
            await asyncio.sleep(0.01)  # until it is on its way; not faster than this process can be a client
        finally:
            call.cancel()

    async with good_people(broker) as good, flooded(open_one, width=5) as opened:
        await good.is_served()
        await until(lambda: opened() >= 500)
    [silent_calls] = broker.inside.parts["Opening"]
    await until(lambda: len(silent_calls) == 0)


@pytest.mark.parametrize("said", [b"\xff\xff\xff", None])
async def test_a_request_that_is_none(broker: Any, said: bytes | None, log_lines: list[dict[str, Any]]) -> None:
    """Bytes that are no message, or the end before there is any: its sender is told, and it is no defect of ours."""
    call = broker.channel().stream_unary("/openline.v1.ClusterService/ListClusters")(metadata=ALICE)
    if said is not None:
        await call.write(said)
    await call.done_writing()
    assert (await refused(call)).reason is Reason.PROTOCOL_VIOLATION
    assert "rpc.failed" not in {line["event"] for line in log_lines}


# Hello


@pytest.mark.parametrize("method", SILENT[:2])
async def test_a_flood_of_unknown_versions(broker: Any, method: str) -> None:
    channels = itertools.cycle([broker.channel() for _ in range(4)])
    hellos = {
        "ExecutorService/Connect": wire.ConnectRequest(
            frames=[wire.ExecutorFrame(hello=wire.Hello(protocol_version=9))]
        ),
        "CommandService/Pipe": pb.PipeRequest(frames=[pb.CallerFrame(hello=pb.PipeHello(protocol_version=9))]),
    }

    async def hello() -> None:
        call = silent(next(channels), method)
        await call.write(hellos[method].SerializeToString())
        assert (await refused(call.read())).reason is Reason.VERSION_UNSUPPORTED

    async with good_people(broker) as good, flooded(hello, width=50) as said:
        await good.is_served()
        await until(lambda: said() >= 300)


# Metadata


@pytest.mark.parametrize("size", [17_000, 1_000_000])
async def test_huge_metadata(broker: Any, size: int, log_lines: list[dict[str, Any]]) -> None:
    """gRPC refuses it before anything of ours sees it, and says nothing of what was in it."""
    channels = itertools.cycle([broker.channel() for _ in range(4)])
    request = cluster_service_pb2.ListClustersRequest()
    large = "secret-of-somebody" * (size // 18)

    async def ask() -> None:
        stub = ClusterServiceStub(next(channels))
        with pytest.raises(grpc.aio.AioRpcError) as status:
            await stub.ListClusters(request, metadata=(("x-api-key", large),))
        assert status.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "secret-of" not in str(status.value.details())

    async with good_people(broker) as good, flooded(ask, width=10) as asked:
        await good.is_served()
        await until(lambda: asked() >= 50)
    assert "secret-of" not in str(log_lines)


# Who does not read


def http2(path: str, *headers: tuple[str, str], streams: int, message: bytes = b"") -> bytes:
    """What a peer says that opens calls and takes no byte of any answer: its windows are empty."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload

    named = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "broker"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *headers,
    ]
    # Literals without indexing and without Huffman's code.
    block = b"".join(b"\0" + b"".join(bytes((len(part),)) + part.encode() for part in header) for header in named)
    body = b"\0" + len(message).to_bytes(4, "big") + message
    said = PREFACE[:24] + frame(4, 0, 0, b"\0\x04" + (0).to_bytes(4, "big"))
    for stream in range(1, 2 * streams, 2):
        said += frame(1, 4, stream, block) + frame(0, 1, stream, body)
    return said


async def test_a_watcher_of_the_health_that_does_not_read(start_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds up neither other watchers nor the end of the broker."""
    monkeypatch.setattr(server, "STOP_GRACE_S", 0.2)
    async with start_broker() as broker:
        stuck = await Bare.open(broker.address, http2("/grpc.health.v1.Health/Watch", streams=50))
        [opened] = broker.inside.parts["Opening"]
        watch = health_pb2_grpc.HealthStub(broker.channel()).Watch(health_pb2.HealthCheckRequest())
        async with asyncio.timeout(PATIENCE_S):
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            seen = asyncio.create_task(watch.read())
            await until(lambda: len(opened) == 0)
        channels, broker._channels = broker._channels, []
    async with asyncio.timeout(PATIENCE_S):
        assert (await seen).status == health_pb2.HealthCheckResponse.NOT_SERVING
    stuck.close()
    for channel in channels:
        await channel.close()


async def test_callers_that_do_not_read_their_answers(broker: Any) -> None:
    async with good_people(broker) as good:
        stuck = [
            await Bare.open(broker.address, http2("/openline.v1.ClusterService/ListClusters", *ALICE, streams=100))
            for _ in range(5)
        ]
        await good.is_served()
        for connection in stuck:
            connection.close()
        await good.is_served()


async def test_watchers_that_do_not_read_a_flood(broker: Any, frames: Any) -> None:
    """What they miss is counted for them; others do not wait for them."""
    async with good_people(broker) as good:
        loud = broker.dial(token="the-token-of-staging")
        await loud.hello(cluster_id="staging", executor_id="loud")
        watchers = [broker.stream(cluster_id="staging") for _ in range(5)]
        for _ in watchers:
            await loud.begin_one()
        names = [name for name in broker.inside.ledger.commands]
        data = b"x" * limits.MAX_FRAME_BYTES
        for seq in range(50):
            await loud.send(*(frames.output(name, seq, data) for name in names))
        await good.is_served()
        for watcher in watchers:
            watcher.call.cancel()


async def test_a_stranger_that_does_not_read_is_ended(broker: Any, log_lines: list[dict[str, Any]]) -> None:
    """Nothing but small answers waits for it, each of which takes far more memory than bytes."""
    async with good_people(broker) as good:
        stranger = await broker.pipe(key=None)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(200):
                    await stranger.send(*[pb.CallerFrame(heartbeat=wire.Heartbeat(seq=1 << 60))] * 4000)
        await until(lambda: any(line["event"] == "pipe.closed" for line in log_lines))
        await good.is_served()
    [line] = [line for line in log_lines if line["event"] == "pipe.closed"]
    assert line["why"] == "a pipe without a good key does not read its answers"


# What takes no key


async def test_strangers_pipes_make_room_for_each_other(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is ended; a pipe on which a good key was shown stays, whatever comes of what it asked for."""
    monkeypatch.setattr(pipe, "MAX_STRANGERS", 10)
    executor = await broker.executor()
    asks = pb.ExecuteRequest(cluster_id="prod", argv=["get", "pods"], timeout_s=PATIENCE_S)
    unknown = pb.WatchCommandRequest(command_id=ids.new_id())
    busy, refused_one = await broker.pipe(), await broker.pipe()
    await busy.send(pb.CallerFrame(call_id=1, execute=asks))
    name = await executor.begin_one()
    await refused_one.send(pb.CallerFrame(call_id=1, watch=unknown))
    assert reason_of((await refused_one.next()).error) is Reason.COMMAND_UNKNOWN
    strangers = []
    for _ in range(30):
        strangers.append(await broker.pipe(key="wrong-key-of-a-stranger"))
        await strangers[-1].send(pb.CallerFrame(call_id=1, execute=asks))
    for stranger in strangers[:20]:
        assert (await stranger.status()).reason is Reason.BROKER_UNAVAILABLE
    for stranger in strangers[20:]:
        assert reason_of((await stranger.next()).error) is Reason.UNAUTHENTICATED
    await executor.send(executor._say.finished(name))
    assert (await busy.next()).HasField("response")
    await refused_one.send(pb.CallerFrame(heartbeat=wire.Heartbeat(seq=1)))
    assert (await refused_one.next()).HasField("heartbeat_ack")


async def test_health_and_reflection_are_bounded(start_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may hold one open; the next one can be had when another has ended."""
    monkeypatch.setattr(keyless, "MAX_WATCHES", 2)
    monkeypatch.setattr(keyless, "MAX_REFLECTIONS", 2)
    async with start_broker() as broker, good_people(broker) as good:
        health = health_pb2_grpc.HealthStub(broker.channel())
        reflection = reflection_pb2_grpc.ServerReflectionStub(broker.channel())
        asked = reflection_pb2.ServerReflectionRequest(list_services="")

        async def watch() -> Any:
            call = health.Watch(health_pb2.HealthCheckRequest())
            assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVING
            return call

        async def asking() -> AsyncIterator[Any]:
            yield asked
            await asyncio.Event().wait()

        async def reflect() -> Any:
            # Not by `write`, which fails without the status where that has come before.
            call = reflection.ServerReflectionInfo(asking())
            assert (await call.read()).HasField("list_services_response")
            return call

        for open_one in (watch, reflect):
            held = [await open_one() for _ in range(2)]
            assert (await refused(open_one())).reason is Reason.QUOTA_EXCEEDED
            await good.is_served()
            held[0].cancel()
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        await open_one()
                        break
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
