"""Commands whose replica is gone: what is made of what others tell of them."""

from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.actions import Conclude, Forward
from broker.core.command import Ask, Command
from broker.core.directory import Directory
from broker.core.ledger import Ledger
from broker.core.life import State
from openline.ids import new_id
from openline.v1 import command_pb2
from openline.v1.cluster_service_pb2 import ConnectedExecutor


def forwarded(*, live: bool = False) -> tuple[Ledger, Command]:
    """A command that was handed over to the replica r2."""
    directory = Directory("r1")
    directory.learn("prod", ConnectedExecutor(executor_id="e1", replica_id="r2", epoch=1, max_concurrency=4), now=0.0)
    ledger = Ledger(reconnect_grace_s=10.0, directory=directory)
    ask = Ask(new_id(), "prod", ("get", "pods"), 10.0, 1024, "alice", live=live)
    command, actions = ledger.submit(ask, asked_at=Timestamp(), now=0.0)
    assert actions == [Forward(command)]
    return ledger, command


def test_what_a_watcher_was_not_told_before_the_result_is_a_gap() -> None:
    """The replica that has told of the output is gone, and the result is found in the store."""
    ledger, command = forwarded(live=True)
    said = command_pb2.Output(seq=0, source=command_pb2.OUTPUT_SOURCE_STDOUT, data=b"begun\n")
    ledger.relayed.event(command, command_pb2.CommandEvent(output=said), 1.0)
    ledger.relayed.lost_sight(command, 2.0)
    result = command_pb2.CommandResult(outcome=command_pb2.OUTCOME_EXITED, stdout=b"begun\ndone\n")
    result.stdout_summary.total_bytes = 11
    assert Conclude(command) in ledger.relayed.answered(command, result, 3.0)
    assert command.transcript.first_seq == 2
    assert command.transcript.skipped_bytes == 11


def test_a_watcher_that_was_told_everything_sees_no_gap() -> None:
    ledger, command = forwarded(live=True)
    said = command_pb2.Output(seq=0, source=command_pb2.OUTPUT_SOURCE_STDOUT, data=b"done\n")
    ledger.relayed.event(command, command_pb2.CommandEvent(output=said), 1.0)
    result = command_pb2.CommandResult(outcome=command_pb2.OUTCOME_EXITED, stdout=b"done\n")
    result.stdout_summary.total_bytes = 5
    ledger.relayed.answered(command, result, 3.0)
    assert command.transcript.first_seq == 0


def test_a_command_that_was_found_outside_of_a_queue_never_returns() -> None:
    """Its executor may have gone on to a replica that does not answer; but from a queue nobody has taken it."""
    for is_queued in (True, False):
        ledger, command = forwarded()
        ledger.relayed.lost_sight(command, 1.0)
        ledger.relayed.found(command, "r3", 2.0, is_queued=is_queued)
        ledger.relayed.lost_sight(command, 3.0)
        assert command.is_sought
        assert command.may_return is is_queued


def test_a_command_that_is_not_where_it_was_said_to_be_is_looked_for_before_it_is_placed_anew() -> None:
    ledger, command = forwarded()
    ledger.relayed.lost_sight(command, 1.0)
    ledger.relayed.found(command, "r3", 2.0, is_queued=True)
    ledger.relayed.unknown(command, 3.0)
    assert command.state is State.FORWARDED
    assert command.is_sought
