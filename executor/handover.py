"""Handing over what commands wrote and how they ended: on its way while they run, kept until it is acknowledged. Pure.

What goes out when is in `flow`, how much is kept for how long in `memory`. Whether a command runs is `core`'s business.
"""

from collections.abc import Iterable

from executor import results
from executor.actions import Action, Ended, Erase, NotStarted, Result, Resume, Store
from executor.flow import Flow
from executor.life import Command, State
from executor.memory import Memory
from executor.report import STDERR, STDOUT, Report, Source
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire


class Handover:
    """The reports of all commands, and the commands that have ended."""

    def __init__(self) -> None:
        self._memory = Memory()
        self._flow = Flow()

    def __repr__(self) -> str:
        return f"<Handover {self._memory!r} {self._flow!r}>"

    def __len__(self) -> int:
        """How many results wait to be acknowledged."""
        return len(self._memory)

    @property
    def unacked(self) -> Iterable[Command]:
        """Commands that have ended and whose results are kept, oldest first."""
        return self._memory.unacked

    def finished(self, command_id: str) -> Command | None:
        """The command whose result is kept under this id."""
        return self._memory.finished(command_id)

    def executed(self, command_id: str) -> command_pb2.Executed.ValueType | None:
        """Whether a forgotten command was executed; None for an id that is not remembered."""
        return self._memory.executed(command_id)

    # The connection

    def open(self, allowed: wire.StreamLimits) -> None:
        """A new connection. `resume` must be called for every command that is not dropped."""
        self._flow.open(allowed)

    def close(self) -> None:
        self._flow.close()

    def resume(self, command: Command, next_seq: int, now: float) -> list[Action] | None:
        """Goes on where the broker says it is; None if that output is not here any more."""
        if not self._flow.resume(command.report, next_seq):
            return None
        return self._flow.push(command.report, now)

    def sever(self, command: Command, now: float) -> list[Action]:
        """Gives up the output of a live command; a process that was held up for it is let go."""
        report = command.report
        report.sever()
        actions: list[Action] = [results.note("output.severed", command.execute, warning=True)]
        if report.held:
            report.held = False
            actions.append(Resume(command.command_id))
        return actions + self._flow.push(report, now)

    def tell_again(self, command: Command, now: float) -> list[Action]:
        """The result once more, on the same connection, with as much of the output as is still here."""
        if not self._flow.resume(command.report, 0):
            command.report.told = False
        return self._flow.push(command.report, now)

    def grant(self, command: Command, credit_bytes: int, now: float) -> list[Action]:
        """Credit of one command."""
        return self._flow.grant_report(command.report, credit_bytes, now)

    def grant_stream(self, credit_bytes: int, now: float) -> list[Action]:
        self._flow.grant(credit_bytes)
        return self._flow.pump(now)

    # Reports, from their beginning to the acknowledgement

    def report(self, execute: wire.Execute) -> Report:
        """The report of a command that is new."""
        return self._flow.report(execute.command_id, live=execute.live)

    def write(self, command: Command, source: Source, data: bytes, now: float) -> list[Action]:
        """The process of a live command wrote something."""
        return self._flow.write(command.report, source, data, now)

    def finish(self, command: Command, end: Ended | NotStarted | None, now: float) -> list[Action]:
        """Keeps the result of a command until it is acknowledged, and sends it."""
        report = command.report
        finished = results.finished(command, end, now)
        if isinstance(end, Ended):  # of a live command it is there already
            report.write(STDOUT, end.stdout.data)
            report.write(STDERR, end.stderr.data)
        report.close(finished, now)
        note = results.finished_note(command, finished)
        kept = Store(Result(command.execute, report, command.executed))
        return [note, kept, *self._keep(command), *self._flow.push(report, now)]

    def restore(self, result: Result, *, now: float) -> list[Action]:
        """A result that an earlier process of this executor left, finished and not acknowledged."""
        result.report.ended_at = now
        # Its deadline was on the clock of that process.
        command = Command(result.execute, result.report, received_at=now, deadline=now, state=State.FINISHED)
        command.executed = result.executed
        return self._keep(command)

    def settle(self, command_id: str) -> list[Action]:
        """The result of a command is stored; nothing of it need be kept."""
        if self._memory.finished(command_id) is None:
            return []
        self._memory.settle(command_id)
        return self._let_go(command_id)

    def forget(self, command: Command) -> list[Action]:
        """A command that nobody waits for: only its id is kept."""
        self._memory.forget(command)
        return self._let_go(command.command_id)

    def _keep(self, command: Command) -> list[Action]:
        actions: list[Action] = []
        for dropped in self._memory.keep(command):
            actions += self._let_go(dropped.command_id)
            actions.append(results.note("result.dropped", dropped.execute, warning=True))
        return actions

    def _let_go(self, command_id: str) -> list[Action]:
        self._flow.drop(command_id)
        return [Erase(command_id)]
