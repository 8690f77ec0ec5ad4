"""What executors say of commands, frame by frame: believed only from the instance that a command was written to.

A frame that is out of order ends its command, and only that.
"""

from broker.core.account import Account, Following, Step, acknowledge, credit, stop
from broker.core.actions import Action
from broker.core.command import Command
from broker.core.connections import Connection
from broker.core.life import Event, OutOfOrder, State
from broker.core.told import is_end, told
from openline import errors, limits
from openline.reasons import Reason, reason_of
from openline.v1 import command_pb2, executor_service_pb2

Frame = executor_service_pb2.ExecutorFrame


class Frames:
    """The part of the ledger that reads. `returned` places a command anew that an executor has not taken."""

    def __init__(self, account: Account, returned: Following) -> None:
        self._account = account
        self._returned = returned
        self._steps: dict[str, Step] = {
            "accepted": lambda command, _frame, _now: self._moved(command, Event.ACCEPTED),
            "started": lambda command, _frame, _now: self._moved(command, Event.STARTED),
            "rejected": self._rejected,
            "output": self._output,
            "finished": self._finished,
        }

    def receive(self, connection: Connection, frame: Frame, *, now: float) -> list[Action]:
        """What follows from a frame about a command; nothing from any other."""
        kind = frame.WhichOneof("frame")
        if kind is None or (step := self._steps.get(kind)) is None:
            return []
        command_id = getattr(frame, kind).command_id
        command = self._account.commands.get(command_id)
        actions = self._credit(connection, command, command_id, len(frame.output.data)) if kind == "output" else []
        if command is None:
            # Its result was stored and forgotten here; the ResultAck was lost on the way.
            return [*actions, acknowledge(connection, command_id)] if kind == "finished" else actions
        if command.instance != connection.instance:
            return actions
        try:
            return actions + step(command, frame, now)
        except OutOfOrder as disorder:
            error = errors.error(Reason.EXECUTOR_LOST, f"the executor broke the protocol: {disorder}")
            ended = self._account.end(command, Event.VIOLATED, command_pb2.OUTCOME_LOST, error, now)
            return [*actions, stop(connection, command_id, "out of order"), *ended]

    def _credit(self, connection: Connection, command: Command | None, command_id: str, size: int) -> list[Action]:
        """Output has arrived, of whatever command and had before or not: there is room for as much again."""
        actions: list[Action] = []
        connection.uncredited_bytes += size
        if connection.uncredited_bytes >= limits.STREAM_CREDIT_BYTES // 2:
            actions.append(credit(connection, command_id="", size=connection.uncredited_bytes))
            connection.uncredited_bytes = 0
        if command is None and size:
            # Nobody keeps it, but its Finished comes behind it, and only then can the executor forget the command.
            actions.append(credit(connection, command_id=command_id, size=size))
        # What a replaced connection still brings was sent on credit that is gone with it.
        elif command is not None and connection is self._account.connections.of_instance(command.instance):
            command.uncredited_bytes += size
            if command.uncredited_bytes >= limits.COMMAND_CREDIT_BYTES // 2:
                actions.append(credit(connection, command_id=command_id, size=command.uncredited_bytes))
                command.uncredited_bytes = 0
        return actions

    def _moved(self, command: Command, event: Event) -> list[Action]:
        command.apply(event)
        return []

    def _output(self, command: Command, frame: Frame, _now: float) -> list[Action]:
        if command.state is not State.DONE and len(frame.output.data) > limits.MAX_FRAME_BYTES:
            raise OutOfOrder(f"an output frame of {len(frame.output.data)} bytes")
        command.take(frame.output)
        return []

    def _rejected(self, command: Command, frame: Frame, now: float) -> list[Action]:
        connection = self._account.connections.of_instance(command.instance)
        is_busy = command.state is State.WRITTEN and reason_of(frame.rejected.error) is Reason.CLUSTER_BUSY
        if is_busy and connection is not None and connection.draining:
            # The command crossed the word that it is stopping, and has not run; there may be another one.
            connection.commands.discard(command.command_id)
            return self._returned(command, now)
        if not command.apply(Event.REJECTED):
            return []
        command.end(command_pb2.OUTCOME_REJECTED, told(frame.rejected.error, command_pb2.OUTCOME_REJECTED), now)
        return self._account.concluded(command, now)

    def _finished(self, command: Command, frame: Frame, now: float) -> list[Action]:
        if command.state is not State.DONE and not is_end(frame.finished.outcome):
            raise OutOfOrder(f"finished with outcome {frame.finished.outcome}")
        if not command.apply(Event.FINISHED):
            return []  # `settled` will acknowledge it
        command.finish(frame.finished, now)
        return self._account.concluded(command, now)
