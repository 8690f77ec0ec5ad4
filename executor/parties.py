"""What a connection and an executor's commands ask of each other, so that either can be had without the other."""

from typing import Protocol

from openline.v1 import executor_service_pb2 as wire


class Put(Protocol):
    """Puts a frame on the stream."""

    def __call__(self, frame: wire.ExecutorFrame, *, output: bool = False) -> None: ...


class Commands(Protocol):
    """What a connection asks of an executor's commands; `executor.commands` has the ones that run."""

    @property
    def load(self) -> tuple[int, int]:
        """How many commands run and how many wait."""

    @property
    def idle(self) -> bool:
        """Nothing runs and no result waits to be acknowledged."""

    def held(self) -> wire.Hello:
        """What Hello says of the commands, now."""

    def welcomed(self, welcome: wire.Welcome, put: Put) -> None:
        """A broker has answered: from now on frames go to `put`."""

    def received(self, frame: wire.BrokerFrame) -> None:
        """A frame about a command has come."""

    def disconnected(self) -> None:
        """The connection has ended."""
