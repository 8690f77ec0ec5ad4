"""Pipe and Pipes against brokers that do what a test tells them to: what the real one never does, or not on demand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from openline.asking import CLAIMED
from openline.channels import SERVER_OPTIONS, open_channel
from openline.errors import OpenlineError, error
from openline.ids import new_id
from openline.pipe import Pipe, PipeState
from openline.pipes import Pipes
from openline.reasons import NO, UNKNOWN, Reason
from openline.settings import Address
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1.command_service_pb2_grpc import CommandServiceServicer, add_CommandServiceServicer_to_server
from openline.v1.executor_service_pb2 import GoAway, HeartbeatAck

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


def offline(last_seen: str = "") -> Script:
    metadata = {"last_seen": last_seen} if last_seen else {}
    return refusing(error(Reason.CLUSTER_OFFLINE, "not connected", metadata=metadata))


class ScriptedBroker(CommandServiceServicer):
    """Speaks the handshake and heartbeats; the rest is the script's."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.welcome = pb.PipeWelcome(
            protocol_version=1, replica_id="scripted", heartbeat_interval_s=0.1, heartbeat_timeout_s=5.0
        )
        self.is_frozen = False
        self.first_reply: pb.ReplyFrame | None = None
        self.pipes_opened = 0
        self.executed: list[pb.CallerFrame] = []
        self.abandoned: list[int] = []
        self._context: Any = None
        self._server: grpc.aio.Server | None = None

    async def start(self, port: int = 0) -> Address:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        add_CommandServiceServicer_to_server(self, self._server)
        bound = self._server.add_insecure_port(f"127.0.0.1:{port}")
        await self._server.start()
        return Address(f"127.0.0.1:{bound}")

    async def die(self) -> None:
        """Ends every stream at once, as a killed process does."""
        assert self._server is not None
        await self._server.stop(0)

    async def Pipe(self, _requests: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        self.pipes_opened += 1
        self._context = context
        await context.read()
        await self.say(self.first_reply or pb.ReplyFrame(welcome=self.welcome))
        while (message := await context.read()) is not grpc.aio.EOF:
            replies: list[pb.ReplyFrame] = []
            for frame in message.frames:
                match frame.WhichOneof("frame"):
                    case "heartbeat":
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
        await self._context.write(pb.PipeResponse(frames=frames))


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
        failure = await failure_of(pipe.execute(request(), api_key="k", timeout_s=0.05))
        await until(lambda: bool(broker.abandoned))
    assert failure.reason is Reason.BROKER_UNAVAILABLE
    assert failure.error.executed == UNKNOWN


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
    broker.welcome.heartbeat_timeout_s = 0.3
    async with open_pipe(broker) as pipe:
        broker.is_frozen = True
        failure = await failure_of(pipe.execute(request(), api_key="k", timeout_s=60))
        assert pipe.state is PipeState.ENDED
    assert failure.error.executed == UNKNOWN


async def test_heartbeats_keep_an_idle_pipe_open() -> None:
    """A pipe that carries nothing lives past the heartbeat timeout, since both sides talk."""
    broker = ScriptedBroker(answered)
    broker.welcome.heartbeat_timeout_s = 0.4
    async with open_pipe(broker) as pipe:
        await asyncio.sleep(0.8)
        assert pipe.state is PipeState.OPEN
        assert not pipe.is_quiet


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
    async with pipes_to(first, second) as pipes:
        first.is_frozen = True
        pipe = pipes.replicas[0].pipe
        assert pipe is not None
        await until(lambda: pipe.is_quiet)
        await pipes.execute(request(), api_key="k", timeout_s=10)
        assert pipes.in_order()[0] is pipes.replicas[1]
    assert (len(first.executed), len(second.executed)) == (0, 1)


async def test_an_absent_cluster_may_be_connected_to_another_replica() -> None:
    """CLUSTER_OFFLINE from one replica is asked of the next: the same command, with less time."""
    first, second = ScriptedBroker(offline()), ScriptedBroker(answered)
    asked = request()
    async with pipes_to(first, second) as pipes:
        response = await pipes.execute(asked, api_key="k", timeout_s=10)
    assert response.result.command_id == asked.command_id
    [there], [here] = first.executed, second.executed
    assert there.execute == asked
    assert here.execute.command_id == asked.command_id
    assert here.execute.timeout_s < asked.timeout_s


async def test_the_command_of_a_key_may_run_at_another_replica() -> None:
    """The claim, which all replicas share, keeps it from running twice; that one does not know it is not its end."""
    claimed = refusing(error(Reason.EXECUTOR_LOST, "?", metadata={CLAIMED: new_id()}))
    first, second = ScriptedBroker(claimed), ScriptedBroker(answered)
    async with pipes_to(first, second) as pipes:
        response = await pipes.execute(request(), api_key="k", timeout_s=10)
        assert response.result.outcome == command_pb2.OUTCOME_EXITED
        second.script = offline()
        failure = await failure_of(pipes.execute(request(), api_key="k", timeout_s=10))
    assert (failure.reason, failure.error.executed) == (Reason.EXECUTOR_LOST, UNKNOWN)


async def test_the_most_telling_answer_is_told() -> None:
    """Of two failures the caller is told the one that knows when the cluster was last seen."""
    seen = "2026-01-02T03:04:05Z"
    unreachable = refusing(error(Reason.BROKER_UNAVAILABLE, "leaving", executed=NO))
    for scripts in ([unreachable, offline(seen)], [offline(seen), unreachable], [offline(), offline(seen)]):
        async with pipes_to(*(ScriptedBroker(script) for script in scripts)) as pipes:
            failure = await failure_of(pipes.execute(request(), api_key="k", timeout_s=10))
        assert failure.reason is Reason.CLUSTER_OFFLINE
        assert failure.error.metadata["last_seen"] == seen


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(error(Reason.BROKER_UNAVAILABLE, "?", executed=UNKNOWN), id="it may have run"),
        pytest.param(error(Reason.EXECUTOR_LOST, "?"), id="its executor is lost"),
        pytest.param(error(Reason.POLICY_DENIED, "?"), id="it is denied everywhere"),
        pytest.param(error(Reason.CLUSTER_BUSY, "?"), id="the cluster is busy everywhere"),
    ],
)
async def test_some_failures_are_told_at_once(failure: command_pb2.Error) -> None:
    """What may have run, or would be answered the same anywhere, is never asked of another replica."""
    first, second = ScriptedBroker(refusing(failure)), ScriptedBroker(answered)
    async with pipes_to(first, second) as pipes:
        told = await failure_of(pipes.execute(request(), api_key="k", timeout_s=10))
    assert told.error == failure
    assert second.executed == []


async def test_a_call_that_was_lost_with_its_replica_is_not_sent_again() -> None:
    """A replica killed while it runs a command: executed=unknown is told, and nobody else gets the command."""
    first, second = ScriptedBroker(silent), ScriptedBroker(answered)
    async with pipes_to(first, second) as pipes:
        call = asyncio.create_task(pipes.execute(request(), api_key="k", timeout_s=30))
        await until(lambda: bool(first.executed))
        await first.die()
        told = await failure_of(call)
        # The next one finds the healthy replica.
        await pipes.execute(request(), api_key="k", timeout_s=10)
    assert told.error.executed == UNKNOWN
    assert len(second.executed) == 1


async def test_without_any_broker_the_wait_is_short() -> None:
    """A call made while no replica can be reached fails as executed=no, soon, and not at once."""
    nobody = ScriptedBroker(answered)
    address = await nobody.start()
    await nobody.die()
    async with Pipes([address], client="test") as pipes, asyncio.timeout(5):
        failure = await failure_of(pipes.execute(request(), api_key="k", timeout_s=60))
    assert failure.reason is Reason.BROKER_UNAVAILABLE
    assert failure.error.executed == NO


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
