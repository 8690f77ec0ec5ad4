"""Pipe and Pipes against brokers that do what a test tells them to: what the real one never does, or not on demand."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import grpc
import pytest

from openline.channels import SERVER_OPTIONS, open_channel
from openline.errors import OpenlineError, error
from openline.ids import new_id
from openline.pipe import Pipe
from openline.pipe_state import PipeState
from openline.pipes import Pipes
from openline.reasons import NO, UNKNOWN, Reason
from openline.settings import Address
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1.command_service_pb2_grpc import CommandServiceServicer, add_CommandServiceServicer_to_server
from openline.v1.executor_service_pb2 import GoAway, HeartbeatAck, Identity
from tests.programs import free_port

# As /proc/net/tcp says it.
ESTABLISHED = "01"

Script = Callable[[pb.CallerFrame], Sequence[pb.ReplyFrame]]


def answered(frame: pb.CallerFrame) -> list[pb.ReplyFrame]:
    """The answer of a healthy broker: the command's argv as its output."""
    result = command_pb2.CommandResult(
        command_id=frame.execute.command_id,
        outcome=command_pb2.OUTCOME_EXITED,
        stdout=" ".join(frame.execute.argv).encode(),
    )
    return [pb.ReplyFrame(call_id=frame.call_id, response=pb.ExecuteResponse(result=result))]


def silent(_frame: pb.CallerFrame) -> list[pb.ReplyFrame]:
    return []


def refusing(failure: command_pb2.Error) -> Script:
    return lambda frame: [pb.ReplyFrame(call_id=frame.call_id, error=failure)]


def leaving(frame: pb.CallerFrame) -> list[pb.ReplyFrame]:
    return refusing(error(Reason.BROKER_UNAVAILABLE, "leaving", executed=NO))(frame)


