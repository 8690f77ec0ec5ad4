"""The life of a command as a table."""

from collections.abc import Callable
from typing import Any

import pytest

from broker.core.life import TRANSITIONS, Event, OutOfOrder, State, after
from openline.v1 import command_pb2, executor_service_pb2

# What each event is for the states that the table does not list, so that no pair is forgotten.
ONLY_FROM_THE_LEDGER = {
    Event.WRITTEN,
    Event.CANCELLED,
    Event.STRANDED,
    Event.SHARED,
    Event.EXPIRED,
    Event.VIOLATED,
    Event.RESUMED,
    Event.INSTANCE_GONE,
    Event.FORWARDED,
    Event.RETURNED,
    Event.ANSWERED,
}
SAID_BY_EXECUTORS = {Event.ACCEPTED, Event.REJECTED, Event.STARTED, Event.FINISHED}
HELD_BY_EXECUTORS = {State.WRITTEN, State.ACCEPTED, State.RUNNING}


def test_every_event_is_somebodys() -> None:
    """An event comes from this replica, its connections and its peers, or from a frame; there is no third."""
    assert set(Event) == ONLY_FROM_THE_LEDGER | SAID_BY_EXECUTORS
    assert not ONLY_FROM_THE_LEDGER & SAID_BY_EXECUTORS


def test_states_are_the_contracts() -> None:
    """Each state of the contract is a state here, under the same name."""
    names = {name.removeprefix("COMMAND_STATE_"): value for name, value in command_pb2.CommandState.items() if value}
    assert {state.name: state.value for state in State} == names


@pytest.mark.parametrize("state", State)
def test_every_state_reaches_done(state: State) -> None:
    """No command can be stuck."""
    reached = {state}
    while more := {to for (at, _), to in TRANSITIONS.items() if at in reached} - reached:
        reached |= more
    assert State.DONE in reached


@pytest.mark.parametrize("event", Event)
def test_done_is_never_left(event: Event) -> None:
    """A result does not change."""
    assert TRANSITIONS.get((State.DONE, event), State.DONE) is State.DONE


@pytest.mark.parametrize("event", sorted(SAID_BY_EXECUTORS, key=lambda event: event.name))
def test_a_frame_that_crossed_the_end_changes_nothing(event: Event) -> None:
    """Each kind of frame may arrive after the end: it is no violation."""
    assert after(State.DONE, event) is State.DONE


@pytest.mark.parametrize("state", sorted(HELD_BY_EXECUTORS, key=lambda state: state.name))
def test_what_an_executor_holds_can_end_without_it(state: State) -> None:
    """Time, the loss of the instance and a broken protocol end a command in every state that an executor holds."""
    for event in (Event.EXPIRED, Event.INSTANCE_GONE, Event.VIOLATED):
        assert after(state, event) is State.DONE


@pytest.mark.parametrize("state", sorted(HELD_BY_EXECUTORS, key=lambda state: state.name))
def test_a_reconnect_does_not_move_a_command(state: State) -> None:
    """What is known of it stays known."""
    assert after(state, Event.RESUMED) is state


def test_a_queued_command_is_no_executors() -> None:
    """What was never written cannot be answered, lost or resumed."""
    for event in SAID_BY_EXECUTORS | {Event.RESUMED, Event.INSTANCE_GONE, Event.VIOLATED}:
        with pytest.raises(OutOfOrder):
            after(State.QUEUED, event)


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.WRITTEN, Event.STARTED),
        (State.WRITTEN, Event.FINISHED),
        (State.ACCEPTED, Event.REJECTED),
        (State.RUNNING, Event.REJECTED),
    ],
)
def test_frames_out_of_order(state: State, event: Event) -> None:
    """Accepted comes before Started and Finished, and what was accepted cannot be rejected."""
    with pytest.raises(OutOfOrder, match=f"{event.value} while {state.name.lower()}"):
        after(state, event)


def test_no_state_is_entered_twice_by_writing() -> None:
    """Only what was never written is written for the first time."""
    assert [at for (at, event) in TRANSITIONS if event is Event.WRITTEN] == [State.QUEUED]


def test_every_kind_of_frame_is_handled_by_somebody(new_desk: Callable[[], Any]) -> None:
    """Each frame of the contract is the ledger's or the connection's own; none falls between."""
    kinds = {field.name for field in executor_service_pb2.ExecutorFrame.DESCRIPTOR.oneofs_by_name["frame"].fields}
    of_the_connection = {"hello", "heartbeat", "draining", "credential", "capabilities"}
    of_the_ledger = set(new_desk().ledger._frames._steps)
    assert of_the_ledger | of_the_connection == kinds
    assert not of_the_ledger & of_the_connection
