"""The spans of commands on their way to executors and back: from the Execute frame to the result."""

from broker.core.command import Command
from broker.core.connections import Connection
from openline.tracing.calls import Call, calling
from openline.tracing.spans import are_recorded
from openline.v1 import executor_service_pb2

# An Execute frame on the executor's stream is a call of the broker's, whoever has opened the stream.
METHOD = "ExecutorService/Connect"


class Dispatches:
    """By command id; empty while nothing is recorded."""

    def __init__(self) -> None:
        self._open: dict[str, Call] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, connection: Connection, execute: executor_service_pb2.Execute) -> None:
        """A command goes out on the connection, under its span from here on. Before it is sealed."""
        if not are_recorded():
            return
        # Written again, after a reconnect, or because nobody had it.
        self._leave(execute.command_id)
        self._open[execute.command_id] = calling(METHOD, execute, server=connection.cluster_id)

    def end(self, command: Command) -> None:
        """The command has its result, from wherever it came."""
        if not self._open or (call := self._open.pop(command.command_id, None)) is None:
            return
        if command.result is not None:
            call.result(command.result)
        call.end()

    def _leave(self, command_id: str) -> None:
        if (call := self._open.pop(command_id, None)) is not None:
            call.left()
            call.end()