class ScriptedBroker(CommandServiceServicer):
    """Speaks the handshake and heartbeats; the rest is the script's."""

    def __init__(self, script: Script) -> None:
        self.script = script
        # So slow that on no machine a pause makes this broker look quiet, and another one be asked first.
        self.welcome = pb.PipeWelcome(
            protocol_version=1, replica_id="scripted", heartbeat_interval_s=10.0, heartbeat_timeout_s=30.0
        )
        self.is_frozen = False
        self.first_reply: pb.ReplyFrame | None = None
        self.pipes_opened = 0
        self.pipes_ended = 0
        self.heartbeats = 0
        self.metadata: dict[str, str | bytes] = {}
        self.executed: list[pb.CallerFrame] = []
        self.abandoned: list[int] = []
        self.context: Any = None
        self._server: grpc.aio.Server | None = None

    async def start(self, port: int = 0) -> Address:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        add_CommandServiceServicer_to_server(self, self._server)
        # Not one that the system chooses: it could give that to somebody else between two starts.
        bound = self._server.add_insecure_port(f"127.0.0.1:{port or free_port()}")
        await self._server.start()
        return Address(f"127.0.0.1:{bound}")

    async def die(self) -> None:
        """Ends every stream at once, as a killed process does."""
        assert self._server is not None
        await self._server.stop(0)

    async def Pipe(self, _requests: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        self.pipes_opened += 1
        self.context = context
        self.metadata = dict(context.invocation_metadata())
        await context.read()
        await self.say(self.first_reply or pb.ReplyFrame(welcome=self.welcome))
        try:
            await self._converse(context)
        finally:
            self.pipes_ended += 1

    async def _converse(self, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            replies: list[pb.ReplyFrame] = []
            for frame in message.frames:
                match frame.WhichOneof("frame"):
                    case "heartbeat":
                        self.heartbeats += 1
                        replies.append(pb.ReplyFrame(heartbeat_ack=HeartbeatAck(seq=frame.heartbeat.seq)))
                    case "execute":
                        self.executed.append(frame)
                        replies += self.script(frame)
                    case "abandon":
                        self.abandoned.append(frame.call_id)
            while self.is_frozen:
                await asyncio.sleep(0.05)
            if replies:
                await context.write(pb.PipeResponse(frames=replies))

    async def say(self, *frames: pb.ReplyFrame) -> None:
        await self.context.write(pb.PipeResponse(frames=frames))


@asynccontextmanager
async def open_pipe(broker: ScriptedBroker) -> AsyncIterator[Pipe]:
    """A pipe that is open and run, to a broker that is served."""
    channel = open_channel(await broker.start())
    pipe = await Pipe.open(channel, client="test")
    running = asyncio.create_task(pipe.run())
    try:
        yield pipe
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await channel.close()
        await broker.die()


@asynccontextmanager
async def pipes_to(*brokers: ScriptedBroker) -> AsyncIterator[Pipes]:
    """Pipes to several brokers, all connected."""
    async with Pipes([await broker.start() for broker in brokers], client="test") as pipes:
        await until(lambda: all(replica.is_connected for replica in pipes.replicas))
        try:
            yield pipes
        finally:
            for broker in brokers:
                await broker.die()


async def until(condition: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def request(*argv: str, timeout_s: float = 10.0) -> pb.ExecuteRequest:
    return pb.ExecuteRequest(cluster_id="local", argv=argv or ("get", "pods"), timeout_s=timeout_s, command_id=new_id())


async def failure_of(call: Awaitable[object]) -> OpenlineError:
    with pytest.raises(OpenlineError) as caught:
        await call
    return caught.value


# One pipe


async def test_many_calls_share_one_stream() -> None:
    """500 calls at once go over one stream, and each gets its own answer."""
    broker = ScriptedBroker(answered)
    async with open_pipe(broker) as pipe:
        responses = await asyncio.gather(
            *(pipe.execute(request("get", str(n)), api_key="k", timeout_s=10) for n in range(500))
        )
    assert [response.result.stdout for response in responses] == [f"get {n}".encode() for n in range(500)]
    assert broker.pipes_opened == 1
    assert {frame.api_key for frame in broker.executed} == {"k"}


async def test_answers_may_come_in_any_order() -> None:
    """An answer finds its call by call_id, not by its turn."""
    held: list[pb.ReplyFrame] = []

    def reversed_in_tens(frame: pb.CallerFrame) -> list[pb.ReplyFrame]:
        held.extend(answered(frame))
        if len(held) < 10:
            return []
        replies, held[:] = held[::-1], []
        return replies

    async with open_pipe(ScriptedBroker(reversed_in_tens)) as pipe:
        responses = await asyncio.gather(*(pipe.execute(request(str(n)), api_key="k", timeout_s=10) for n in range(30)))
    assert [response.result.stdout for response in responses] == [str(n).encode() for n in range(30)]


async def test_an_error_frame_is_raised_as_it_is() -> None:
    """What the broker answers with an Error arrives whole."""
    denied = error(Reason.POLICY_DENIED, "no", metadata={"rule": "verbs"})
    async with open_pipe(ScriptedBroker(refusing(denied))) as pipe:
        failure = await failure_of(pipe.execute(request(), api_key="k", timeout_s=10))
    assert failure.reason is Reason.POLICY_DENIED
    assert failure.error == denied


async def test_cancelling_the_caller_tells_the_broker() -> None:
    """A caller that is cancelled leaves an Abandon for its call, and nothing in the table."""
    broker = ScriptedBroker(silent)
    async with open_pipe(broker) as pipe:
        call = asyncio.create_task(pipe.execute(request(), api_key="k", timeout_s=10))
        await until(lambda: bool(broker.executed))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: bool(broker.abandoned))
        assert broker.abandoned == [broker.executed[0].call_id]
        assert "calls=0" in repr(pipe)


async def test_a_call_that_runs_out_of_time_may_have_run() -> None:
    """Without an answer in time the call fails as executed=unknown, and the broker is told."""
    broker = ScriptedBroker(silent)
    async with open_pipe(broker) as pipe:
        failure = await failure_of(pipe.execute(request(), api_key="k", timeout_s=0.3))
        await until(lambda: bool(broker.abandoned))
    assert failure.reason is Reason.BROKER_UNAVAILABLE
    assert failure.error.executed == UNKNOWN


async def test_a_version_that_was_not_offered() -> None:
    """A broker that chooses it anyway is no broker to talk to."""
    broker = ScriptedBroker(silent)
    broker.welcome.protocol_version = 9
    channel = open_channel(await broker.start())
    failure = await failure_of(Pipe.open(channel, client="test"))
    await channel.close()
    await broker.die()
    assert "chose protocol version 9, and was offered 1" in failure.error.message


async def test_a_late_answer_changes_nothing() -> None:
    """An answer to a call that was given up is dropped, and the pipe goes on."""
    broker = ScriptedBroker(silent)
    async with open_pipe(broker) as pipe:
        await failure_of(pipe.execute(request(), api_key="k", timeout_s=0.05))
        broker.script = lambda frame: [*answered(broker.executed[0]), *answered(frame)]
        response = await pipe.execute(request("second"), api_key="k", timeout_s=10)
    assert response.result.stdout == b"second"


async def test_garbage_replies_are_ignored() -> None:
    """Replies to calls that never were, of kinds that were not asked for or not known, do not disturb the others."""

    def garbage(frame: pb.CallerFrame) -> list[pb.ReplyFrame]:
        return [
            pb.ReplyFrame(call_id=999_999, response=pb.ExecuteResponse()),
            pb.ReplyFrame(call_id=frame.call_id),
            pb.ReplyFrame.FromString(b"\x08\x01\xfa\x01\x02hi"),  # a frame of a newer version of the contract
            pb.ReplyFrame(call_id=frame.call_id, event=command_pb2.CommandEvent()),
            pb.ReplyFrame(welcome=pb.PipeWelcome(heartbeat_timeout_s=0.001)),
            pb.ReplyFrame(heartbeat_ack=HeartbeatAck(seq=12345)),
            *answered(frame),
            *answered(frame),
        ]

    async with open_pipe(ScriptedBroker(garbage)) as pipe:
        for n in range(3):
            response = await pipe.execute(request(str(n)), api_key="k", timeout_s=10)
            assert response.result.stdout == str(n).encode()
        assert pipe.ignored_frames == 12


async def test_a_broken_stream_fails_every_call_at_once() -> None:
    """Calls that had left when the broker was killed fail as executed=unknown, long before their time is up."""
    broker = ScriptedBroker(silent)
    async with open_pipe(broker) as pipe:
        calls = [asyncio.create_task(pipe.execute(request(), api_key="k", timeout_s=60)) for _ in range(20)]
        await until(lambda: len(broker.executed) == 20)
        await broker.die()
        failures = [await failure_of(call) for call in calls]
        assert pipe.state is PipeState.ENDED
        after = await failure_of(pipe.execute(request(), api_key="k", timeout_s=60))
    assert {failure.reason for failure in failures} == {Reason.BROKER_UNAVAILABLE}
    assert {failure.error.executed for failure in failures} == {UNKNOWN}
    assert after.error.executed == NO


async def test_what_never_left_has_not_run() -> None:
    """When a broker that reads nothing dies, calls still in the outbox fail as executed=no, those before as unknown."""
    broker = ScriptedBroker(silent)
    async with open_pipe(broker) as pipe:
        broker.is_frozen = True
        # 24 MiB: far more than gRPC takes for a peer that does not read.
        large = [request("x" * 16_000) for _ in range(1500)]
        calls = [asyncio.create_task(pipe.execute(each, api_key="k", timeout_s=60)) for each in large]
        await until(lambda: bool(broker.executed))
        await broker.die()
        executed = [(await failure_of(call)).error.executed for call in calls]
    assert executed[0] == UNKNOWN
    assert executed[-1] == NO
    assert executed == sorted(executed, reverse=True), "written in the order of the calls"


async def test_a_frozen_broker_is_noticed() -> None:
    """A broker that falls silent without closing its socket fails the calls when its heartbeat timeout has passed."""
    broker = ScriptedBroker(silent)
    broker.welcome.heartbeat_interval_s = 0.1
    broker.welcome.heartbeat_timeout_s = 1.0
    async with open_pipe(broker) as pipe:
        call = asyncio.create_task(pipe.execute(request(), api_key="k", timeout_s=60))
        await until(lambda: bool(broker.executed))
        broker.is_frozen = True
        failure = await failure_of(call)
        assert pipe.state is PipeState.ENDED
    assert failure.error.executed == UNKNOWN


async def test_heartbeats_keep_an_idle_pipe_open() -> None:
    """A pipe that carries nothing lives past the heartbeat timeout, since both sides talk."""
    broker = ScriptedBroker(answered)
    broker.welcome.heartbeat_interval_s = 0.1
    broker.welcome.heartbeat_timeout_s = 3.0
    async with open_pipe(broker) as pipe:
        await asyncio.sleep(3.2)
        assert pipe.state is PipeState.OPEN
        assert broker.heartbeats > 2


@pytest.mark.parametrize("seconds", [float("nan"), float("-inf"), 0.0])
async def test_no_welcome_makes_a_pipe_flood_its_broker(seconds: float) -> None:
    """Whatever interval it gives, heartbeats come at most twenty times a second."""
    broker = ScriptedBroker(answered)
    broker.welcome.heartbeat_interval_s = seconds
    async with open_pipe(broker) as pipe:
        began = monotonic()
        await until(lambda: broker.heartbeats >= 4)
        assert pipe.state is PipeState.OPEN
        assert broker.heartbeats <= 20 * (monotonic() - began) + 1


async def test_a_pipe_that_was_told_to_leave_finishes_its_calls() -> None:
    """After GoAway an open call is still answered, a new one is refused as executed=no, and the pipe ends by itself."""
    broker = ScriptedBroker(silent)
    async with open_pipe(broker) as pipe:
        call = asyncio.create_task(pipe.execute(request("first"), api_key="k", timeout_s=10))
        await until(lambda: bool(broker.executed))
        await broker.say(pb.ReplyFrame(go_away=GoAway(reason="draining", reconnect_after_s=7)))
        await until(lambda: pipe.state is PipeState.LEAVING)
        refused = await failure_of(pipe.execute(request(), api_key="k", timeout_s=10))
        await broker.say(*answered(broker.executed[0]))
        assert (await call).result.stdout == b"first"
        await until(lambda: pipe.state is PipeState.ENDED)
        assert pipe.reconnect_after_s == 7
    assert refused.error.executed == NO


@pytest.mark.parametrize(
    "first_reply",
    [
        pytest.param(pb.ReplyFrame(heartbeat_ack=HeartbeatAck()), id="another frame"),
        pytest.param(pb.ReplyFrame(), id="an empty frame"),
    ],
)
async def test_a_pipe_begins_with_a_welcome(first_reply: pb.ReplyFrame) -> None:
    """A peer that answers PipeHello with anything else is no broker."""
    broker = ScriptedBroker(answered)
    broker.first_reply = first_reply
    channel = open_channel(await broker.start())
    failure = await failure_of(Pipe.open(channel, client="test"))
    await channel.close()
    await broker.die()
    assert failure.reason is Reason.BROKER_UNAVAILABLE
    assert failure.error.executed == NO


async def test_bytes_that_are_no_message_end_the_pipe() -> None:
    """A peer that does not speak the contract costs its own stream: BROKER_UNAVAILABLE, and no crash."""

    async def babble(_requests: Any, context: Any) -> None:
        await context.read()
        await context.write(b"\xff\xff\xff")
        await asyncio.sleep(10)

    server = grpc.aio.server()
    rpc = grpc.stream_stream_rpc_method_handler(babble)  # type: ignore[arg-type]
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("openline.v1.CommandService", {"Pipe": rpc})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = open_channel(Address(f"127.0.0.1:{port}"))
    failure = await failure_of(Pipe.open(channel, client="test"))
    await channel.close()
    await server.stop(0)
    assert failure.reason is Reason.BROKER_UNAVAILABLE


async def test_a_peer_shows_who_it_is_and_sees_whom_it_speaks_to() -> None:
    """A replica's proof goes along as metadata, and the other one's comes with the welcome."""
    broker = ScriptedBroker(answered)
    broker.welcome.peer_proof = b"theirs"
    channel = open_channel(await broker.start())
    shown: list[pb.PipeWelcome] = []
    pipe = await Pipe.open(channel, client="test", metadata=(("proof-bin", b"ours"),), check_welcome=shown.append)
    assert [welcome.peer_proof for welcome in shown] == [b"theirs"]
    assert broker.metadata["proof-bin"] == b"ours"
    assert pipe.state is PipeState.OPEN
    running = asyncio.create_task(pipe.run())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await channel.close()
    await broker.die()


async def test_a_peer_without_proof_gets_no_pipe() -> None:
    """What the check raises is raised by `open`, and the stream is ended: nothing is ever asked of such a peer."""
    broker = ScriptedBroker(answered)
    opened: list[Pipe] = []

    class Seen(Pipe):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            opened.append(self)

    def distrust(_welcome: pb.PipeWelcome) -> None:
        raise OpenlineError(error(Reason.UNAUTHENTICATED, "no proof"))

    channel = open_channel(await broker.start())
    failure = await failure_of(Seen.open(channel, client="test", check_welcome=distrust))
    assert failure.reason is Reason.UNAUTHENTICATED
    assert opened[0].state is PipeState.ENDED
    await until(lambda: broker.pipes_ended == 1)
    await channel.close()
    await broker.die()


async def test_a_forwarded_frame_says_for_whom_and_shows_no_key() -> None:
    """The origin has checked the caller; its key stays there."""
    broker = ScriptedBroker(answered)
    forwarded = pb.Forwarded(origin_replica_id="a", identity=Identity(owner="me", scopes=["execute"]))
    async with open_pipe(broker) as pipe:
        await pipe.execute(request(), forwarded=forwarded, api_key="k", timeout_s=10)
        await pipe.execute(request(), api_key="k", timeout_s=10)
    assert [(frame.forwarded, frame.api_key) for frame in broker.executed] == [(forwarded, ""), (pb.Forwarded(), "k")]
    assert not broker.executed[1].HasField("forwarded")


# Several replicas


async def test_the_first_address_is_preferred() -> None:
    """While the first replica is healthy the second one is not asked."""
    first, second = ScriptedBroker(answered), ScriptedBroker(answered)
    async with pipes_to(first, second) as pipes:
        for _ in range(10):
            await pipes.execute(request(), api_key="k", timeout_s=10)
    assert (len(first.executed), len(second.executed)) == (10, 0)


async def test_another_replica_serves_when_one_is_gone() -> None:
    """After the first replica died calls go to the second, and back when the first has returned."""
    first, second = ScriptedBroker(answered), ScriptedBroker(answered)
    async with pipes_to(first, second) as pipes:
        port = pipes.replicas[0].address.port
        await first.die()
        await until(lambda: not pipes.replicas[0].is_connected)
        await pipes.execute(request(), api_key="k", timeout_s=10)
        assert len(second.executed) == 1
        await first.start(port)
        await until(lambda: pipes.replicas[0].is_connected)
        await pipes.execute(request(), api_key="k", timeout_s=10)
    assert (len(first.executed), len(second.executed)) == (1, 1)


async def test_a_quiet_replica_is_not_asked_first() -> None:
    """A replica that stopped answering heartbeats is passed over before it counts as frozen."""
    first, second = ScriptedBroker(answered), ScriptedBroker(answered)
    first.welcome.heartbeat_interval_s = 0.1
    async with pipes_to(first, second) as pipes:
        first.is_frozen = True
        pipe = pipes.replicas[0].pipe
        assert pipe is not None
        await until(lambda: pipe.is_quiet)
        await pipes.execute(request(), api_key="k", timeout_s=10)
        assert pipes.in_order()[0] is pipes.replicas[1]
    assert (len(first.executed), len(second.executed)) == (0, 1)


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(error(Reason.CLUSTER_OFFLINE, "?"), id="the cluster is absent everywhere"),
        pytest.param(error(Reason.EXECUTOR_LOST, "?"), id="its executor is lost"),
        pytest.param(error(Reason.POLICY_DENIED, "?"), id="it is denied everywhere"),
        pytest.param(error(Reason.CLUSTER_BUSY, "?"), id="the cluster is busy everywhere"),
    ],
)
async def test_some_failures_are_told_at_once(failure: command_pb2.Error) -> None:
    """Every replica knows every cluster: what one of them answers is never asked of another one."""
    first, second = ScriptedBroker(refusing(failure)), ScriptedBroker(answered)
    async with pipes_to(first, second) as pipes:
        told = await failure_of(pipes.execute(request(), api_key="k", timeout_s=10))
    assert told.error == failure
    assert second.executed == []


