"""What the ledger wants done: returned by its decisions, carried out by the dispatcher, in order."""

from typing import NamedTuple

from broker.core.command import Command
from broker.core.connections import Connection
from openline.v1 import executor_service_pb2


class Send(NamedTuple):
    """Put this frame on the connection's stream."""

    connection: Connection
    frame: executor_service_pb2.BrokerFrame


class Close(NamedTuple):
    """End the connection's stream: a newer one has taken its place."""

    connection: Connection
    why: str


class Conclude(NamedTuple):
    """The command has its result: answer whoever waits, and store it; `Ledger.settled` follows."""

    command: Command


class Tell(NamedTuple):
    """The command has its result: answer whoever waits. What it runs goes on for others; `Conclude` follows its end."""

    command: Command


class Forward(NamedTuple):
    """The command is another replica's business: hand it over, follow it there, or look for it, as it says itself."""

    command: Command


Action = Send | Close | Conclude | Tell | Forward
