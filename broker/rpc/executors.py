"""ExecutorService: the life of one Connect stream, from Hello to its end."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import grpc
import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.checks import ask_of
from broker.core.connections import Connection
from broker.core.credentials import Credentials
from broker.core.directory import Directory
from broker.core.ledger import Held, Outdated
from broker.core.proof import Proof
from broker.core.tokens import Token
from broker.dispatcher import Dispatcher, Replaced
from broker.rpc.handshake import accept, first_frames, violation
from broker.rpc.identity import clusters_of
from broker.rpc.service import abort_stream, credential
from broker.streams import Stream
from openline import errors, limits
from openline.ids import is_cluster_id, is_command_id, is_token
from openline.outbox import Overflow
from openline.reasons import NO, Reason
from openline.stream import FrameStream, StreamFrozen, StreamGarbled
from openline.v1 import executor_service_pb2

Context = grpc.aio.ServicerContext[executor_service_pb2.ConnectRequest, executor_service_pb2.ConnectResponse]
BrokerFrame = executor_service_pb2.BrokerFrame

MAX_LISTED_IDS = 10_000
# No command writes so many frames.
MAX_SEQ = 1 << 48
# No executor starts so many processes; what it says beyond this would only move the queue from here to there.
MAX_CONCURRENCY = 4096
# What an executor says of itself is kept while it is connected, and written to Redis every few seconds.
MAX_DESCRIPTION_BYTES = 16 << 10
# Among so many, heartbeats are answered together.
MANY_STREAMS = 200
ACK_WITHIN_S = 0.25

log = structlog.get_logger()


class ExecutorService:
    """Each call of Connect is one connection; it owns the stream and is the stream's one task."""

    def __init__(
        self, dispatcher: Dispatcher, directory: Directory, credentials: Credentials, proof: Proof, *, replica_id: str
    ) -> None:
        self._dispatcher = dispatcher
        self._directory = directory
        self._proof = proof
        self._credentials = credentials
        self._replica_id = replica_id
        # The replica is stopping, or was told to drain: its executors are moving to others, and none comes back.
        self.is_draining = False
        # The last heartbeat on each stream that has not been answered.
        self._beats: dict[Stream, int] = {}

    async def Connect(self, _requests: Any, context: Context) -> None:  # noqa: N802
        stream: Stream = FrameStream(
            read=context.read,
            write=context.write,
            pack=lambda frames: executor_service_pb2.ConnectResponse(frames=frames),
            unpack=lambda message: message.frames,
        )
        hello, rest = await _hello(stream)
        self._admit(hello, context)
        await accept(context)
        # Again: a token that was revoked meanwhile has closed the streams that were known then; a drain moved those.
        connection = self._connection(hello, self._admit(hello, context))
        lines = log.bind(
            cluster_id=connection.cluster_id,
            executor_id=connection.executor_id,
            instance_id=connection.instance_id,
            epoch=connection.epoch,
        )
        try:
            self._dispatcher.connected(
                connection,
                stream,
                in_flight=hello.in_flight_ids,
                unacked=hello.unacked_ids,
                held=self._held(hello),
                welcome=lambda verdicts: self._welcome(connection, verdicts),
            )
        except Outdated as refusal:
            lines.warning("connection.refused", peer=context.peer(), why=str(refusal))
            await abort_stream(context, str(refusal))
        self._dispatcher.tally.connected(again=hello.last_epoch > 0)
        lines.info(
            "connection.opened",
            peer=context.peer(),
            version=connection.versions.executor,
            by="token" if connection.token else "certificate",
        )
        why = "the process stopped"
        try:
            self._handle(connection, stream, rest)
            await stream.run(
                lambda frames: self._handle(connection, stream, frames), silence_s=limits.IDLE_HEARTBEAT_TIMEOUT_S
            )
            why = "ended by the executor"
            return
        except (StreamFrozen, Overflow, Replaced) as end:
            why = str(end)
        except (errors.OpenlineError, StreamGarbled) as refusal:
            why = str(refusal)
            raise
        except (asyncio.CancelledError, grpc.aio.InternalError):
            why = "the connection was lost"
            raise
        finally:
            self._dispatcher.disconnected(connection)
            lines.info("connection.closed", why=why)
        await abort_stream(context, why)

    def _held(self, hello: executor_service_pb2.Hello) -> dict[str, Held]:
        """What the executor holds, as far as a replica of ours has sent it."""
        where = {"cluster_id": hello.cluster_id, "executor_id": hello.executor_id}
        return {
            each.execute.command_id: Held(ask_of(each.execute, hello.cluster_id), each.first_seq)
            for each in hello.held
            if is_command_id(each.execute.command_id)
            and each.first_seq <= MAX_SEQ
            and self._proof.is_sealed(each.execute, **where)
        }

    def _admit(self, hello: executor_service_pb2.Hello, context: Context) -> Token | None:
        """The token that lets the executor in, or None for a certificate that does.

        Raises as `check_executor`, and BROKER_UNAVAILABLE while draining.
        """
        token = None
        if hello.cluster_id not in self._credentials.certified & clusters_of(context):
            token = self._check(hello.cluster_id, credential(context))
        if self.is_draining:
            draining = errors.error(Reason.BROKER_UNAVAILABLE, "this replica takes no executors", executed=NO)
            raise errors.OpenlineError(draining)
        return token

    def _check(self, cluster_id: str, token: str | None) -> Token:
        return self._credentials.check_executor(cluster_id, token, clock_s=time.time())

    def _connection(self, hello: executor_service_pb2.Hello, token: Token | None) -> Connection:
        now = Timestamp()
        now.GetCurrentTime()
        return Connection(
            cluster_id=hello.cluster_id,
            executor_id=hello.executor_id,
            instance_id=hello.instance_id,
            epoch=self._directory.next_epoch(
                hello.cluster_id, hello.executor_id, last=hello.last_epoch, clock_us=time.time_ns() // 1000
            ),
            max_concurrency=min(max(1, hello.max_concurrency), MAX_CONCURRENCY),
            capabilities=hello.capabilities,
            versions=hello.versions,
            connected_at=now,
            token=b"" if token is None else token.digest,
        )

    def _welcome(self, connection: Connection, verdicts: Sequence[executor_service_pb2.Verdict]) -> BrokerFrame:
        welcome = executor_service_pb2.Welcome(
            protocol_version=limits.PROTOCOL_VERSION,
            epoch=connection.epoch,
            replica_id=self._replica_id,
            heartbeat_interval_s=limits.IDLE_HEARTBEAT_INTERVAL_S,
            heartbeat_timeout_s=limits.IDLE_HEARTBEAT_TIMEOUT_S,
            limits=executor_service_pb2.StreamLimits(
                max_frame_bytes=limits.MAX_FRAME_BYTES,
                command_credit_bytes=limits.COMMAND_CREDIT_BYTES,
                stream_credit_bytes=limits.STREAM_CREDIT_BYTES,
            ),
            reconnect=executor_service_pb2.ReconnectPolicy(min_s=limits.RECONNECT_MIN_S, max_s=limits.RECONNECT_MAX_S),
            verdicts=verdicts,
        )
        return BrokerFrame(welcome=welcome)

    def _handle(
        self, connection: Connection, stream: Stream, frames: Sequence[executor_service_pb2.ExecutorFrame]
    ) -> None:
        for frame in frames:
            match frame.WhichOneof("frame"):
                case None:
                    pass  # of a newer version of the contract
                case "hello":
                    raise errors.OpenlineError(errors.error(Reason.PROTOCOL_VIOLATION, "a second Hello"))
                case "heartbeat":
                    self._acknowledge(stream, frame.heartbeat.seq)
                case "draining":
                    connection.draining = True
                case "capabilities":
                    # Other replicas hear of it when presence is refreshed.
                    if frame.capabilities.ByteSize() <= MAX_DESCRIPTION_BYTES:
                        connection.capabilities = frame.capabilities
                case "credential":
                    connection.token = self._check(connection.cluster_id, frame.credential.token).digest
                case _:
                    self._dispatcher.received(connection, frame)

    def _acknowledge(self, stream: Stream, seq: int) -> None:
        """Where there are many, soon, with whatever came by then: to wake up and write once costs each a third less."""
        if not self._beats:
            wait_s = ACK_WITHIN_S if len(self._dispatcher.streams) >= MANY_STREAMS else 0.0
            asyncio.get_running_loop().call_later(wait_s, self._acknowledge_all)
        self._beats[stream] = seq

    def _acknowledge_all(self) -> None:
        beats, self._beats = self._beats, {}
        for stream, seq in beats.items():
            stream.send(BrokerFrame(heartbeat_ack=executor_service_pb2.HeartbeatAck(seq=seq)))


