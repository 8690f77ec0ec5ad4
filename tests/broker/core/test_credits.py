"""How much output an executor may send: credit for each command and for the stream, granted as output arrives."""

from collections.abc import Callable
from typing import Any

import pytest

from broker.core.actions import Action, Send
from broker.core.command import Command
from broker.core.connections import Connection
from broker.core.life import State
from openline.limits import COMMAND_CREDIT_BYTES, MAX_FRAME_BYTES, STREAM_CREDIT_BYTES

New = Callable[..., Connection]
FRAME = b"x" * MAX_FRAME_BYTES
PER_COMMAND = COMMAND_CREDIT_BYTES // 2 // MAX_FRAME_BYTES  # frames until half of it is used up
PER_STREAM = STREAM_CREDIT_BYTES // 2 // MAX_FRAME_BYTES


def credits(actions: list[Action]) -> list[tuple[str, int]]:
    """Who may send how much more; the stream as a whole has no name."""
    sent = [action.frame.credit for action in actions if isinstance(action, Send) and action.frame.HasField("credit")]
    return [(credit.command_id, credit.bytes) for credit in sent]


@pytest.fixture
def open_(desk: Any, new_connection: New) -> Connection:
    connection = new_connection()
    desk.connect(connection)
    return connection


@pytest.fixture
def running(desk: Any, open_: Connection, frames: Any) -> Callable[..., Command]:
    def make(**fields: Any) -> Command:
        command: Command = desk.submit(**({"live": True} | fields))
        desk.say(open_, frames.accepted(command.command_id), frames.started(command.command_id))
        return command

    return make


@pytest.mark.parametrize("live", [False, True])
def test_a_command_is_granted_more_when_half_is_used(
    desk: Any, open_: Connection, frames: Any, running: Callable[..., Command], live: bool
) -> None:
    """As much as has arrived, so that what is outstanding never exceeds what Welcome allows."""
    name = running(live=live).command_id
    granted: list[tuple[str, int]] = []
    for seq in range(4 * PER_COMMAND):
        granted += credits(desk.say(open_, frames.output(name, seq, FRAME)))
    assert [one for one in granted if one[0]] == [(name, COMMAND_CREDIT_BYTES // 2)] * 4


def test_small_output_is_summed_up(desk: Any, open_: Connection, frames: Any, running: Callable[..., Command]) -> None:
    """Lines of a few bytes are not answered one by one."""
    name = running().command_id
    assert credits(desk.say(open_, *(frames.output(name, seq, b"x" * 100) for seq in range(1310)))) == []
    [granted] = credits(desk.say(open_, frames.output(name, 1310, b"x" * 100)))
    assert granted == (name, 131_100)


def test_the_stream_is_granted_more_when_half_is_used(
    desk: Any, open_: Connection, frames: Any, running: Callable[..., Command]
) -> None:
    """Whoever used it."""
    names = [running().command_id for _ in range(4)]
    said = [frames.output(name, seq, FRAME) for seq in range(PER_STREAM // 4) for name in names]
    assert [one for one in credits(desk.say(open_, *said)) if not one[0]] == [("", STREAM_CREDIT_BYTES // 2)]


def test_output_of_unknown_commands_does_not_use_the_stream_up(desk: Any, open_: Connection, frames: Any) -> None:
    """Nor that of another executor's command, or of one that has ended here: the stream would come to a stop.

    The command's own credit is given back at once, so that its Finished can come and it can be forgotten.
    """
    for _ in range(2):
        said = [frames.output("unknown", seq, FRAME) for seq in range(PER_STREAM)]
        given = credits(desk.say(open_, *said))
        assert [size for name, size in given if name == ""] == [STREAM_CREDIT_BYTES // 2]
        assert sum(size for name, size in given if name == "unknown") == PER_STREAM * len(FRAME)
    assert desk.ledger.commands == {}


def test_output_that_was_had_before_is_credited_as_well(
    desk: Any, new_connection: New, open_: Connection, frames: Any, running: Callable[..., Command]
) -> None:
    """An executor that sends all of it again after a reconnect must not stop before it comes to what is new."""
    command = running()
    name = command.command_id
    again = [frames.output(name, seq, FRAME) for seq in range(3 * PER_COMMAND)]
    desk.say(open_, *again)
    back = new_connection()
    desk.disconnect(open_, now=1.0)
    desk.connect(back, in_flight=[name], now=2.0)
    assert [one for one in credits(desk.say(back, *again)) if one[0]] == [(name, COMMAND_CREDIT_BYTES // 2)] * 3
    assert command.transcript.next_seq == 3 * PER_COMMAND


def test_output_of_a_command_that_has_ended_here_is_credited(
    desk: Any, open_: Connection, frames: Any, running: Callable[..., Command]
) -> None:
    """Its executor comes to its Finished, and so to its ResultAck."""
    command = running(timeout_s=1.0)
    name = command.command_id
    desk.tick(60.0)
    assert command.state is State.DONE
    said = [frames.output(name, seq, FRAME) for seq in range(PER_COMMAND)]
    assert credits(desk.say(open_, *said)) == [(name, COMMAND_CREDIT_BYTES // 2)]


def test_a_new_connection_begins_anew(
    desk: Any, new_connection: New, open_: Connection, frames: Any, running: Callable[..., Command]
) -> None:
    """What arrived on the old stream is not granted on the new one, which has all that Welcome allows."""
    name = running().command_id
    for seq in range(PER_COMMAND - 1):
        assert credits(desk.say(open_, frames.output(name, seq, FRAME))) == []
    back = new_connection()
    desk.connect(back, in_flight=[name], now=1.0)
    # The old stream's last message is still handled.
    late = desk.say(open_, *(frames.output(name, seq, FRAME) for seq in range(PER_COMMAND - 1, 2 * PER_COMMAND)))
    assert credits(late) == []
    assert credits(desk.say(back, frames.output(name, 2 * PER_COMMAND, FRAME))) == []
    said = [frames.output(name, 2 * PER_COMMAND + seq, FRAME) for seq in range(1, PER_COMMAND)]
    assert credits(desk.say(back, *said)) == [(name, COMMAND_CREDIT_BYTES // 2)]
    assert back.uncredited_bytes == PER_COMMAND * MAX_FRAME_BYTES


def test_a_frame_that_is_too_large_ends_its_command(
    desk: Any, open_: Connection, frames: Any, running: Callable[..., Command]
) -> None:
    """It has been counted all the same: the stream goes on."""
    command, other = running(), running()
    desk.say(open_, frames.output(command.command_id, 0, FRAME + b"x"))
    assert command.state is State.DONE
    assert open_.uncredited_bytes == MAX_FRAME_BYTES + 1
    # Another one, of the command that has ended: nothing is left to end.
    desk.say(open_, frames.output(command.command_id, 1, FRAME + b"x"))
    assert desk.concluded == [command]
    desk.say(open_, frames.output(other.command_id, 0, FRAME))
    assert other.state is State.RUNNING