@pytest.mark.parametrize("key", ["", "once"])
async def test_a_command_whose_replica_is_killed_is_attached_to_on_another(key: str) -> None:
    """The second replica is asked for the same command, to attach, with the time that is left; one answer comes."""
    first, second = ScriptedBroker(silent), ScriptedBroker(answered)
    asked = request(timeout_s=20)
    asked.idempotency_key = key
    async with pipes_to(first, second) as pipes:
        began = monotonic()
        call = asyncio.create_task(pipes.execute(asked, api_key="k", timeout_s=30))
        await until(lambda: bool(first.executed))
        await asyncio.sleep(0.05)
        await first.die()
        response = await call
        took_s = monotonic() - began
    assert response.result.command_id == asked.command_id
    [there], [here] = first.executed, second.executed
    assert (there.execute, there.execute.attach) == (asked, False)
    assert (here.execute.command_id, here.execute.idempotency_key, here.api_key) == (asked.command_id, key, "k")
    assert here.execute.attach
    assert 0.04 < asked.timeout_s - here.execute.timeout_s < took_s


async def test_a_command_that_never_left_is_asked_again_as_it_was() -> None:
    """A replica that refuses because it leaves costs nothing, and nobody is asked to attach to what is nowhere."""
    first, second = ScriptedBroker(leaving), ScriptedBroker(answered)
    asked = request()
    async with pipes_to(first, second) as pipes:
        await pipes.execute(asked, api_key="k", timeout_s=30)
    [frame] = second.executed
    assert (frame.execute.command_id, frame.execute.attach) == (asked.command_id, False)


