"""Who is next in one cluster."""

from collections.abc import Callable
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from broker.core.command import Command
from broker.core.queue import MAX_WAITING, MAX_WAITING_OF_CALLER, MAX_WAITING_OF_SHARE, FairQueue

Make = Callable[..., Any]


def fill(queue: FairQueue, new_ask: Make, count: int = 1, **fields: Any) -> list[Command]:
    commands = [Command(ask=new_ask(**fields), created_at=0.0, asked_at=Timestamp()) for _ in range(count)]
    for command in commands:
        assert queue.has_room(command.ask.share)
        queue.put(command)
    return commands


def drain(queue: FairQueue) -> list[Command]:
    popped: list[Command] = []
    while (command := queue.pop()) is not None:
        popped.append(command)
    return popped


def test_one_line_is_first_come_first_served(new_ask: Make) -> None:
    queue = FairQueue()
    commands = fill(queue, new_ask, 5)
    assert repr(queue) == "<FairQueue waiting=5 callers=1>"
    assert drain(queue) == commands
    assert not queue


def test_callers_take_turns(new_ask: Make) -> None:
    """Alice's hundred were there first; bob's and carol's pass in the next turns."""
    queue = FairQueue()
    alice = fill(queue, new_ask, 100)
    [bob] = fill(queue, new_ask, owner="bob")
    carol = fill(queue, new_ask, 2, owner="carol")
    assert drain(queue)[:6] == [alice[0], bob, carol[0], alice[1], carol[1], alice[2]]


def test_the_conversations_of_one_caller_take_turns(new_ask: Make) -> None:
    """A session, or without one the correlation id, tells one caller's agents apart."""
    queue = FairQueue()
    looping = fill(queue, new_ask, 50, session_id="s-1", correlation_id="whatever")
    [other] = fill(queue, new_ask, session_id="s-2")
    [third] = fill(queue, new_ask, correlation_id="c-1")
    assert drain(queue)[:4] == [looping[0], other, third, looping[1]]


def test_a_new_conversation_for_each_command_wins_nothing(new_ask: Make) -> None:
    """A correlation id is whatever the caller says: the others' turns come as if it had only one."""
    queue = FairQueue()
    for n in range(300):
        fill(queue, new_ask, correlation_id=f"c-{n}")
    bob = fill(queue, new_ask, 3, owner="bob")
    order = drain(queue)
    assert [order.index(command) for command in bob] == [1, 3, 5]


def test_one_that_came_late_is_not_behind_those_who_were_served_before(new_ask: Make) -> None:
    """Whose turn it is is kept between pops, also when a line runs empty and comes again."""
    queue = FairQueue()
    alice = fill(queue, new_ask, 3)
    [bob] = fill(queue, new_ask, owner="bob")
    assert [queue.pop(), queue.pop()] == [alice[0], bob]
    [again] = fill(queue, new_ask, owner="bob")
    assert drain(queue) == [alice[1], again, alice[2]]


def test_what_does_not_wait_any_more_is_taken_out_wherever_it_stands(new_ask: Make) -> None:
    """What is not there changes nothing, and nothing is left of who has nothing."""
    queue = FairQueue()
    first, middle, last = fill(queue, new_ask, 3)
    [bob] = fill(queue, new_ask, owner="bob")
    for command in (middle, middle, bob):
        queue.discard(command)
    assert list(queue) == [first, last]
    assert len(queue) == 2
    assert drain(queue) == [first, last]
    assert not queue._callers
    assert not queue._waiting


def test_there_is_room_for_others_beside_one_line_and_beside_one_caller(new_ask: Make) -> None:
    """A line is bounded, a caller with many lines is, and all of them together are."""
    queue = FairQueue()
    fill(queue, new_ask, MAX_WAITING_OF_SHARE, session_id="s-0")
    assert not queue.has_room(("alice", "s-0"))
    assert queue.has_room(("alice", "s-1"))
    for n in range(MAX_WAITING_OF_CALLER - MAX_WAITING_OF_SHARE):
        fill(queue, new_ask, correlation_id=f"c-{n}")
    assert not queue.has_room(("alice", "a new one"))
    for owner in range(MAX_WAITING - MAX_WAITING_OF_CALLER):
        fill(queue, new_ask, owner=f"owner-{owner}")
    assert len(queue) == MAX_WAITING
    assert not queue.has_room(("dave", ""))
    assert queue.pop() is not None
    assert queue.has_room(("dave", ""))
    assert "dave" not in queue._waiting


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from(["a", "b", "c"]), st.sampled_from(["", "x", "y"])),
            st.tuples(st.just("pop"), st.just(""), st.just("")),
            st.tuples(st.just("discard"), st.integers(0, 9), st.just("")),
        ),
        max_size=60,
    )
)
def test_nothing_is_lost_and_nobody_waits_for_two_of_another(new_ask: Make, steps: list[tuple[str, Any, str]]) -> None:
    """Whatever comes and goes: each command comes out once, and between two of one caller each other one had a turn."""
    queue = FairQueue()
    waiting: list[Command] = []
    since: dict[str, set[str]] = {}  # by caller that was served: who has been waiting ever since and had no turn
    for step, what, conversation in steps:
        match step:
            case "put":
                waiting += fill(queue, new_ask, owner=what, correlation_id=conversation)
            case "discard" if what < len(waiting):
                command = waiting.pop(what)
                queue.discard(command)
                if command.ask.owner not in {one.ask.owner for one in waiting}:
                    for passed in since.values():
                        passed.discard(command.ask.owner)
            case "pop":
                command_ = queue.pop()
                assert (command_ is None) == (not waiting)
                if command_ is not None:
                    owner = command_.ask.owner
                    waiting.remove(command_)
                    assert not since.get(owner)
                    for passed in since.values():
                        passed.discard(owner)
                    since[owner] = {one.ask.owner for one in waiting} - {owner}
        assert len(queue) == len(waiting) == sum(queue._waiting.values())
        assert set(queue) == set(waiting)
    assert set(drain(queue)) == set(waiting)
    assert repr(queue) == "<FairQueue waiting=0 callers=0>"
