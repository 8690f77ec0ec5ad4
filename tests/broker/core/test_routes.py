"""Commands of clusters whose executors are connected to other replicas: forwarded, followed, looked for, taken over."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.actions import Action, Conclude, Forward, Send
from broker.core.command import Command
from broker.core.connections import Connection
from broker.core.directory import GONE_REPLICA_S, MOVING_S, Directory
from broker.core.ledger import ClusterAbsent, Held, Ledger
from broker.core.life import State
from broker.core.routes import FORWARD_ALLOWANCE_S
from openline import errors
from openline.reasons import NO, UNKNOWN, YES, Reason
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire
from openline.v1.cluster_service_pb2 import ConnectedExecutor

New = Callable[..., Connection]
GRACE_S = 10.0
# Epochs that are higher than those of the connections that tests make here.
NEWER = 1_000_000


class Replica:
    """A ledger and what its replica knows of the others; what it wants done is kept in `done`."""

    def __init__(self, new_ask: Callable[..., Any]) -> None:
        self._new_ask = new_ask
        self.directory = Directory("r1")
        self.ledger = Ledger(reconnect_grace_s=GRACE_S, directory=self.directory)
        self.relayed = self.ledger.relayed
        self.done: list[Action] = []

    def learn(self, *, executor_id: str = "exec-1", instance_id: str = "i-1", now: float = 0.0, **fields: Any) -> None:
        """An executor is on another replica, r2 unless said otherwise."""
        usual: dict[str, Any] = {"replica_id": "r2", "epoch": NEWER, "max_concurrency": 4}
        known = ConnectedExecutor(executor_id=executor_id, instance_id=instance_id, **(usual | fields))
        self.directory.learn("prod", known, now=now)

    def submit(self, *, now: float = 0.0, known_to: str = "", **fields: Any) -> Command:
        command, self.done = self.ledger.submit(
            self._new_ask("prod", **fields), asked_at=Timestamp(), now=now, known_to=known_to
        )
        return command

    def connect(self, connection: Connection, *, now: float = 0.0, **held: Any) -> dict[str, str]:
        """What Welcome says of each command that Hello lists."""
        listed: dict[str, Any] = {"in_flight": (), "unacked": ()} | held
        verdicts, self.done = self.ledger.connect(connection, now=now, **listed)
        return {v.command_id: wire.VerdictAction.Name(v.action).removeprefix("VERDICT_ACTION_") for v in verdicts}

    def disconnect(self, connection: Connection, *, now: float = 0.0) -> None:
        _, self.done = self.ledger.disconnect(connection, now=now)

    def news(self, *, now: float = 0.0) -> None:
        self.done = self.ledger.news("prod", now=now)

    def told(self) -> list[str]:
        """What is to be done, in words."""

        def word(action: Action) -> str:
            match action:
                case Send(_, frame):
                    return str(frame.WhichOneof("frame"))
                case Forward(command):
                    return f"forward to {command.replica_id or '?'}"
                case Conclude(command):
                    assert command.result is not None
                    return command.result.error.reason or "result"
            return type(action).__name__

        return [word(action) for action in self.done]


@pytest.fixture
def replica(new_ask: Callable[..., Any]) -> Replica:
    return Replica(new_ask)


def result(command: Command, **fields: Any) -> command_pb2.CommandResult:
    usual: dict[str, Any] = {"outcome": command_pb2.OUTCOME_EXITED, "stdout": b"x"}
    return command_pb2.CommandResult(command_id=command.command_id, **(usual | fields))


# Where a command goes


def test_a_command_is_forwarded_to_the_replica_that_has_the_executor(replica: Replica) -> None:
    replica.learn()
    command = replica.submit()
    assert (command.state, command.replica_id) == (State.FORWARDED, "r2")
    assert replica.told() == ["forward to r2"]


def test_an_executor_here_is_preferred(replica: Replica, new_connection: New) -> None:
    """It is one hop less. But when it is busy, and the other one is not, the hop is less than the wait."""
    here = new_connection(max_concurrency=1)
    replica.connect(here)
    replica.learn(executor_id="exec-2", max_concurrency=1)
    told = []
    for _ in range(4):
        replica.submit()
        told += replica.told()
    assert told == ["execute", "execute", "forward to r2"]
    assert sum(map(len, replica.ledger._account.queues.values())) == 1


def test_what_was_forwarded_here_is_never_forwarded_again(replica: Replica) -> None:
    """Whoever sent it is told whether it is worth waiting."""
    replica.learn()
    with pytest.raises(ClusterAbsent) as absent:
        replica.submit(origin="r3")
    assert not absent.value.is_moving
    replica.learn(moving=True, epoch=NEWER + 1)
    with pytest.raises(ClusterAbsent) as absent:
        replica.submit(origin="r3")
    assert absent.value.is_moving
    assert replica.ledger.commands == {}


def test_while_an_executor_moves_its_commands_wait(replica: Replica, new_connection: New) -> None:
    """Until it is here or there; their timeout runs."""
    replica.learn(moving=True)
    waiting = [replica.submit(timeout_s=30.0) for _ in range(2)]
    assert [command.state for command in waiting] == [State.QUEUED] * 2
    replica.learn(replica_id="r3", epoch=NEWER + 1)
    replica.news(now=1.0)
    assert replica.told() == ["forward to r3"] * 2
    assert waiting[0].deadline == 30.0

    replica.learn(moving=True, epoch=NEWER + 2, now=2.0)
    command = replica.submit(now=2.0, timeout_s=30.0)
    replica.connect(new_connection(), now=3.0)
    assert replica.told() == ["execute"]
    assert command.deadline == 32.0


def test_an_executor_that_does_not_come_is_waited_for_no_longer(replica: Replica) -> None:
    """Then the cluster is offline, as it would have been."""
    replica.learn(moving=True)
    command = replica.submit(timeout_s=30.0)
    assert replica.ledger.tick(now=MOVING_S - 0.1) == []
    replica.done = replica.ledger.tick(now=MOVING_S)
    assert replica.told() == ["CLUSTER_OFFLINE"]
    assert command.result is not None
    assert command.result.error.executed == NO


def test_while_a_replica_is_out_of_reach_its_commands_wait(replica: Replica) -> None:
    replica.learn()
    replica.directory.unreachable("r2", now=0.0)
    command = replica.submit(timeout_s=30.0)
    assert (command.state, command.waits_until) == (State.QUEUED, GONE_REPLICA_S)
    replica.directory.reached("r2")
    replica.news(now=1.0)
    assert replica.told() == ["forward to r2"]


def test_the_wait_for_a_cluster_ends_wherever_it_comes(replica: Replica) -> None:
    """Its own time, apart from the timeout, which begins then."""
    command = replica.submit(wait_for_cluster_s=60.0, timeout_s=5.0)
    replica.learn(now=20.0)
    replica.news(now=20.0)
    assert replica.told() == ["forward to r2"]
    assert command.deadline == 25.0


# What the other replica says


def test_the_result_comes_back(replica: Replica) -> None:
    """It is told here and stored there; what comes after it changes nothing."""
    replica.learn()
    command = replica.submit()
    told = result(command)
    told.timings.total_s = 1.0
    replica.done = replica.relayed.answered(command, told, 1.5)
    assert replica.told() == ["result"]
    assert command.is_stored_elsewhere
    assert command.result is not None
    assert (command.result.timings.route_s, command.result.timings.total_s) == (0.5, 1.5)
    assert replica.relayed.answered(command, result(command, stdout=b"y"), 2.0) == []
    assert replica.relayed.returned(command, 2.0) == []
    replica.ledger.settled(command, stored=False)
    assert replica.ledger.next_due() is None


def test_one_that_was_not_taken_is_placed_anew(replica: Replica, new_connection: New) -> None:
    """On another replica, here, or it waits or is offline; and never where it was refused."""
    replica.learn()
    command = replica.submit()
    replica.directory.not_there("prod", "r2", moving=False, now=1.0)
    replica.learn(executor_id="exec-2", replica_id="r3")
    replica.done = replica.relayed.returned(command, 1.0)
    assert replica.told() == ["forward to r3"]
    replica.connect(new_connection(executor_id="exec-3"))
    replica.directory.not_there("prod", "r3", moving=False, now=1.0)
    replica.done = replica.relayed.returned(command, 2.0)
    assert replica.told() == ["execute"]
    assert command.state is State.WRITTEN


def test_one_that_nobody_takes_was_not_run(replica: Replica) -> None:
    replica.learn()
    command = replica.submit()
    replica.directory.not_there("prod", "r2", moving=False, now=1.0)
    replica.done = replica.relayed.returned(command, 1.0)
    assert replica.told() == ["CLUSTER_OFFLINE"]
    assert command.result is not None
    assert command.result.error.executed == NO


@pytest.mark.parametrize(
    ("reason", "executed", "outcome"),
    [
        (Reason.CLUSTER_BUSY, NO, command_pb2.OUTCOME_REJECTED),
        (Reason.CANCELLED, NO, command_pb2.OUTCOME_CANCELLED),
        (Reason.COMMAND_TIMEOUT, YES, command_pb2.OUTCOME_TIMED_OUT),
        (Reason.INTERNAL, UNKNOWN, command_pb2.OUTCOME_LOST),
    ],
)
def test_what_it_refuses_is_refused(
    replica: Replica, reason: Reason, executed: Any, outcome: "command_pb2.Outcome.ValueType"
) -> None:
    replica.learn()
    command = replica.submit()
    replica.done = replica.relayed.refused(command, errors.error(reason, "said r2", executed=executed), 1.0)
    assert replica.told() == [reason]
    assert command.result is not None
    assert (command.result.outcome, command.result.error.executed) == (outcome, executed)


def test_one_of_which_nothing_is_heard_ends_in_time(replica: Replica) -> None:
    """Later than the other replica would have said so, and nobody knows whether it ran."""
    replica.learn()
    command = replica.submit(timeout_s=5.0)
    assert replica.ledger.tick(now=5.0 + FORWARD_ALLOWANCE_S - 0.1) == []
    replica.done = replica.ledger.tick(now=5.0 + FORWARD_ALLOWANCE_S)
    assert replica.told() == ["COMMAND_TIMEOUT"]
    assert command.result is not None
    assert command.result.error.executed == UNKNOWN


def test_a_cancel_goes_where_the_command_is(replica: Replica) -> None:
    replica.learn()
    command = replica.submit()
    replica.done = replica.ledger.cancel(command, why="not needed", now=1.0)
    assert replica.told() == ["forward to r2"]
    assert command.cancel_why == "not needed"


def test_live_output_is_told_here_as_it_comes(replica: Replica) -> None:
    """What is missing is a gap, and what comes twice is shown once."""
    replica.learn()
    command = replica.submit(live=True)

    def output(seq: int, data: bytes) -> command_pb2.CommandEvent:
        piece = command_pb2.Output(seq=seq, data=data, source=command_pb2.OUTPUT_SOURCE_STDOUT)
        return command_pb2.CommandEvent(output=piece)

    for event in (output(0, b"a"), output(0, b"a"), output(3, b"d")):
        assert replica.relayed.event(command, event, 1.0) == []
    transcript = command.transcript
    assert [piece.data for piece in transcript.since(0)] == [b"d"]
    assert (transcript.first_seq, transcript.next_seq) == (3, 4)
    gap = command_pb2.CommandEvent(gap=command_pb2.OutputGap(next_seq=9, missed_bytes=50))
    assert replica.relayed.event(command, gap, 1.0) == []
    assert (transcript.first_seq, transcript.skipped_bytes) == (9, 52)
    replica.done = replica.relayed.event(command, command_pb2.CommandEvent(result=result(command)), 2.0)
    assert replica.told() == ["result"]


# Commands whose executor moves


def running(replica: Replica, connection: Connection, frames: Any, *, accepted: bool = True) -> Command:
    replica.connect(connection)
    command = replica.submit()
    if accepted:
        replica.ledger.receive(connection, frames.accepted(command.command_id), now=0.0)
    return command


@pytest.mark.parametrize("heard", ["before", "after"])
def test_a_command_is_followed_to_where_its_executor_is(
    replica: Replica, new_connection: New, frames: Any, heard: str
) -> None:
    """Whichever is known first: that it has left here, or that it is there."""
    connection = new_connection()
    command = running(replica, connection, frames)
    if heard == "before":
        replica.learn()
        replica.disconnect(connection, now=1.0)
    else:
        replica.disconnect(connection, now=1.0)
        assert command.state is State.ACCEPTED
        replica.learn()
        replica.news(now=2.0)
    assert replica.told() == ["forward to r2"]
    assert (command.state, command.is_known_there, command.may_return) == (State.FORWARDED, True, False)
    assert replica.ledger._account.away == {}
    replica.done = replica.relayed.answered(command, result(command), 3.0)
    assert replica.told() == ["result"]


def test_news_from_before_the_connection_move_nothing(replica: Replica, new_connection: New, frames: Any) -> None:
    connection = new_connection()
    command = running(replica, connection, frames)
    replica.learn(epoch=connection.epoch - 1)
    replica.disconnect(connection, now=1.0)
    assert command.state is State.ACCEPTED
    assert connection.instance in replica.ledger._account.away


@pytest.mark.parametrize(
    ("accepted", "instance_id", "ends"),
    [
        (False, "i-1", "forward to ?"),  # its Hello there did not list it: it was never accepted, and may be nowhere
        (True, "i-1", "EXECUTOR_LOST"),
        (False, "i-2", "EXECUTOR_LOST"),  # the process before may have run it
        (True, "i-2", "EXECUTOR_LOST"),
    ],
)
def test_a_command_that_is_not_known_there(
    replica: Replica, new_connection: New, frames: Any, accepted: bool, instance_id: str, ends: str
) -> None:
    """Looked for, to be placed anew, only if it surely was not run."""
    connection = new_connection()
    command = running(replica, connection, frames, accepted=accepted)
    replica.disconnect(connection, now=1.0)
    replica.learn(instance_id=instance_id)
    replica.news(now=2.0)
    replica.done = replica.relayed.unknown(command, 3.0)
    assert replica.told() == [ends]
    if ends == "EXECUTOR_LOST":
        assert command.result is not None
        assert command.result.error.executed == UNKNOWN


# Commands that are looked for


def test_a_command_whose_replica_is_gone_is_looked_for(replica: Replica) -> None:
    """Found on a third one, it is followed there."""
    replica.learn()
    command = replica.submit()
    replica.done = replica.relayed.lost_sight(command, 1.0)
    assert replica.told() == ["forward to ?"]
    assert command.is_sought
    assert replica.relayed.lost_sight(command, 1.0) == []
    replica.done = replica.relayed.found(command, "r3", 2.0, is_queued=False)
    assert replica.told() == ["forward to r3"]
    assert (command.is_known_there, command.may_return) == (True, False)


def test_one_that_is_not_found_is_lost(replica: Replica) -> None:
    replica.learn()
    command = replica.submit()
    replica.relayed.lost_sight(command, 1.0)
    replica.done = replica.relayed.given_up(command, "nobody has brought it back", 9.0)
    assert replica.told() == ["EXECUTOR_LOST"]


def test_a_caller_who_asks_again_has_it_looked_for_first(replica: Replica, new_connection: New) -> None:
    """Also if there is an executor that could run it."""
    replica.connect(new_connection())
    command = replica.submit(attach=True)
    assert replica.told() == ["forward to ?"]
    replica.done = replica.relayed.returned(command, 1.0)
    assert replica.told() == ["execute"]


# Executors that bring commands along


def test_a_command_of_another_replica_is_taken_over(
    replica: Replica, new_connection: New, new_ask: Callable[..., Any], frames: Any
) -> None:
    """Its result is stored here, and acknowledged to the executor."""
    connection = new_connection()
    asked = new_ask("prod", timeout_s=7.0, owner="bob")
    verdicts = replica.connect(connection, in_flight=[asked.command_id], held={asked.command_id: Held(asked, 0)})
    assert verdicts == {asked.command_id: "KEEP"}
    command = replica.ledger.commands[asked.command_id]
    assert (command.state, command.ask.owner) == (State.ACCEPTED, "bob")
    for frame in frames.ran(asked.command_id, b"x"):
        replica.done = replica.ledger.receive(connection, frame, now=1.0)
    assert replica.told() == ["result"]
    assert not command.is_stored_elsewhere
    replica.done = replica.ledger.settled(command, stored=True)
    assert replica.told() == ["result_ack"]


def test_live_output_is_taken_over_where_it_can_still_be_had(
    replica: Replica, new_connection: New, new_ask: Callable[..., Any]
) -> None:
    """Welcome asks for what the executor has; what came before is a gap."""
    asked = new_ask("prod", live=True)
    connection = new_connection()
    verdicts, _ = replica.ledger.connect(
        connection, in_flight=[asked.command_id], unacked=(), held={asked.command_id: Held(asked, 5)}, now=0.0
    )
    assert [verdict.next_seq for verdict in verdicts] == [5]


def test_what_no_replica_has_sealed_is_dropped(
    replica: Replica, new_connection: New, new_ask: Callable[..., Any]
) -> None:
    """An executor cannot make commands up."""
    asked = new_ask("prod")
    assert replica.connect(new_connection(), in_flight=[asked.command_id]) == {asked.command_id: "DROP"}


def test_a_command_that_was_forwarded_or_looked_for_comes_here(
    replica: Replica, new_connection: New, frames: Any
) -> None:
    """Its executor has moved here with it: those who wait here get its result."""
    replica.learn()
    forwarded, sought = replica.submit(), replica.submit(attach=True)
    held = {command.command_id: Held(command.ask, 0) for command in (forwarded, sought)}
    connection = new_connection()
    assert set(replica.connect(connection, in_flight=list(held), held=held).values()) == {"KEEP"}
    for command in (forwarded, sought):
        assert command.state is State.ACCEPTED
        for frame in frames.ran(command.command_id, b"x"):
            replica.done = replica.ledger.receive(connection, frame, now=1.0)
        assert replica.told() == ["result"]


def test_a_full_replica_takes_nothing_over(new_connection: New, new_ask: Callable[..., Any]) -> None:
    """What grows has a bound, whatever executors bring."""
    ledger = Ledger(reconnect_grace_s=GRACE_S, max_commands=1)
    held = {asked.command_id: Held(asked, 0) for asked in (new_ask("prod") for _ in range(3))}
    verdicts, _ = ledger.connect(new_connection(), in_flight=list(held), unacked=(), held=held, now=0.0)
    assert [verdict.action for verdict in verdicts].count(wire.VERDICT_ACTION_KEEP) == 1
    assert len(ledger.commands) == 1
