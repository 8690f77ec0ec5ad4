"""What other replicas tell of the commands that they have: output, ends, and that they do not have them.

What is told of a command that is not theirs, any more or yet, changes nothing.
"""

from broker.core.account import Account
from broker.core.actions import Action
from broker.core.command import Command
from broker.core.life import Event, State
from broker.core.routes import Routes
from broker.core.told import believe
from openline import errors
from openline.reasons import NO, Reason, reason_of
from openline.v1 import command_pb2

_OUTCOMES: dict[Reason, command_pb2.Outcome.ValueType] = {
    Reason.CANCELLED: command_pb2.OUTCOME_CANCELLED,
    Reason.COMMAND_TIMEOUT: command_pb2.OUTCOME_TIMED_OUT,
}


class Relayed:
    """The part of the ledger that listens to peers."""

    def __init__(self, account: Account, routes: Routes) -> None:
        self._account = account
        self._routes = routes

    def event(self, command: Command, event: command_pb2.CommandEvent, now: float) -> list[Action]:
        """Something has happened to a command that is followed; its result is the last."""
        if command.state is not State.FORWARDED:
            return []
        match event.WhichOneof("event"):
            case "state":
                if event.state not in (command_pb2.COMMAND_STATE_QUEUED, command_pb2.COMMAND_STATE_FORWARDED):
                    command.may_return = False
            case "output":
                if event.output.seq > command.transcript.next_seq:
                    command.transcript.skip_to(event.output.seq)
                command.take(event.output)
            case "gap":
                if event.gap.next_seq > command.transcript.next_seq:
                    command.transcript.skip_to(event.gap.next_seq, missed_bytes=event.gap.missed_bytes)
            case "result":
                return self.answered(command, event.result, now)
        return []

    def answered(
        self, command: Command, result: command_pb2.CommandResult, now: float, *, degraded: bool = False
    ) -> list[Action]:
        """The command has its result, which the other replica stores; `degraded` says that it cannot do so yet."""
        if command.state is not State.FORWARDED:
            return []
        command.is_degraded = degraded
        told = command_pb2.CommandResult()
        told.CopyFrom(result)
        believe(told)
        if command.ask.live:
            # What this replica was not told before it lost sight of the command: its watchers see a gap there.
            transcript = command.transcript
            total_bytes = told.stdout_summary.total_bytes + told.stderr_summary.total_bytes
            missed_bytes = total_bytes - (transcript.offset(transcript.next_seq) or 0)
            if missed_bytes > 0:
                transcript.skip_to(transcript.next_seq + 1, missed_bytes=missed_bytes)
        command.apply(Event.ANSWERED)
        command.is_stored_elsewhere = True
        total_s = now - command.created_at
        told.timings.route_s += max(0.0, total_s - told.timings.total_s)
        told.timings.total_s = total_s
        command.conclude(told)
        return self._account.concluded(command, now)

    def refused(self, command: Command, error: command_pb2.Error, now: float) -> list[Action]:
        """The other replica says why the command has not been run; or, if that is not sure, why it has no result."""
        if command.state is not State.FORWARDED:
            return []
        unusual = command_pb2.OUTCOME_REJECTED if error.executed == NO else command_pb2.OUTCOME_LOST
        outcome = _OUTCOMES.get(reason_of(error), unusual)
        return self._account.end(command, Event.ANSWERED, outcome, error, now)

    def mistaken(self, command: Command, now: float) -> list[Action]:
        """A command that was looked for is there, and is another request's."""
        command.has_anothers_id = True
        return self.refused(command, errors.error(Reason.INVALID_COMMAND, "command_id is in use"), now)

    def returned(self, command: Command, now: float) -> list[Action]:
        """The other replica has not taken the command, or it is sure that nobody has it."""
        return self._routes.returned(command, now) if command.state is State.FORWARDED else []

    def unknown(self, command: Command, now: float) -> list[Action]:
        """The replica that was believed to have the command does not know it."""
        if command.state is not State.FORWARDED:
            return []
        if command.may_return:
            # That replica may have told another one to look for it, or have begun anew.
            return self._routes.seek(command, now, may_return=True)
        return self._account.lose(command, "its executor has no memory of it", now)

    def lost_sight(self, command: Command, now: float) -> list[Action]:
        """The replica that has the command is gone: the command is looked for."""
        if command.state is not State.FORWARDED or command.is_sought:
            return []
        return self._routes.seek(command, now, may_return=command.may_return)

    def found(self, command: Command, replica_id: str, now: float, *, is_queued: bool) -> list[Action]:
        """A command that was looked for is there; once it has left the queue it never returns."""
        if not command.is_sought:
            return []
        command.may_return = command.may_return and is_queued
        return self._routes.follow(command, replica_id, now)

    def given_up(self, command: Command, why: str, now: float) -> list[Action]:
        """A command that was looked for is not found."""
        return self._account.lose(command, why, now) if command.is_sought else []
