"""What one replica asks of another about a command, and for whom."""

from broker.core.command import Command
from openline.v1 import command_pb2, executor_service_pb2
from openline.v1 import command_service_pb2 as pb


def forwarded(command: Command, *, by: str) -> pb.Forwarded:
    """For whom the replica `by` asks, as it has checked that."""
    ask = command.ask
    identity = executor_service_pb2.Identity(owner=ask.owner, scopes=ask.scopes)
    return pb.Forwarded(origin_replica_id=by, identity=identity, share_s=ask.share_s, cache_s=ask.cache_s)


def execution(command: Command, now: float) -> pb.ExecuteRequest:
    """What is to run there: the caller's session and key are this replica's to check, and so is whether it left."""
    ask = command.ask
    return pb.ExecuteRequest(
        cluster_id=ask.cluster_id,
        argv=ask.argv,
        timeout_s=max(0.001, command.deadline - now),
        session_id=ask.session_id,
        correlation_id=ask.correlation_id,
        command_id=ask.command_id,
        output_limits=command_pb2.OutputLimits(max_bytes=ask.max_output_bytes),
        traceparent=ask.traceparent,
    )


def watch(command: Command) -> pb.WatchCommandRequest:
    """What has happened there since it was last heard of here."""
    return pb.WatchCommandRequest(
        command_id=command.command_id, from_seq=command.transcript.next_seq, traceparent=command.ask.traceparent
    )
