"""What the ledger wants done: returned by its decisions, carried out by the dispatcher, in order."""

from dataclasses import dataclass

from broker.core.command import Command
from broker.core.connections import Connection
from openline.v1 import executor_service_pb2


@dataclass(frozen=True, slots=True)
class Send:
    """Put this frame on the connection's stream."""

    connection: Connection
    frame: executor_service_pb2.BrokerFrame


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection's stream: a newer one has taken its place."""

    connection: Connection
    why: str


@dataclass(frozen=True, slots=True)
class Conclude:
    """The command has its result: answer whoever waits, and store it; `Ledger.settled` follows."""

    command: Command


@dataclass(frozen=True, slots=True)
class Forward:
    """The command is another replica's business: hand it over, follow it there, or look for it, as it says itself."""

    command: Command


Action = Send | Close | Conclude | Forward
