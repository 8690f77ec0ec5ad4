"""How both streams begin: with a Hello of their kind, in time, and the version that both ends speak from then on."""

from collections.abc import Sequence
from typing import Any, TypeVar

import grpc

from broker.opening import Opening
from openline import errors, versions
from openline.outbox import Frame
from openline.reasons import Reason
from openline.stream import FrameStream

F = TypeVar("F", bound=Frame)


async def first_frames(stream: FrameStream[F, Any], opening: Opening, *, name: str) -> Sequence[F]:
    """The frames of the first message, of which the first is a hello. Raises as `Opening.first`."""
    frames = await opening.first(stream.receive(), name=name)
    first: Any = frames[0] if frames else None
    if not frames or first.WhichOneof("frame") != "hello":
        raise violation(f"a stream begins with {name}")
    return frames


def version_for(hello: versions.Hello, opening: Opening, *, peer: str, who: str) -> int:
    """The protocol version that both ends speak from now on.

    `peer` is what the other end is, `who` which one, for the log. Raises VERSION_UNSUPPORTED.
    """
    theirs = versions.said(hello)
    version = versions.agreed(versions.SPOKEN, theirs)
    if version is None:
        why = versions.disagreement(versions.SPOKEN, theirs, peer=peer)
        opening.not_understood(who, why)
        raise errors.OpenlineError(errors.error(Reason.VERSION_UNSUPPORTED, why))
    return version


async def accept(context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Sends the headers by themselves, before the stream's writer begins.

    grpc.aio would send them with the first message, and when that write is cancelled because the stream ends, send them
    again with the status. Its core refuses that, and the peer is never told that the stream has ended.
    """
    await context.send_initial_metadata(())


def violation(message: str, *, violations: Sequence[tuple[str, str]] = ()) -> errors.OpenlineError:
    """PROTOCOL_VIOLATION, with the fields that were wrong."""
    return errors.OpenlineError(errors.error(Reason.PROTOCOL_VIOLATION, message, violations=violations))