async def test_only_what_may_have_left_is_attached_to() -> None:
    """Of many commands on the way to a replica that dies, those still here are simply run by the other one."""
    first, second = ScriptedBroker(silent), ScriptedBroker(answered)
    async with pipes_to(first, second) as pipes:
        first.is_frozen = True
        # 24 MiB: far more than gRPC takes for a peer that does not read.
        large = [request("x" * 16_000, timeout_s=60) for _ in range(1500)]
        calls = [asyncio.create_task(pipes.execute(each, api_key="k", timeout_s=60)) for each in large]
        await until(lambda: bool(first.executed))
        await first.die()
        await asyncio.gather(*calls)
    attached = {frame.execute.command_id: frame.execute.attach for frame in second.executed}
    assert len(second.executed) == len(attached) == len(large)
    assert all(attached[frame.execute.command_id] for frame in first.executed)
    assert not attached[large[-1].command_id]


async def test_a_frozen_replicas_commands_are_attached_to_on_another() -> None:
    """Silence is noticed and is no different from a broken stream."""
    first, second = ScriptedBroker(silent), ScriptedBroker(answered)
    first.welcome.heartbeat_interval_s = 0.1
    first.welcome.heartbeat_timeout_s = 1.0
    async with pipes_to(first, second) as pipes:
        call = asyncio.create_task(pipes.execute(request(), api_key="k", timeout_s=30))
        await until(lambda: bool(first.executed))
        first.is_frozen = True
        await call
    assert [frame.execute.attach for frame in second.executed] == [True]


