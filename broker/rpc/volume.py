"""How many bytes came and went, by method: counted where messages are read and written, so that streams are as well."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Volume:
    """Of one replica, of the calls that others have opened here."""

    def __init__(self) -> None:
        # By the method's name with its service's, such as `CommandService.Pipe`.
        self.received: dict[str, int] = {}
        self.sent: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Volume received={sum(self.received.values())} sent={sum(self.sent.values())}>"

    def reading(self, method: str, parse: Callable[[bytes], T]) -> Callable[[bytes], T]:
        """`parse`, and what it is given is counted."""
        received = self.received
        received[method] = 0

        def count(message: bytes) -> T:
            received[method] += len(message)
            return parse(message)

        return count

    def writing(self, method: str, render: Callable[[T], bytes]) -> Callable[[T], bytes]:
        """`render`, and what it makes is counted."""
        sent = self.sent
        sent[method] = 0

        def count(message: T) -> bytes:
            rendered = render(message)
            sent[method] += len(rendered)
            return rendered

        return count
