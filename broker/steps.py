"""What becomes of each command, step by step: lines of a log at debug, and no cost of any other."""

from collections.abc import Mapping

import structlog

from broker.core.command import Command
from broker.core.connections import Connection
from openline.loudness import LOUDNESS
from openline.v1.executor_service_pb2 import ExecutorFrame

log = structlog.get_logger()


def placed(command: Command) -> None:
    """It was asked for, and is where it is."""
    if LOUDNESS.is_debug:
        log.debug(
            "command.placed",
            **command.ask.names,
            cluster_id=command.ask.cluster_id,
            state=command.state.name.lower(),
            executor_id=command.executor_id,
            to_replica=command.replica_id,
        )


def cancelled(command: Command, why: str) -> None:
    """Somebody wants it to be stopped, or nobody its result."""
    if LOUDNESS.is_debug:
        log.debug("command.cancelled", **command.ask.names, state=command.state.name.lower(), why=why)


def heard(commands: Mapping[str, Command], connection: Connection, frame: ExecutorFrame) -> None:
    """Its executor has said something of it."""
    if LOUDNESS.is_debug and (kind := frame.WhichOneof("frame")) not in (None, "output"):
        command = commands.get(command_id := getattr(frame, str(kind)).command_id)
        names = {"command_id": command_id} if command is None else command.ask.names
        log.debug(f"command.{kind}", **names, cluster_id=connection.cluster_id, executor_id=connection.executor_id)
