"""How a pipe begins, at the caller's end: PipeHello, then PipeWelcome, and what both ends have agreed on by that."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openline import versions
from openline.limits import HEARTBEAT_INTERVAL_S, HEARTBEAT_TIMEOUT_S
from openline.stream import FrameStream, StreamGarbled
from openline.v1 import command_service_pb2 as pb

Metadata = Sequence[tuple[str, str | bytes]]
CheckWelcome = Callable[[pb.PipeWelcome], None]


@dataclass(frozen=True, slots=True)
class Agreed:
    """Until a broker has said otherwise, what the contract says."""

    replica_id: str = ""
    heartbeat_s: float = HEARTBEAT_INTERVAL_S
    # A peer that says nothing for so long is frozen.
    silence_s: float = HEARTBEAT_TIMEOUT_S
    # Of the protocol; zero before the welcome.
    version: int = 0


async def greet(
    stream: FrameStream[pb.ReplyFrame, pb.CallerFrame], *, client: str, check_welcome: CheckWelcome | None
) -> tuple[Agreed, Sequence[pb.ReplyFrame]]:
    """What was agreed, and the frames that came with the welcome.

    Raises StreamGarbled, whatever ends the stream, and whatever `check_welcome` raises.
    """
    ours = versions.SPOKEN
    hello = pb.PipeHello(protocol_version=ours.lowest, max_protocol_version=ours.highest, client=client)
    stream.send(pb.CallerFrame(hello=hello))
    await stream.flush()
    frames = await stream.receive()
    if not frames or not frames[0].HasField("welcome"):
        raise StreamGarbled("the broker did not begin with PipeWelcome")
    welcome = frames[0].welcome
    if welcome.protocol_version not in ours:
        raise StreamGarbled(f"the broker chose protocol version {welcome.protocol_version}, and was offered {ours}")
    if check_welcome is not None:
        check_welcome(welcome)
    # Bounds, so that no welcome can make this end flood the broker or never notice that it is frozen. The bound comes
    # first, since `max` keeps it where the other one is not a number.
    heartbeat_s = min(max(0.05, welcome.heartbeat_interval_s), HEARTBEAT_INTERVAL_S)
    silence_s = min(max(2 * heartbeat_s, welcome.heartbeat_timeout_s), HEARTBEAT_TIMEOUT_S)
    return Agreed(welcome.replica_id, heartbeat_s, silence_s, welcome.protocol_version), frames[1:]