async def test_what_may_have_run_stays_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a replica broke under a command, others that cannot take it make nothing sure, not until the deadline."""
    first, second = ScriptedBroker(silent), ScriptedBroker(leaving)
    async with pipes_to(first, second) as pipes:
        call = asyncio.create_task(pipes.execute(request(timeout_s=30), api_key="k", timeout_s=60))
        await until(lambda: bool(first.executed))
        await first.die()
        await until(lambda: bool(second.executed))
        # First the command's own time is up, then that for its answer.
        monkeypatch.setattr("openline.pipes.monotonic", lambda: monotonic() + 40)
        await until(lambda: second.executed[-1].execute.timeout_s < 1)
        monkeypatch.setattr("openline.turns.monotonic", lambda: monotonic() + 80)
        failure = await failure_of(call)
    assert (failure.reason, failure.error.executed) == (Reason.BROKER_UNAVAILABLE, UNKNOWN)
    assert {frame.execute.attach for frame in second.executed} == {True}
    assert min(frame.execute.timeout_s for frame in second.executed) > 0, "never the default"


@pytest.mark.parametrize(
    ("reason", "executed"),
    [(Reason.STORE_UNAVAILABLE, UNKNOWN), (Reason.CLUSTER_UNKNOWN, UNKNOWN), (Reason.CLUSTER_OFFLINE, NO)],
)
async def test_a_refusal_to_attach_says_nothing_of_the_command(
    reason: Reason, executed: command_pb2.Executed.ValueType
) -> None:
    """A replica that could not look for it knows of its own request only; one that looked is believed."""
    first, second = ScriptedBroker(silent), ScriptedBroker(refusing(error(reason, "no", executed=NO)))
    async with pipes_to(first, second) as pipes:
        call = asyncio.create_task(pipes.execute(request(), api_key="k", timeout_s=30))
        await until(lambda: bool(first.executed))
        await first.die()
        failure = await failure_of(call)
    assert (failure.reason, failure.error.executed) == (reason, executed)


async def test_replicas_that_refuse_are_asked_again_after_a_pause() -> None:
    """Until one takes the command: a rolling restart shows no error, and no storm."""
    refusals = 0

    def hesitant(frame: pb.CallerFrame) -> list[pb.ReplyFrame]:
        nonlocal refusals
        refusals += 1
        return leaving(frame) if refusals < 6 else answered(frame)

    brokers = ScriptedBroker(hesitant), ScriptedBroker(hesitant)
    asked = request()
    async with pipes_to(*brokers) as pipes:
        assert (await pipes.execute(asked, api_key="k", timeout_s=30)).result.command_id == asked.command_id
    assert [len(broker.executed) for broker in brokers] == [3, 3]


@pytest.mark.parametrize("is_answer", [False, True])
async def test_a_replica_may_have_lost_the_one_that_it_asked(is_answer: bool) -> None:
    """BROKER_UNAVAILABLE from a replica, as an error or as a result, is as good as a broken stream."""
    lost = error(Reason.BROKER_UNAVAILABLE, "the peer is gone", executed=UNKNOWN)

    def script(frame: pb.CallerFrame) -> list[pb.ReplyFrame]:
        if not is_answer:
            return refusing(lost)(frame)
        result = command_pb2.CommandResult(outcome=command_pb2.OUTCOME_LOST, error=lost)
        return [pb.ReplyFrame(call_id=frame.call_id, response=pb.ExecuteResponse(result=result))]

    first, second = ScriptedBroker(script), ScriptedBroker(answered)
    async with pipes_to(first, second) as pipes:
        await pipes.execute(request(), api_key="k", timeout_s=30)
    assert [frame.execute.attach for frame in second.executed] == [True]


async def test_without_any_replica_the_time_of_the_command_is_waited_for_one() -> None:
    """What never left has surely not run; the time that is meant for the answer is not waited as well."""
    nobody = ScriptedBroker(answered)
    address = await nobody.start()
    await nobody.die()
    async with Pipes([address], client="test") as pipes, asyncio.timeout(20):
        began_at = asyncio.get_running_loop().time()
        failure = await failure_of(pipes.execute(request(timeout_s=0.3), api_key="k", timeout_s=60))
        assert asyncio.get_running_loop().time() - began_at >= 0.29
    assert failure.reason is Reason.BROKER_UNAVAILABLE
    assert failure.error.executed == NO


async def test_a_replica_that_is_back_in_time_shows_no_error() -> None:
    """No replica for a second, then one: what waits is asked once, the command under way with `attach`."""
    broker = ScriptedBroker(silent)
    async with pipes_to(broker) as pipes:
        under_way = asyncio.create_task(pipes.execute(request("first"), api_key="k", timeout_s=30))
        await until(lambda: bool(broker.executed))
        await broker.die()
        await until(lambda: not pipes.replicas[0].is_connected)
        waiting = asyncio.create_task(pipes.execute(request("second"), api_key="k", timeout_s=30))
        await asyncio.sleep(1)
        broker.script = answered
        await broker.start(pipes.replicas[0].address.port)
        ran = [response.result.stdout for response in await asyncio.gather(under_way, waiting)]
    assert ran == [b"first", b"second"]
    assert [(frame.execute.argv[0], frame.execute.attach) for frame in broker.executed[1:]] == [
        ("first", True), ("second", False),
    ]  # fmt: skip


async def test_a_caller_that_leaves_while_it_waits_leaves_nothing() -> None:
    """Cancelled between two replicas, no call is open and none is opened."""
    broker = ScriptedBroker(leaving)
    async with pipes_to(broker) as pipes:
        call = asyncio.create_task(pipes.execute(request(), api_key="k", timeout_s=30))
        await until(lambda: len(broker.executed) >= 3)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.sleep(0.5)  # one may have been on its way
        asked = len(broker.executed)
        await asyncio.sleep(0.5)
        assert len(broker.executed) == asked
        assert "calls=0" in repr(pipes)


async def test_pipes_that_were_closed_keep_no_connection_open() -> None:
    """gRPC closes a connection when nothing holds a call that it carried, not when the channel is closed."""
    broker = ScriptedBroker(answered)
    async with Pipes([await broker.start()], client="test") as pipes:
        await until(lambda: pipes.replicas[0].is_connected)
        assert connections_to(pipes.replicas[0].address) == 1

    gc.collect()  # what an exception and its frames hold has been dropped, and lies about in cycles

    async with asyncio.timeout(10):
        while connections_to(pipes.replicas[0].address):
            await asyncio.sleep(0.01)
    await broker.die()


def connections_to(address: Address) -> int:
    """Of this process, as the one who dialled."""
    tables = [Path("/proc/self/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    port = f":{int(address.rpartition(':')[2]):04X}"
    rows = [line.split() for table in tables for line in table]
    return sum(row[2].endswith(port) and row[3] == ESTABLISHED for row in rows)


async def test_a_call_waits_for_a_pipe_that_is_just_being_opened() -> None:
    """A call made before the first pipe is open goes out when it is."""
    broker = ScriptedBroker(answered)
    async with Pipes([await broker.start()], client="test") as pipes:
        response = await pipes.execute(request(), api_key="k", timeout_s=10)
    await broker.die()
    assert response.result.stdout == b"get pods"


async def test_leaving_replicas_get_no_new_calls() -> None:
    """After a replica's GoAway the next call goes to another one, and its own call is finished."""
    first, second = ScriptedBroker(silent), ScriptedBroker(answered)
    async with pipes_to(first, second) as pipes:
        call = asyncio.create_task(pipes.execute(request(), api_key="k", timeout_s=10))
        await until(lambda: bool(first.executed))
        await first.say(pb.ReplyFrame(go_away=GoAway(reason="draining", reconnect_after_s=60)))
        await until(lambda: not pipes.replicas[0].is_connected)
        await pipes.execute(request(), api_key="k", timeout_s=10)
        await first.say(*answered(first.executed[0]))
        await call
        assert (len(first.executed), len(second.executed)) == (1, 1)


