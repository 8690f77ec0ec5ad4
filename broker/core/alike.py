"""Which commands are identical, and what the end of one is worth to another. What is made of that is in `twins`."""

from collections.abc import Hashable
from functools import lru_cache

from broker.core.command import Ask, Command
from openline.policy import Reading, read
from openline.reasons import NO, Reason, reason_of
from openline.v1 import command_pb2

CommandResult = command_pb2.CommandResult

# Longer ones are rarely asked for twice, and would fill the memory of what was read.
MAX_ARGV_CHARACTERS = 2048
# So much more time than the one whose time was up had is worth a run of one's own.
WORTH_S = 1.0
# So close to its deadline a command may end with an exit code because of that: `rollout status` has a --timeout for it.
SHORT_S = 3.0


def key_of(ask: Ask) -> Hashable | None:
    """What identical commands have in common, and no others; None for one that is like no other.

    kubectl's reading of the words, not their spelling: `-n shop get pods` is `get pods --namespace=shop`.
    """
    if ask.live or len("".join(ask.argv)) > MAX_ARGV_CHARACTERS:
        return None
    reading = _read(ask.argv)
    return None if reading is None else (ask.cluster_id, ask.owner, ask.scopes, ask.max_output_bytes, reading)


@lru_cache(maxsize=1024)
def _read(argv: tuple[str, ...]) -> Reading | None:
    return read(argv)


def will_do(result: CommandResult, command: Command, other: Command, now: float) -> bool:
    """Whether the end of a command's run is an answer for an identical one that waited for it."""
    more_s = other.deadline - command.deadline
    match result.outcome:
        case command_pb2.OUTCOME_EXITED:
            return result.exit_code == 0 or now < command.deadline - SHORT_S or more_s < WORTH_S
        case command_pb2.OUTCOME_TIMED_OUT:
            return more_s < WORTH_S and result.error.executed != NO
        case _:
            return reason_of(result.error) is Reason.POLICY_DENIED


def answer_of(
    command: Command, other: Command, result: CommandResult, served_from: command_pb2.ServedFrom.ValueType, now: float
) -> CommandResult:
    """The result of the other one's run as this command's own."""
    told = CommandResult()
    told.CopyFrom(result)
    told.ClearField("hint")  # it is for the conversation of the one that ran
    told.command_id = command.command_id
    told.session_id = command.ask.session_id
    told.correlation_id = command.ask.correlation_id
    told.created_at.CopyFrom(command.asked_at)
    told.timings.total_s = now - command.created_at
    told.served_from = served_from
    # Another replica, to which the other one went, may have shared it there.
    told.run_by_command_id = result.run_by_command_id or other.command_id
    if other.executor_id:  # else it was placed behind this one, or runs somewhere else
        told.age_s += max(0.0, command.created_at - other.written_at)
    if told.HasField("error"):
        told.error.metadata["command_id"] = command.command_id
    return told