async def _hello(
    stream: Stream,
) -> tuple[executor_service_pb2.Hello, Sequence[executor_service_pb2.ExecutorFrame]]:
    """The first frame, which must be a valid Hello, and those that came with it. Raises PROTOCOL_VIOLATION."""
    first, *rest = await first_frames(stream, name="Hello")
    hello = first.hello
    wrong = [
        (name, description)
        for name, good, description in (
            ("cluster_id", is_cluster_id(hello.cluster_id), "must match [a-z0-9]([a-z0-9-]*[a-z0-9])?"),
            ("executor_id", is_token(hello.executor_id), "must be 1..200 visible ASCII characters"),
            ("instance_id", is_token(hello.instance_id), "must be 1..200 visible ASCII characters"),
            ("in_flight_ids", _are_ids(hello.in_flight_ids), f"at most {MAX_LISTED_IDS} command ids"),
            ("unacked_ids", _are_ids(hello.unacked_ids), f"at most {MAX_LISTED_IDS} command ids"),
            ("capabilities", hello.capabilities.ByteSize() <= MAX_DESCRIPTION_BYTES, "must have at most 16 KiB"),
            ("versions", hello.versions.ByteSize() <= MAX_DESCRIPTION_BYTES, "must have at most 16 KiB"),
        )
        if not good
    ]
    if wrong:
        raise violation("Hello is not valid", violations=wrong)
    return hello, rest


def _are_ids(listed: Sequence[str]) -> bool:
    return len(listed) <= MAX_LISTED_IDS and all(map(is_token, listed))
