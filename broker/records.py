"""A command as others may see it: the record that is stored, the events of one that is done, its line in the log."""

from collections.abc import Iterator

import structlog

from broker.core.command import Command
from broker.core.life import State
from openline.limits import MAX_FRAME_BYTES
from openline.v1 import command_pb2

CommandEvent = command_pb2.CommandEvent

log = structlog.get_logger()


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


def log_end(command: Command) -> None:
    """One line a command, with its ids and where its time went; never what it was or wrote."""
    result = command.result or command_pb2.CommandResult()
    log.info(
        "command.finished",
        command_id=command.command_id,
        cluster_id=command.ask.cluster_id,
        executor_id=command.executor_id,
        owner=command.ask.owner,
        agent_call=bool(command.ask.correlation_id),
        correlation_id=command.ask.correlation_id or None,
        session_id=command.ask.session_id or None,
        outcome=command_pb2.Outcome.Name(result.outcome).removeprefix("OUTCOME_").lower(),
        reason=result.error.reason or None,
        exit_code=result.exit_code,
        ms=round(result.timings.total_s * 1000, 1),
        run_ms=round(result.timings.run_s * 1000, 1),
        bytes=len(result.stdout) + len(result.stderr),
    )