async def test_a_replica_that_restarts_in_place_shows_no_error() -> None:
    """With one address, calls after GoAway wait for the next pipe, which opens while the last one still has a call."""
    broker = ScriptedBroker(silent)
    async with pipes_to(broker) as pipes:
        first = asyncio.create_task(pipes.execute(request("first"), api_key="k", timeout_s=30))
        await until(lambda: bool(broker.executed))
        old = broker.context
        await broker.say(pb.ReplyFrame(go_away=GoAway(reason="draining", reconnect_after_s=1)))
        await until(lambda: not pipes.replicas[0].is_connected)
        broker.script = answered
        second = asyncio.create_task(pipes.execute(request("second"), api_key="k", timeout_s=30))
        assert (await second).result.stdout == b"second"
        assert not first.done()
        await old.write(pb.PipeResponse(frames=answered(broker.executed[0])))
        assert (await first).result.stdout == b"first"
    assert broker.pipes_opened == 2


@pytest.mark.parametrize(("asked_s", "least_s"), [(1.5, 1.5), (0.0, 1.0)])
async def test_a_replica_that_leaves_is_left_alone(asked_s: float, least_s: float) -> None:
    """No pipe is opened to it before the time it gave, nor at once where it gave none; even with nothing to finish."""
    broker = ScriptedBroker(answered)
    async with pipes_to(broker) as pipes:
        loop = asyncio.get_running_loop()
        left_at = loop.time()
        await broker.say(pb.ReplyFrame(go_away=GoAway(reason="draining", reconnect_after_s=asked_s)))
        await until(lambda: not pipes.replicas[0].is_connected)
        await pipes.execute(request(), api_key="k", timeout_s=30)
        assert loop.time() - left_at >= least_s
