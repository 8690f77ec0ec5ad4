"""What is made of a replica's word that it does not have a command."""

from google.protobuf.timestamp_pb2 import Timestamp

from broker.core import whereabouts
from broker.core.command import Ask, Command
from openline.errors import error
from openline.ids import new_id
from openline.reasons import Reason


def sought(*, may_return: bool, replica_id: str = "") -> Command:
    ask = Ask(new_id(), "prod", ("get", "pods"), 10.0, 1024, "alice")
    command = Command(ask=ask, created_at=0.0, asked_at=Timestamp())
    command.forward(replica_id, known=True, may_return=may_return)
    return command


def test_a_replica_that_does_not_know_it_has_it_not() -> None:
    told = whereabouts.unknown(began_us=7)
    assert whereabouts.has_it_not(told, asker="r1", answerer="r2")
    assert whereabouts.began_us(told) == 7


def test_of_two_that_look_for_it_one_runs_it() -> None:
    """Whichever of them asks first."""
    told = whereabouts.elsewhere(sought(may_return=True), began_us=7)
    assert whereabouts.has_it_not(told, asker="r1", answerer="r2")
    assert not whereabouts.has_it_not(told, asker="r2", answerer="r1")


def test_a_command_that_was_accepted_somewhere_or_is_with_a_third_replica_is_somewhere() -> None:
    for command in (sought(may_return=False), sought(may_return=True, replica_id="r3")):
        told = whereabouts.elsewhere(command, began_us=7)
        assert not whereabouts.has_it_not(told, asker="r1", answerer="r2")


def test_a_replica_that_does_not_answer_may_have_it() -> None:
    told = error(Reason.BROKER_UNAVAILABLE, "no answer")
    assert not whereabouts.has_it_not(told, asker="r1", answerer="r2")
    assert whereabouts.began_us(told) == 0
