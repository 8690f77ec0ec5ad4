"""A command as others may see it: the record that is stored, its outline for lists, the events of one that is done."""

from collections.abc import Iterator, Sequence

from broker.core.command import Command
from broker.core.life import State
from openline.limits import MAX_FRAME_BYTES
from openline.v1 import command_pb2

CommandEvent = command_pb2.CommandEvent
STDOUT, STDERR = command_pb2.OUTPUT_SOURCE_STDOUT, command_pb2.OUTPUT_SOURCE_STDERR

# Of an argv in lists and in the audit trail, which hold very many.
MAX_SHOWN_CHARACTERS = 2048


def record(command: Command) -> command_pb2.Command:
    """What is known of a command now."""
    ask = command.ask
    is_done = command.result is not None
    first_seq, frames = command.transcript.frames() if ask.live and is_done else (0, [])
    return command_pb2.Command(
        command_id=ask.command_id,
        cluster_id=ask.cluster_id,
        session_id=ask.session_id,
        correlation_id=ask.correlation_id,
        state=State.DONE.value if is_done else command.state.value,
        argv=ask.argv,
        owner=ask.owner,
        created_at=command.asked_at,
        result=command.result if is_done else None,
        live=ask.live,
        next_seq=command.transcript.next_seq if is_done else 0,
        frames=frames,
        first_seq=first_seq,
        scopes=ask.scopes,
    )


def outline(shown: command_pb2.Command) -> command_pb2.Command:
    """The same record without output and with a bounded argv; it is changed in place."""
    shown.argv[:] = shorten(shown.argv)
    shown.ClearField("frames")
    shown.ClearField("scopes")
    if shown.HasField("result"):
        shown.result.ClearField("stdout")
        shown.result.ClearField("stderr")
    return shown


def running(command: Command) -> command_pb2.Command | None:
    """The outline of a command that runs here; of one that has ended, or is another replica's, others tell."""
    has_ended = command.result is not None
    return None if has_ended or command.state is State.FORWARDED else outline(record(command))


def shorten(argv: Sequence[str], *, room: int = MAX_SHOWN_CHARACTERS) -> list[str]:
    """The words as far as they fit, and then `…`."""
    shown: list[str] = []
    for word in argv:
        if len(word) > room:
            return [*shown, "…"]
        shown.append(word)
        room -= len(word) + 1
    return shown


def events(stored: command_pb2.Command, *, from_seq: int) -> Iterator[CommandEvent]:
    """The events of a command that is done, from an output seq on.

    An ordinary command's output is cut into the frames it came in, and so is a live one's that is all there. Of any
    other only head and tail are left, whose seqs are not known any more: from the beginning they are shown, from
    anywhere else but the end a gap is.
    """
    result = stored.result
    if stored.frames and from_seq >= stored.first_seq:
        yield from _as_it_came(stored, from_seq)
    elif stored.live and from_seq:
        if from_seq < stored.next_seq:
            yield CommandEvent(gap=command_pb2.OutputGap(next_seq=from_seq))
    else:
        seq = 0
        for source, data in ((STDOUT, result.stdout), (STDERR, result.stderr)):
            for start in range(0, len(data), MAX_FRAME_BYTES):
                if seq >= from_seq:
                    piece = data[start : start + MAX_FRAME_BYTES]
                    output = command_pb2.Output(command_id=stored.command_id, seq=seq, source=source, data=piece)
                    yield CommandEvent(output=output)
                seq += 1
    yield CommandEvent(result=result)


def _as_it_came(stored: command_pb2.Command, from_seq: int) -> Iterator[CommandEvent]:
    """The output of a live command that is all there, in its own frames and order."""
    data = {STDOUT: stored.result.stdout, STDERR: stored.result.stderr}
    at = dict.fromkeys(data, 0)
    for seq, frame in enumerate(stored.frames, start=stored.first_seq):
        source = STDERR if frame & 1 else STDOUT
        begin = at[source]
        at[source] = end = begin + (frame >> 1)
        if seq >= from_seq:
            output = command_pb2.Output(
                command_id=stored.command_id, seq=seq, source=source, data=data[source][begin:end]
            )
            yield CommandEvent(output=output)
