"""An executor's Hello: the first frame of its stream, with what it says of itself within bounds."""

from collections.abc import Sequence

from broker.core.introduced import MAX_DESCRIPTION_BYTES, leave_out_labels, versions_of
from broker.opening import Opening
from broker.rpc.handshake import first_frames, version_for, violation
from broker.streams import Stream
from openline.ids import is_cluster_id, is_token
from openline.v1 import executor_service_pb2

MAX_LISTED_IDS = 10_000


async def hear(
    stream: Stream, opening: Opening
) -> tuple[executor_service_pb2.Hello, Sequence[executor_service_pb2.ExecutorFrame]]:
    """The first frame, which must be a valid Hello, and those that came with it.

    Its `versions.protocol` is what is spoken from now on. Raises as `first_frames` and `version_for`.
    """
    first, *rest = await first_frames(stream, opening, name="Hello")
    hello = first.hello
    version = version_for(hello, opening, peer="executor", who=hello.cluster_id)
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
    hello.versions.CopyFrom(versions_of(hello.versions, protocol=version))
    leave_out_labels(hello.capabilities)
    return hello, rest


def _are_ids(listed: Sequence[str]) -> bool:
    return len(listed) <= MAX_LISTED_IDS and all(map(is_token, listed))
