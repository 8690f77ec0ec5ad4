"""What one command has to do with identical ones. What is made of it is in `twins`."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from openline.v1 import command_pb2, executor_service_pb2

if TYPE_CHECKING:
    from broker.core.command import Command


@dataclass(slots=True, eq=False)
class Twin:
    """Of a command that may be shared."""

    # The same for identical commands, and for no others.
    key: Hashable
    # What its executor had announced when it was written: the same object for as long as the connection is the same,
    # and what the executor allows and masks.
    announced: executor_service_pb2.Capabilities | None = None
    # The command whose result it waits for, QUEUED and in no line; and those that wait for its own. One of the two.
    lead: "Command | None" = None
    joined: "dict[str, Command]" = field(default_factory=dict)
    # How its run has ended, where its own result was fixed before: it was cancelled while others waited for it.
    ran: command_pb2.CommandResult | None = None
