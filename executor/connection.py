"""One connection to a broker, from Hello to its end: handshake, frames, heartbeats, GoAway.

What the frames about commands mean is `core`'s business; when to dial again is `link`'s.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
import structlog

from executor.activity import Activity
from executor.pace import sane
from executor.parties import Commands
from openline import limits, versions
from openline.outbox import Overflow
from openline.settings import Address
from openline.stream import FrameStream, StreamFrozen, StreamGarbled
from openline.v1 import executor_service_pb2 as wire
from openline.v1.executor_service_pb2_grpc import ExecutorServiceStub

# After GoAway, a broker that does not take what is queued within this is left: it is all said again to the next one.
LEAVE_S = 2.0
KNOWN_FRAMES = frozenset(field.name for field in wire.BrokerFrame.DESCRIPTOR.fields)

log = structlog.get_logger()


class NotLeft(Exception):
    """The broker said GoAway and then did not take what was still queued for it."""


class NoWelcome(Exception):
    """The peer answered Hello with something else than a Welcome of a version that it was offered."""


@dataclass(frozen=True, slots=True)
class End:
    """How a connection ended."""

    why: str
    code: grpc.StatusCode | None = None  # None: this side ended it
    lived_s: float | None = None  # since Welcome; None: it never stood
    moved: bool = False  # the broker had said GoAway
    wait_s: float = 0.0  # at least so long until the next one, as GoAway said
    unknown_frames: int = 0  # of a newer contract, ignored


class Connection:
    """One Connect call. `welcomed` is called with the Welcome when the connection stands, `active` whenever the broker
    says that the cluster is in use, `moving` when it says GoAway."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        commands: Commands,
        *,
        broker: Address,
        token: str | None,
        activity: Activity,
        welcomed: Callable[[wire.Welcome], None],
        active: Callable[[], None],
        moving: Callable[[], None] = lambda: None,
    ) -> None:
        self._commands = commands
        self._activity = activity
        self._welcomed = welcomed
        self._active = active
        self._moving = moving
        self._log = log.bind(broker=broker)
        self._loop = asyncio.get_running_loop()
        # Without one it is the certificate that counts.
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self._call = ExecutorServiceStub(channel).Connect(metadata=metadata)
        self._stream: FrameStream[wire.BrokerFrame, wire.ExecutorFrame] = FrameStream(
            read=self._call.read,
            write=self._call.write,
            done_writing=self._call.done_writing,
            pack=lambda frames: wire.ConnectRequest(frames=frames),
            unpack=lambda message: message.frames,
        )
        self._patience: asyncio.Timeout | None = None  # with the handshake
        self._stood_at: float | None = None
        self._moving_at: float | None = None  # since GoAway
        self._why = "ended by the broker"
        self._reconnect_after_s = 0.0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._beats = 0
        self._beat_s = limits.IDLE_HEARTBEAT_INTERVAL_S
        self._silence_s = limits.IDLE_HEARTBEAT_TIMEOUT_S
        self._unknown_frames = 0

    def close(self) -> None:
        """Ends `hold` when what is queued has been written; at once when there has been no Welcome yet."""
        if self._stood_at is None:
            self._call.cancel()
            # A write that waits for the call to begin does not notice that it was cancelled. A handshake that is over
            # cannot be hurried.
            if self._patience is not None:
                with contextlib.suppress(RuntimeError):
                    self._patience.reschedule(self._loop.time())
        else:
            self._close("this executor is stopping")

    def send(self, frame: wire.ExecutorFrame) -> None:
        """Puts a frame on the stream; after Welcome."""
        self._stream.send(frame)

    def _close(self, why: str) -> None:
        self._why = why
        self._stream.close()

    async def hold(self, hello: wire.Hello) -> End:
        """Holds the connection until it ends, for whatever reason; only a cancelled task raises."""
        try:
            async with asyncio.timeout(limits.HELLO_TIMEOUT_S) as self._patience:
                welcome, more = await self._shake_hands(hello)
            self._stand(welcome)
            self._received(more)
            await self._stream.run(self._received, silence_s=self._silence_s)
        except TimeoutError:
            return self._end(f"no Welcome within {limits.HELLO_TIMEOUT_S:g} s")
        except (NoWelcome, NotLeft, StreamFrozen, StreamGarbled, Overflow) as problem:
            return self._end(str(problem))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The second is what a write to a call that has just ended gets; the call knows the status.
            if not self._call.done():
                raise
            return self._end(await self._call.details(), code=await self._call.code())
        except asyncio.CancelledError:
            # Also what grpc.aio raises when the peer's status is CANCELLED, which is not our cancellation.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self._end("cancelled", code=grpc.StatusCode.CANCELLED)
        else:
            return self._end(self._why)
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._commands.disconnected()
            self._call.cancel()

    def _end(self, why: str | None, *, code: grpc.StatusCode | None = None) -> End:
        now = self._loop.time()
        return End(
            why=why or "no reason given",
            code=code,
            lived_s=None if self._stood_at is None else now - self._stood_at,
            moved=self._moving_at is not None,
            wait_s=0.0 if self._moving_at is None else max(0.0, self._moving_at + self._reconnect_after_s - now),
            unknown_frames=self._unknown_frames,
        )

    async def _shake_hands(self, hello: wire.Hello) -> tuple[wire.Welcome, Sequence[wire.BrokerFrame]]:
        """Says Hello and waits for Welcome, and writes nothing meanwhile: a status would be lost otherwise."""
        ours = versions.SPOKEN
        hello.protocol_version, hello.max_protocol_version = ours.lowest, ours.highest
        self._stream.send(wire.ExecutorFrame(hello=hello))
        await self._stream.flush()
        frames = await self._stream.receive()
        if not frames or frames[0].WhichOneof("frame") != "welcome":
            raise NoWelcome("the broker did not answer Hello with Welcome")
        welcome = frames[0].welcome
        if welcome.protocol_version not in ours:
            raise NoWelcome(f"the broker chose protocol version {welcome.protocol_version}, and was offered {ours}")
        return welcome, frames[1:]

    def _stand(self, welcome: wire.Welcome) -> None:
        self._stood_at = self._loop.time()
        self._log = self._log.bind(replica_id=welcome.replica_id, epoch=welcome.epoch)
        self._log.info("connection.opened", protocol=welcome.protocol_version)
        self._welcomed(welcome)
        self._commands.welcomed(welcome, self._stream.send)
        self._silence_s = sane(welcome.heartbeat_timeout_s, limits.IDLE_HEARTBEAT_TIMEOUT_S, low=0.1, high=300.0)
        self._beat_s = sane(welcome.heartbeat_interval_s, limits.IDLE_HEARTBEAT_INTERVAL_S, low=0.01, high=60.0)
        self._beat()

    def _beat(self) -> None:
        running, queued = self._commands.load
        self._beats += 1
        beat = wire.Heartbeat(seq=self._beats, running=running, queued=queued)
        self._stream.send(wire.ExecutorFrame(heartbeat=beat))
        self._set_beat()

    def _set_beat(self) -> None:
        """The next heartbeat, faster while the cluster is in use."""
        if (timer := self._timers.get("beat")) is not None:
            timer.cancel()
        beat_s = self._activity.beat_s(self._beat_s, silence_s=self._silence_s, now=self._loop.time())
        self._timers["beat"] = self._loop.call_later(beat_s, self._beat)

    def _hear(self, activity: wire.Activity) -> None:
        now = self._loop.time()
        before = self._activity.active(now)
        if self._activity.heard(activity.active_for_s, now):
            self._active()
            if not before:
                self._set_beat()

    def _received(self, frames: Sequence[wire.BrokerFrame]) -> None:
        for frame in frames:
            kind = frame.WhichOneof("frame")
            if kind == "go_away":
                self._move(frame.go_away)
            elif kind == "activity":
                self._hear(frame.activity)
            elif kind in KNOWN_FRAMES:
                self._commands.received(frame)
            else:
                self._unknown_frames += 1
        if self._moving_at is not None and self._commands.idle:
            self._leave("moved, nothing left to hand over")

    def _move(self, go_away: wire.GoAway) -> None:
        """Closes when nothing is left to hand over (`_received`), or at the drain deadline; without one, at once: what
        runs goes along."""
        if self._moving_at is not None:
            return
        self._moving_at = self._loop.time()
        # Neither keeps a cluster offline for long, whatever the broker says.
        self._reconnect_after_s = sane(go_away.reconnect_after_s, 0.0, low=0.0, high=60.0)
        drain_s = sane(go_away.drain_deadline_s, 0.0, low=0.0, high=limits.MAX_TIMEOUT_S)
        self._log.info("connection.moving", reason=go_away.reason, drain_s=drain_s)
        self._timers["move"] = self._loop.call_later(drain_s, self._leave, "moved, with what runs")
        self._moving()

    def _leave(self, why: str) -> None:
        """Closes when what is queued has been written, output that waits for credit not included."""
        if "leave" not in self._timers:
            late = NotLeft(f"moved, and it did not take what was queued within {LEAVE_S:g} s")
            self._timers["leave"] = self._loop.call_later(LEAVE_S, self._stream.break_off, late)
            self._close(why)
