"""What replicas tell each other of a command that they do not have: enough to know when it is surely nowhere. Pure.

That nobody knows a command is not enough to run it anew. Whoever says so may have begun a moment ago; may know that
somebody else has it; or may look for it just like the one that asks, and both of them would run it.
"""

from broker.core.command import Command
from openline import errors
from openline.reasons import NO, UNKNOWN, Reason, reason_of
from openline.v1 import command_pb2

# In an error's metadata: since when the process that says it has been there, µs since 1970.
BEGAN = "replica_began_us"
# It looks for the command itself, and would run it.
SEEKS = "replica_seeks"


def unknown(*, began_us: int) -> command_pb2.Error:
    """There is no such command here."""
    return errors.error(Reason.COMMAND_UNKNOWN, "no such command", metadata={BEGAN: str(began_us)})


def expected(*, began_us: int) -> command_pb2.Error:
    """The command is about to be here."""
    return errors.error(
        Reason.BROKER_UNAVAILABLE, "it is about to be here", executed=UNKNOWN, metadata={BEGAN: str(began_us)}
    )


def elsewhere(command: Command, *, began_us: int) -> command_pb2.Error:
    """The command is not here, but it was: another replica has it, or it is looked for."""
    if command.is_sought and command.ask.is_anothers:
        # Only looked for here, never to be run.
        return unknown(began_us=began_us)
    told = {BEGAN: str(began_us)}
    if command.is_sought and command.may_return:
        told[SEEKS] = "yes"
    return errors.error(Reason.BROKER_UNAVAILABLE, "another replica may have it", executed=UNKNOWN, metadata=told)


def began_us(error: command_pb2.Error) -> int:
    """Since when the process that says this has been there; 0 if it did not say."""
    text = error.metadata.get(BEGAN, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def has_it_not(error: command_pb2.Error, *, asker: str, answerer: str) -> bool:
    """Whether the replica that says this has the command surely not, and leaves it to the one that has asked.

    Of several that look for it, the one with the first id runs it.
    """
    match reason_of(error):
        case Reason.COMMAND_UNKNOWN | Reason.RESULT_EXPIRED:
            return True
        case Reason.BROKER_UNAVAILABLE:
            return SEEKS in error.metadata and asker < answerer
    return False


def check_ran(result: command_pb2.CommandResult) -> None:
    """Raises CLUSTER_OFFLINE for a command that waited there until its executor had left: it may run elsewhere."""
    if result.error.reason == Reason.CLUSTER_OFFLINE and result.error.executed == NO:
        raise errors.OpenlineError(result.error)
