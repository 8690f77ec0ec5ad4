"""Who waits for a command's result, and who watches it."""

import contextlib
from collections.abc import Callable, Iterator

from broker.core.command import Command
from broker.watching import Watch

Done = Callable[[Command], None]


class Audience:
    """By command id; a command that nobody is interested in takes no room."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[Done, None]] = {}
        self._watches: dict[str, list[Watch]] = {}

    def __repr__(self) -> str:
        return f"<Audience waiting={len(self._waiting)} watched={len(self._watches)}>"

    def attach(self, command: Command, done: Done) -> None:
        """`done` is called once, when the command has its result; at once if it has."""
        if command.result is not None:
            done(command)
        else:
            self._waiting.setdefault(command.command_id, {})[done] = None

    def leave(self, command: Command, done: Done) -> None:
        """Whoever waited for the command is gone; it runs on."""
        waiting = self._waiting.get(command.command_id, {})
        waiting.pop(done, None)
        if not waiting:
            self._waiting.pop(command.command_id, None)

    @contextlib.contextmanager
    def watch(self, command: Command, *, from_seq: int) -> Iterator[Watch]:
        """The events of a command as they happen, from an output seq on; read at the watcher's own pace."""
        watch = Watch(command, from_seq=from_seq)
        watches = self._watches.setdefault(command.command_id, [])
        watches.append(watch)
        try:
            yield watch
        finally:
            watches.remove(watch)
            if not watches:
                del self._watches[command.command_id]

    @property
    def is_watching(self) -> bool:
        """Somebody watches some command."""
        return bool(self._watches)

    def wake(self, command_id: str) -> None:
        """Something has happened to the command."""
        for watch in self._watches.get(command_id, ()):
            watch.wake()

    def tell(self, command: Command) -> None:
        """The command has its result."""
        for done in self._waiting.pop(command.command_id, ()):
            done(command)
        self.wake(command.command_id)
