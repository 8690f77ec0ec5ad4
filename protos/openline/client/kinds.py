"""How a command ended, where it is, and whose run an answer is: what the contract enumerates, for callers."""

from enum import StrEnum

from openline.v1 import command_pb2


class Outcome(StrEnum):
    """How a command ended."""

    EXITED = "exited"  # by itself; the exit code says how
    TIMED_OUT = "timed_out"  # the deadline passed and it was killed
    CANCELLED = "cancelled"  # on request
    LOST = "lost"  # its executor is gone: it may or may not have run
    REJECTED = "rejected"  # it was never started


class ServedFrom(StrEnum):
    """Whose run an answer is."""

    RUN = "run"  # the command's own
    SHARED = "shared"  # that of an identical command, which ran already
    CACHE = "cache"  # that of an identical command, which had ended a moment before


class CommandState(StrEnum):
    """Where a command is."""

    QUEUED = "queued"  # waits for its cluster, or for a free place
    FORWARDED = "forwarded"  # with the replica that has the executor
    WRITTEN = "written"  # on its way to the executor
    ACCEPTED = "accepted"  # the executor has it
    RUNNING = "running"
    DONE = "done"


OUTCOMES: dict[command_pb2.Outcome.ValueType, Outcome] = {
    command_pb2.OUTCOME_EXITED: Outcome.EXITED,
    command_pb2.OUTCOME_TIMED_OUT: Outcome.TIMED_OUT,
    command_pb2.OUTCOME_CANCELLED: Outcome.CANCELLED,
    command_pb2.OUTCOME_LOST: Outcome.LOST,
    command_pb2.OUTCOME_REJECTED: Outcome.REJECTED,
}
SERVED_FROM: dict[command_pb2.ServedFrom.ValueType, ServedFrom] = {
    command_pb2.SERVED_FROM_UNSPECIFIED: ServedFrom.RUN,
    command_pb2.SERVED_FROM_SHARED: ServedFrom.SHARED,
    command_pb2.SERVED_FROM_CACHE: ServedFrom.CACHE,
}
STATES: dict[command_pb2.CommandState.ValueType, CommandState] = {
    command_pb2.COMMAND_STATE_QUEUED: CommandState.QUEUED,
    command_pb2.COMMAND_STATE_FORWARDED: CommandState.FORWARDED,
    command_pb2.COMMAND_STATE_WRITTEN: CommandState.WRITTEN,
    command_pb2.COMMAND_STATE_ACCEPTED: CommandState.ACCEPTED,
    command_pb2.COMMAND_STATE_RUNNING: CommandState.RUNNING,
    command_pb2.COMMAND_STATE_DONE: CommandState.DONE,
}
