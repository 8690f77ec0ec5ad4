"""One Execute on its way to its caller: answered once, or given something to watch, or abandoned."""

from collections.abc import Callable

from broker.core.command import Command
from broker.core.credentials import PEER, Caller
from broker.dispatcher import Dispatcher
from broker.rpc.finding import Found
from openline.v1 import command_pb2, command_service_pb2

Answer = command_service_pb2.ExecuteResponse | command_pb2.Error
# A command to watch: one that this replica has to do with, one that is done and stored, one that another replica has.
Source = Command | command_pb2.Command | Found


class Execution:
    """One Execute on its way. Answers once, unless it was abandoned before.

    A streaming one has `begun` called with what to watch, and is answered only if there is nothing to watch.
    """

    __slots__ = (
        "_answer",
        "_begun",
        "_cancel_on_disconnect",
        "_dispatcher",
        "_done",
        "caller",
        "command",
        "is_late",
        "on_refusal",
        "release",
        "replayed",
    )

    def __init__(
        self,
        dispatcher: Dispatcher,
        answer: Callable[[Answer], None],
        *,
        begun: Callable[[Source], None] | None,
        cancel_on_disconnect: bool,
    ) -> None:
        self._dispatcher = dispatcher
        self._answer: Callable[[Answer], None] | None = answer
        self._begun = begun
        self._cancel_on_disconnect = cancel_on_disconnect
        self._done: Callable[[Command], None] | None = None
        # Who asks, once the key was checked; another replica has done that for what it forwards.
        self.caller: Caller = PEER
        # Frees the idempotency key that this one has claimed.
        self.release: Callable[[], None] | None = None
        self.replayed = False
        # It was asked for when the command that its key stands for had ended.
        self.is_late = False
        # Called when it is refused before it is a command.
        self.on_refusal: Callable[[command_pb2.Error], None] | None = None
        self.command: Command | None = None

    @property
    def live(self) -> bool:
        return self._begun is not None

    @property
    def over(self) -> bool:
        """It was answered or abandoned."""
        return self._answer is None

    def answer(self, answer: Answer) -> None:
        """Tells the caller, once."""
        tell, self._answer = self._answer, None
        if tell is not None:
            if self.on_refusal is not None and self.command is None and isinstance(answer, command_pb2.Error):
                self.on_refusal(answer)
            tell(answer)

    def follow(self, command: Command, done: Callable[[Command], None]) -> None:
        """It is the execution of this command; `done` is called when that has its result."""
        self.command = command
        command.callers += 1
        self._done = done
        self.begin(command)
        self._dispatcher.audience.attach(command, done)

    def begin(self, source: Source) -> None:
        """Gives a streaming caller what to watch."""
        if self._begun is not None and not self.over:
            self._begun(source)

    def abandon(self) -> None:
        """The caller is gone: the command runs on, unless it was to be cancelled then and nobody else asked for it."""
        self._answer = None
        command, self.command = self.command, None
        if command is None:
            return
        command.callers -= 1
        # The one that holds the claim stays, to free it should the command not be run.
        if self._done is not None and self.release is None:
            self._dispatcher.audience.leave(command, self._done)
        if self._cancel_on_disconnect and not command.callers:
            self._dispatcher.cancel(command, why="the caller is gone")

    def free_key(self) -> None:
        """The command was surely not run: its idempotency key, if it has claimed one, may be used again."""
        release, self.release = self.release, None
        if release is not None:
            release()
