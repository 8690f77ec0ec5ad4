"""The Pipe of CommandService: one stream to a gateway, a script or another replica, from its Hello to its end."""

import time
from typing import Any

import grpc
import structlog

from broker.core.credentials import Credentials
from broker.core.proof import METADATA_KEY, Proof
from broker.executions import Executions
from broker.lasting import LastingCalls
from broker.lookups import Lookups
from broker.opening import Opening
from broker.refusals import Refusals
from broker.rpc.calls import Calls, Stream
from broker.rpc.handshake import accept, first_frames, version_for, violation
from broker.rpc.parties import Asker
from broker.rpc.service import abort_stream, credential, shown
from openline import errors, limits
from openline.outbox import Overflow
from openline.reasons import NO, Reason
from openline.stream import FrameStream, StreamFrozen, StreamGarbled
from openline.v1 import command_service_pb2 as pb
from openline.v1 import executor_service_pb2

# It is for the logs.
MAX_CLIENT_CHARACTERS = 200
# Pipes on which nobody has shown a good key yet; to open one takes none. Beyond this the oldest makes room.
MAX_STRANGERS = 1_000

log = structlog.get_logger()


class Pipes:
    """Every pipe of this replica."""

    def __init__(
        self,
        executions: Executions,
        lookups: Lookups,
        credentials: Credentials,
        lasting: LastingCalls,
        proof: Proof,
        opening: Opening,
        refusals: Refusals,
        *,
        replica_id: str,
    ) -> None:
        self.executions = executions
        self.lookups = lookups
        self.credentials = credentials
        self.lasting = lasting
        self.refusals = refusals
        self._proof = proof
        self._opening = opening
        self._replica_id = replica_id
        self._streams: set[Stream] = set()
        # The oldest first; some of them have shown a good key meanwhile.
        self._strangers: dict[Stream, Calls] = {}
        # What everybody is told, once the replica is stopping.
        self._leaving: executor_service_pb2.GoAway | None = None

    def __len__(self) -> int:
        return len(self._streams)

    async def carry(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Carries the calls of one gateway, script or replica until it leaves."""
        stream: Stream = FrameStream(
            read=context.read,
            write=context.write,
            pack=lambda frames: pb.PipeResponse(frames=frames),
            unpack=lambda message: message.frames,
        )
        first, *rest = await first_frames(stream, self._opening, name="PipeHello")
        version = version_for(first.hello, self._opening, peer="caller", who=first.hello.client)
        if len(client := first.hello.client) > MAX_CLIENT_CHARACTERS or not (client.isascii() and client.isprintable()):
            raise violation(f"client must have at most {MAX_CLIENT_CHARACTERS} characters, of printable ASCII")
        await accept(context)
        proof = shown(context, METADATA_KEY) or ""
        peer = self._proof.check(proof, clock_s=time.time())
        stream.send(pb.ReplyFrame(welcome=self._welcome(version, proof if peer else "")))
        if self._leaving is not None:
            stream.send(pb.ReplyFrame(go_away=self._leaving))
        calls = Calls(self, stream, Asker(key=credential(context), peer=peer, address=context.peer()))
        lines = log.bind(client=client, peer=context.peer())
        lines.info("pipe.opened", protocol=version)
        self._streams.add(stream)
        self._receive(stream, calls)
        why = "the connection was lost"
        try:
            calls.handle(rest)
            await stream.run(calls.handle, silence_s=limits.HEARTBEAT_TIMEOUT_S)
            why = "ended"
            return
        except (StreamFrozen, Overflow) as end:
            why = str(end)
        except (StreamGarbled, errors.OpenlineError) as refusal:
            why = str(refusal)
            raise
        finally:
            self._streams.discard(stream)
            self._strangers.pop(stream, None)
            await calls.close()
            lines.info("pipe.closed", why=why, unknown_frames=calls.unknown_frames)
        await abort_stream(context, why)

    def go_away(self, reason: str, *, reconnect_after_s: float = 0.0) -> None:
        """Tells every pipe's caller to move, now and when it comes back. What runs is answered on the open stream."""
        self._leaving = executor_service_pb2.GoAway(reason=reason, reconnect_after_s=reconnect_after_s)
        for stream in self._streams:
            stream.send(pb.ReplyFrame(go_away=self._leaving))

    def close(self) -> None:
        """Ends every pipe when what is queued has been written."""
        for stream in self._streams:
            stream.close()

    def _receive(self, stream: Stream, calls: Calls) -> None:
        """Another pipe is open, perhaps of a stranger."""
        self._strangers[stream] = calls
        if len(self._strangers) > MAX_STRANGERS:
            self._strangers = {each: of for each, of in self._strangers.items() if not of.is_trusted}
        if len(self._strangers) > MAX_STRANGERS:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            crowded = errors.error(Reason.BROKER_UNAVAILABLE, "too many pipes have shown no good key yet", executed=NO)
            oldest.break_off(errors.OpenlineError(crowded))

    def _welcome(self, version: int, proof: str) -> pb.PipeWelcome:
        return pb.PipeWelcome(
            protocol_version=version,
            replica_id=self._replica_id,
            heartbeat_interval_s=limits.HEARTBEAT_INTERVAL_S,
            heartbeat_timeout_s=limits.HEARTBEAT_TIMEOUT_S,
            peer_proof=self._proof.answer(proof) if proof else b"",
        )
