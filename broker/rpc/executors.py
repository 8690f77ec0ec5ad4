"""ExecutorService: the life of one Connect stream, from Hello to its end."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import grpc
import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.connections import Connection, Connections
from broker.core.credentials import Credentials
from broker.core.directory import Directory
from broker.core.introduced import MAX_DESCRIPTION_BYTES, leave_out_labels
from broker.core.ledger import Outdated
from broker.core.proof import Proof
from broker.core.suspicion import Kind
from broker.core.tokens import Token
from broker.crowding import Crowding
from broker.dispatcher import Dispatcher, Replaced
from broker.opening import Opening
from broker.refusals import Refusals
from broker.rivals import Rivals
from broker.rpc.handshake import accept
from broker.rpc.hello import hear
from broker.rpc.holdings import Holdings
from broker.rpc.identity import clusters_of
from broker.rpc.service import abort_stream, credential
from broker.streams import Stream
from openline import errors, limits
from openline.outbox import Overflow
from openline.reasons import NO, Reason, reason_of
from openline.stream import FrameStream, StreamFrozen, StreamGarbled
from openline.v1 import command_pb2, executor_service_pb2

Context = grpc.aio.ServicerContext[executor_service_pb2.ConnectRequest, executor_service_pb2.ConnectResponse]
BrokerFrame = executor_service_pb2.BrokerFrame

# No executor starts so many processes; what it says beyond this would only move the queue from here to there.
MAX_CONCURRENCY = 4096
# Among so many, heartbeats are answered together.
MANY_STREAMS = 200
ACK_WITHIN_S = 0.25

log = structlog.get_logger()


class ExecutorService:
    """Each call of Connect is one connection; it owns the stream and is the stream's one task."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        connections: Connections,
        directory: Directory,
        credentials: Credentials,
        proof: Proof,
        opening: Opening,
        refusals: Refusals,
        rivals: Rivals,
        *,
        replica_id: str,
    ) -> None:
        self._dispatcher = dispatcher
        self._crowding = Crowding(connections)
        self._directory = directory
        self._holdings = Holdings(proof)
        self._credentials = credentials
        self._opening = opening
        self._refusals = refusals
        self._rivals = rivals
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
        hello, rest = await hear(stream, self._opening)
        refusal: command_pb2.Error | None = None
        try:
            self._admit(hello, context)
        except errors.OpenlineError as failure:
            refusal = failure.error
        if refusal is not None:
            del hello, rest  # they may have megabytes, and many may be held back
            if reason_of(refusal) is Reason.UNAUTHENTICATED:
                await self._refusals.hold(Kind.EXECUTOR_TOKEN, peer=context.peer())
            raise errors.OpenlineError(refusal)
        await accept(context)
        # Again: a token that was revoked meanwhile has closed the streams that were known then; a drain moved those.
        connection = self._connection(hello, self._admit(hello, context))
        lines = log.bind(**connection.names)
        try:
            self._dispatcher.connected(
                connection,
                stream,
                in_flight=hello.in_flight_ids,
                unacked=hello.unacked_ids,
                held=self._holdings.read(hello),
                welcome=lambda verdicts: self._welcome(connection, verdicts),
            )
        except Outdated as refusal:
            self._rivals.met(connection)
            lines.info("connection.refused", peer=context.peer(), why=str(refusal))
            await abort_stream(context, str(refusal))
        self._dispatcher.tally.connected(again=hello.last_epoch > 0)
        lines.info(
            "connection.opened",
            peer=context.peer(),
            version=connection.versions.executor,
            protocol=connection.versions.protocol,
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
            self._rivals.met(connection)
            lines.info("connection.closed", why=why, unknown_frames=connection.unknown_frames)
        await abort_stream(context, why)

    def _admit(self, hello: executor_service_pb2.Hello, context: Context) -> Token | None:
        """The token that lets the executor in, or None for a certificate that does.

        Raises as `check_executor`, `Crowding.check` and `Holdings.check`, and BROKER_UNAVAILABLE while draining.
        """
        token = None
        if hello.cluster_id not in self._credentials.certified & clusters_of(context):
            token = self._check(hello.cluster_id, credential(context))
        if self.is_draining:
            draining = errors.error(Reason.BROKER_UNAVAILABLE, "this replica takes no executors", executed=NO)
            raise errors.OpenlineError(draining)
        self._crowding.check(hello.cluster_id, hello.executor_id)
        self._holdings.check(hello)
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
            attempt=hello.attempt,
            token=b"" if token is None else token.digest,
        )

    def _welcome(self, connection: Connection, verdicts: Sequence[executor_service_pb2.Verdict]) -> BrokerFrame:
        welcome = executor_service_pb2.Welcome(
            protocol_version=connection.versions.protocol,
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
                case None:  # of a newer version of the contract
                    connection.unknown_frames += 1
                    self._dispatcher.tally.unknown_frames += 1
                case "hello":
                    raise errors.OpenlineError(errors.error(Reason.PROTOCOL_VIOLATION, "a second Hello"))
                case "heartbeat":
                    self._acknowledge(stream, frame.heartbeat.seq)
                case "draining":
                    connection.draining = True
                case "capabilities":
                    # Other replicas hear of it when presence is refreshed.
                    if frame.capabilities.ByteSize() <= MAX_DESCRIPTION_BYTES:
                        leave_out_labels(frame.capabilities)
                        connection.capabilities = frame.capabilities
                case "credential":
                    self._renew(connection, frame.credential.token)
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

    def _renew(self, connection: Connection, token: str) -> None:
        """Goes by the fresh token from now on; by the old one if that is wrong, for as long as it is good itself."""
        try:
            connection.token = self._check(connection.cluster_id, token).digest
        except errors.OpenlineError as refusal:
            if refusal.reason is Reason.UNAUTHENTICATED:
                self._refusals.count(Kind.EXECUTOR_TOKEN, peer=f"{connection.cluster_id}/{connection.executor_id}")
            if not connection.token_refused:  # one line, however often it is shown again
                log.warning("credential.refused", **connection.names, why=str(refusal))
            connection.token_refused = True
        else:
            connection.token_refused = False
