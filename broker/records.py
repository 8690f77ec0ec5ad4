"""A command as others may see it: the record that is stored, and the events of one that is done."""

from collections.abc import Iterator

from broker.core.command import Command
from broker.core.life import State
from openline.limits import MAX_FRAME_BYTES
from openline.v1 import command_pb2

CommandEvent = command_pb2.CommandEvent


def record(command: Command) -> command_pb2.Command:
    """What is known of a command now."""
    ask = command.ask
    return command_pb2.Command(
        command_id=ask.command_id,
        cluster_id=ask.cluster_id,
        session_id=ask.session_id,
        correlation_id=ask.correlation_id,
        state=command.state.value,
        argv=ask.argv,
        owner=ask.owner,
        created_at=command.asked_at,
        result=command.result if command.state is State.DONE else None,
        live=ask.live,
        next_seq=command.transcript.next_seq if command.state is State.DONE else 0,
    )


def events(stored: command_pb2.Command, *, from_seq: int) -> Iterator[CommandEvent]:
    """The events of a command that is done, from an output seq on.

    An ordinary command's output is cut into the frames it came in. Of a live command only head and tail are left, whose
    seqs are not known any more: from the beginning they are shown, from anywhere else but the end a gap is.
    """
    result = stored.result
    if stored.live and from_seq:
        if from_seq < stored.next_seq:
            yield CommandEvent(gap=command_pb2.OutputGap(next_seq=from_seq))
    else:
        seq = 0
        for source, data in (
            (command_pb2.OUTPUT_SOURCE_STDOUT, result.stdout),
            (command_pb2.OUTPUT_SOURCE_STDERR, result.stderr),
        ):
            for start in range(0, len(data), MAX_FRAME_BYTES):
                if seq >= from_seq:
                    piece = data[start : start + MAX_FRAME_BYTES]
                    output = command_pb2.Output(command_id=stored.command_id, seq=seq, source=source, data=piece)
                    yield CommandEvent(output=output)
                seq += 1
    yield CommandEvent(result=result)
