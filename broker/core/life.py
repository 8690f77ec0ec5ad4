"""The life of a command in the broker, as a table.

                      REJECTED, EXPIRED, CANCELLED, STRANDED, INSTANCE_GONE, VIOLATED
              ┌────────────────┬──────────────┬──────────────┐
              │                │              │              ▼
    QUEUED ─WRITTEN─▶ WRITTEN ─ACCEPTED─▶ ACCEPTED ─STARTED─▶ RUNNING ─FINISHED─▶ DONE
       ▲                 │
       └────RETURNED─────┘

    QUEUED, or held by an instance that is connected elsewhere now ─FORWARDED─▶ FORWARDED ─ANSWERED─▶ DONE
                                                                                └─RETURNED─▶ QUEUED

A command that is asked to be cancelled while an executor holds it keeps its state: it ends when the executor says
FINISHED, like any other.
"""

from enum import Enum

from openline.v1 import command_pb2


class State(Enum):
    """Where a command is; the values are the contract's."""

    # This replica owns it. Never written to a stream, so it may be placed on any connection.
    QUEUED = command_pb2.COMMAND_STATE_QUEUED
    # One stream owns it. It may be written again, only to the same executor instance, unless that has refused it.
    WRITTEN = command_pb2.COMMAND_STATE_WRITTEN
    # The executor instance owns it. Never sent again, only asked after.
    ACCEPTED = command_pb2.COMMAND_STATE_ACCEPTED
    # The executor instance owns it, and there is a process.
    RUNNING = command_pb2.COMMAND_STATE_RUNNING
    # Nobody owns it. Its result is fixed; what still arrives is acknowledged and changes nothing.
    DONE = command_pb2.COMMAND_STATE_DONE
    # Another replica owns it, which has the executor, and tells what becomes of it. Or it is looked for, since that
    # replica is gone, or was never known. Never placed again, unless it is sure that nobody has it.
    FORWARDED = command_pb2.COMMAND_STATE_FORWARDED


class Event(Enum):
    """What can happen to a command, and who says so."""

    # From this replica:
    WRITTEN = "written"  # put on a stream of an executor that has not had it
    CANCELLED = "cancelled"  # cancelled before it was written
    STRANDED = "stranded"  # its cluster went away before it was written
    SHARED = "shared"  # the result of an identical command is its own
    EXPIRED = "expired"  # the deadline passed, and the allowance for the executor's own answer
    VIOLATED = "violated"  # the executor broke the order of frames for this command
    # From the executor's frames:
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    STARTED = "started"
    FINISHED = "finished"
    # From other replicas, and the second from executors that are stopping:
    FORWARDED = "forwarded"  # handed over, or looked for there
    RETURNED = "returned"  # not taken, or sure to be nowhere: it may be placed anew
    ANSWERED = "answered"  # its result has come
    # From its connections:
    RESUMED = "resumed"  # the same instance is back
    INSTANCE_GONE = "instance gone"  # another instance took its place, or it stayed away for longer than the grace


class OutOfOrder(Exception):
    """An event that the table does not have for the state."""


S, E = State, Event

# An absent key is the error.
TRANSITIONS: dict[tuple[State, Event], State] = {
    (S.QUEUED, E.WRITTEN): S.WRITTEN,
    (S.QUEUED, E.CANCELLED): S.DONE,
    (S.QUEUED, E.STRANDED): S.DONE,
    (S.QUEUED, E.SHARED): S.DONE,
    (S.QUEUED, E.EXPIRED): S.DONE,
    (S.WRITTEN, E.ACCEPTED): S.ACCEPTED,
    (S.WRITTEN, E.REJECTED): S.DONE,
    (S.WRITTEN, E.RETURNED): S.QUEUED,  # rejected by an executor that is stopping
    (S.WRITTEN, E.RESUMED): S.WRITTEN,  # written again: the instance's memory of recent ids answers
    (S.WRITTEN, E.INSTANCE_GONE): S.DONE,  # its Accepted may have been lost: never sent elsewhere
    (S.WRITTEN, E.EXPIRED): S.DONE,
    (S.WRITTEN, E.VIOLATED): S.DONE,
    (S.ACCEPTED, E.STARTED): S.RUNNING,
    (S.ACCEPTED, E.FINISHED): S.DONE,  # expired or cancelled in the executor's queue, or it could not be spawned
    (S.ACCEPTED, E.ACCEPTED): S.ACCEPTED,  # said again after a reconnect
    (S.ACCEPTED, E.RESUMED): S.ACCEPTED,
    (S.ACCEPTED, E.INSTANCE_GONE): S.DONE,
    (S.ACCEPTED, E.EXPIRED): S.DONE,
    (S.ACCEPTED, E.VIOLATED): S.DONE,
    (S.RUNNING, E.ACCEPTED): S.RUNNING,
    (S.RUNNING, E.STARTED): S.RUNNING,
    (S.RUNNING, E.FINISHED): S.DONE,
    (S.RUNNING, E.RESUMED): S.RUNNING,
    (S.RUNNING, E.INSTANCE_GONE): S.DONE,
    (S.RUNNING, E.EXPIRED): S.DONE,
    (S.RUNNING, E.VIOLATED): S.DONE,
    # An executor that is connected elsewhere has it, or it was never here:
    (S.QUEUED, E.FORWARDED): S.FORWARDED,
    (S.WRITTEN, E.FORWARDED): S.FORWARDED,
    (S.ACCEPTED, E.FORWARDED): S.FORWARDED,
    (S.RUNNING, E.FORWARDED): S.FORWARDED,
    (S.FORWARDED, E.FORWARDED): S.FORWARDED,  # found somewhere else
    (S.FORWARDED, E.RETURNED): S.QUEUED,
    (S.FORWARDED, E.ANSWERED): S.DONE,
    (S.FORWARDED, E.RESUMED): S.ACCEPTED,  # its executor has come here, and has it
    (S.FORWARDED, E.INSTANCE_GONE): S.DONE,
    (S.FORWARDED, E.EXPIRED): S.DONE,
    # Frames that crossed the end on their way:
    (S.DONE, E.ACCEPTED): S.DONE,
    (S.DONE, E.REJECTED): S.DONE,
    (S.DONE, E.STARTED): S.DONE,
    (S.DONE, E.FINISHED): S.DONE,
}


def after(state: State, event: Event) -> State:
    """The state that follows. Raises OutOfOrder where the table has none."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise OutOfOrder(f"{event.value} while {state.name.lower()}") from None
