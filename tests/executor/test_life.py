"""The table of a command's life."""

import pytest

from executor.life import HAS_PLACE, STOPPABLE, TRANSITIONS, Command, Event, State
from executor.report import Report
from openline.v1 import executor_service_pb2 as wire


def reachable(state: State) -> set[State]:
    found = {state}
    while new := {to for (start, _), to in TRANSITIONS.items() if start in found} - found:
        found |= new
    return found


def test_every_state_is_reached_from_the_first() -> None:
    assert reachable(State.QUEUED) == set(State)


@pytest.mark.parametrize("state", list(State))
def test_every_state_leads_to_the_last(state: State) -> None:
    """No command is stuck, and from the last state nothing leads on."""
    assert State.FORGOTTEN in reachable(state)
    assert state is not State.FORGOTTEN or reachable(state) == {state}


def test_stoppable_is_what_the_table_can_stop() -> None:
    assert {state for state, event in TRANSITIONS if event is Event.STOPPED} == STOPPABLE


def test_a_place_is_held_until_the_process_has_ended() -> None:
    """A state holds a place exactly if the end of a process leads out of it."""
    assert {state for state, event in TRANSITIONS if event is Event.ENDED} == HAS_PLACE


def test_an_event_that_the_table_does_not_know_changes_nothing() -> None:
    command = Command(wire.Execute(command_id="a"), Report("a"), received_at=0.0, deadline=1.0)
    assert not command.apply(Event.ENDED)
    assert command.state is State.QUEUED
