"""What callers may ask: counted, shared with other replicas, given back."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.quotas import Admitted, Name, Quota, Quotas, full
from broker.core.usage import IN_FLIGHT_TTL_S, WINDOW_S, Told
from openline.errors import OpenlineError
from openline.reasons import NO, Reason

NOW = 1_800_000_000.0


def admit(
    quotas: Quotas, quota: Quota, *, owner: str = "alice", of: str = "", now: float = NOW, again: bool = False
) -> Admitted:
    return quotas.admit(owner, quota, of=of, again=again, now=now)


def refusal(quotas: Quotas, quota: Quota, *, now: float = NOW) -> OpenlineError:
    with pytest.raises(OpenlineError) as refused:
        admit(quotas, quota, now=now)
    return refused.value


def share(replicas: Iterable[Quotas], *, now: float) -> None:
    """As Redis does it: each hears what all the others have said."""
    said = [(quotas, usage, usage.says(now)) for quotas in replicas for usage in quotas.to_tell(at_most=100, now=now)]
    for quotas, usage, told in said:
        of_others = [other for them, theirs, other in said if them is not quotas and theirs.owner == usage.owner]
        commands = sum(other.commands for other in of_others if other.window == told.window)
        quotas.heard([(usage, told, Told(told.window, commands, sum(o.in_flight for o in of_others)))], now=now)


def test_no_quota_is_no_limit() -> None:
    """Nor is a caller's own one that has no numbers; one that has wins over everybody's."""
    assert Quotas(Quota()).applying(None) is None
    everybodys, own = Quota(commands=5), Quota(in_flight=1)
    quotas = Quotas(everybodys)
    assert quotas.applying(None) is everybodys
    assert quotas.applying(Quota()) is None
    assert quotas.applying(own) is own


def test_a_window_holds_so_many_commands_and_then_begins_anew() -> None:
    """The refusal says when; every owner's window ends at another second, on all replicas at the same."""
    quotas, quota = Quotas(Quota()), Quota(commands=3)
    for left in (2, 1, 0):
        admit(quotas, quota).end()
        [state] = quotas.states("alice", quota, of="", now=NOW)
        assert (state.name, state.limit, state.remaining, state.window_s) == ("commands", 3, left, WINDOW_S)
    refused = refusal(quotas, quota)
    assert (refused.reason, refused.error.executed) == (Reason.QUOTA_EXCEEDED, NO)
    assert 0 < refused.retry_after_s <= WINDOW_S
    assert dict(refused.metadata) == {
        "quota": "commands",
        "limit": "3",
        "remaining": "0",
        "window_s": "60",
        "reset_s": f"{refused.retry_after_s:.3f}",
    }
    admit(quotas, quota, now=NOW + refused.retry_after_s + 0.001)
    [bobs] = quotas.states("bob", quota, of="", now=NOW)
    [elsewhere] = Quotas(Quota()).states("bob", quota, of="", now=NOW)
    assert refused.retry_after_s != bobs.reset_s == elsewhere.reset_s


def test_a_place_in_flight_is_free_when_its_command_ends() -> None:
    quotas, quota = Quotas(Quota()), Quota(in_flight=2)
    first, _second = admit(quotas, quota), admit(quotas, quota)
    refused = refusal(quotas, quota)
    assert (refused.metadata["quota"], refused.metadata["limit"], refused.retry_after_s) == ("in-flight", "2", 1.0)
    first.end()
    first.end()
    admit(quotas, quota)
    refusal(quotas, quota)
    assert quotas.refused == {Name.COMMANDS: 0, Name.IN_FLIGHT: 2}


def test_what_was_not_run_is_given_back() -> None:
    """But not to a window that it was not taken from."""
    quotas, quota = Quotas(Quota()), Quota(commands=1, in_flight=1)
    admit(quotas, quota).give_back()
    old = admit(quotas, quota)
    late = NOW + WINDOW_S
    refusal(quotas, quota, now=late)  # it is in flight still
    old.give_back()
    admit(quotas, quota, now=late)
    assert [state.remaining for state in quotas.states("alice", quota, of="", now=late)] == [0, 0]


def test_what_is_asked_again_may_exceed_the_limit_by_as_much() -> None:
    """Callers of a killed replica find their commands; and whoever says so always wins no more than that."""
    quotas, quota = Quotas(Quota()), Quota(commands=5)
    for _ in range(10):
        admit(quotas, quota, again=True)
    with pytest.raises(OpenlineError):
        admit(quotas, quota, again=True)


def test_replicas_hold_a_limit_together() -> None:
    here, there = Quotas(Quota()), Quotas(Quota())
    quota = Quota(commands=10, in_flight=6)
    for _ in range(3):
        admit(here, quota)
        admit(there, quota)
    share((here, there), now=NOW)
    for quotas in (here, there):
        assert refusal(quotas, quota).metadata["quota"] == "in-flight"
        assert [state.remaining for state in quotas.states("alice", quota, of="", now=NOW)] == [4, 0]


def test_what_is_known_of_others_expires() -> None:
    """In flight after some seconds, commands with their window: a replica that was killed holds nobody up for long."""
    quotas, quota = Quotas(Quota()), Quota(commands=10, in_flight=5)
    admit(quotas, quota).end()
    [usage] = quotas.to_tell(at_most=9, now=NOW)
    said = usage.says(NOW)
    quotas.heard([(usage, said, Told(said.window, 7, 5))], now=NOW)
    refusal(quotas, quota)
    assert [state.remaining for state in quotas.states("alice", quota, of="", now=NOW)] == [2, 0]
    later = NOW + IN_FLIGHT_TTL_S
    same_window = usage.reset_s(NOW) > IN_FLIGHT_TTL_S
    assert [s.remaining for s in quotas.states("alice", quota, of="", now=later)] == [2 if same_window else 10, 5]
    assert [s.remaining for s in quotas.states("alice", quota, of="", now=NOW + WINDOW_S)] == [10, 5]


def test_only_what_has_changed_is_told() -> None:
    """And again after a while what is in flight, and at once what was refused: the others may have finished."""
    quotas, quota = Quotas(Quota()), Quota(in_flight=1)
    assert quotas.to_tell(at_most=9, now=NOW) == []
    admitted = admit(quotas, quota)
    [usage] = quotas.to_tell(at_most=9, now=NOW)
    quotas.heard([(usage, usage.says(NOW), Told(0, 0, 0))], now=NOW)
    assert quotas.to_tell(at_most=9, now=NOW) == []
    refusal(quotas, quota)
    assert quotas.to_tell(at_most=9, now=NOW) == [usage]
    quotas.heard([(usage, usage.says(NOW), Told(0, 0, 0))], now=NOW)
    assert quotas.to_tell(at_most=9, now=NOW + IN_FLIGHT_TTL_S / 3) == [usage]
    admitted.end()
    assert quotas.to_tell(at_most=9, now=NOW) == [usage]
    quotas.heard([(usage, usage.says(NOW), Told(0, 0, 0))], now=NOW)
    assert quotas.to_tell(at_most=9, now=NOW + 1000) == [] or usage.says(NOW + 1000) != usage.told


def test_whoever_waits_longest_is_told_first() -> None:
    quotas, quota = Quotas(Quota()), Quota(in_flight=9)
    for owner in "abcd":
        admit(quotas, quota, owner=owner)
    first = quotas.to_tell(at_most=2, now=NOW)
    assert [usage.owner for usage in first] == ["a", "b"]
    quotas.heard([(usage, usage.says(NOW), Told(0, 0, 0)) for usage in first], now=NOW)
    admit(quotas, quota, owner="a")
    assert [usage.owner for usage in quotas.to_tell(at_most=2, now=NOW)] == ["c", "d"]


def test_owners_are_bounded() -> None:
    """The one that asked last is forgotten last, and what it has in flight ends as it should."""
    quotas, quota = Quotas(Quota(), max_owners=2), Quota(commands=1)
    first = admit(quotas, quota, owner="a")
    admit(quotas, quota, owner="b")
    admit(quotas, quota, owner="c")
    assert len(quotas) == 2
    first.end()
    admit(quotas, quota, owner="a").end()
    assert len(quotas) == 2


def test_a_connection_that_is_full_is_a_quota_too() -> None:
    error = full(20, "too many open calls")
    assert (error.reason, error.metadata["quota"], error.metadata["limit"]) == ("QUOTA_EXCEEDED", "open-calls", "20")
    assert error.retry_after_s > 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 2)),
        st.tuples(st.just("end"), st.integers(0, 2)),
        st.tuples(st.just("share"), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 40)),
    ),
    max_size=60,
)


@settings(max_examples=60)
@given(steps=STEPS, commands=st.integers(1, 8), in_flight=st.integers(0, 5))
def test_a_limit_is_exceeded_by_no_more_than_was_not_shared(
    steps: list[tuple[str, int]], commands: int, in_flight: int
) -> None:
    """However requests and news come: no replica exceeds a limit by itself, and all together only between two news."""
    replicas = [Quotas(Quota()) for _ in range(3)]
    quota, now = Quota(commands, in_flight), NOW
    running: list[list[Admitted]] = [[], [], []]
    windows: dict[tuple[int, int], int] = {}
    for step, value in steps:
        if step == "ask":
            try:
                admitted = admit(replicas[value], quota, now=now)
            except OpenlineError:
                continue
            running[value].append(admitted)
            windows[value, admitted.window] = windows.get((value, admitted.window), 0) + 1
        elif step == "end" and running[value]:
            running[value].pop().end()
        elif step == "wait":
            now += value
        else:
            share(replicas, now=now)
        assert all(used <= commands for used in windows.values())
        assert not in_flight or all(len(open_ones) <= in_flight for open_ones in running)
        for quotas, open_ones in zip(replicas, running, strict=True):
            assert all(0 <= state.remaining <= state.limit for state in quotas.states("alice", quota, of="", now=now))
            assert quotas._usage("alice", "", now).in_flight == len(open_ones)


# Of conversations


def test_a_conversation_says_that_it_is_its_own() -> None:
    quotas, quota = Quotas.of_conversations(Quota()), Quota(commands=1, in_flight=1)
    first = admit(quotas, quota)
    names = [state.name for state in quotas.states("alice", quota, of="", now=NOW)]
    assert names == ["conversation-commands", "conversation-in-flight"]
    refused = refusal(quotas, quota)
    assert refused.metadata["quota"] == "conversation-commands"
    assert refused.error.message == "this conversation's quota of 1 commands in 60 s is used up"
    assert quotas.refused == {Name.CONVERSATION_COMMANDS: 1, Name.CONVERSATION_IN_FLIGHT: 0}
    first.end()


def test_made_up_conversations_are_told_to_nobody() -> None:
    """Of one with a single command the others need not know; from the second one on they do, until it is over."""
    quotas, quota = Quotas.of_conversations(Quota()), Quota(commands=5)
    for number in range(1000):
        admit(quotas, quota, owner=f"made-up-{number}").end()
    assert quotas.to_tell(at_most=9, now=NOW) == []
    admit(quotas, quota)
    running = admit(quotas, quota)
    [usage] = quotas.to_tell(at_most=9, now=NOW)
    assert usage.says(NOW).commands == 2
    quotas.heard([(usage, usage.says(NOW), Told(0, 0, 0))], now=NOW)
    later = NOW + WINDOW_S
    quotas.states("alice", quota, of="", now=later)  # another window, in which it has asked for nothing
    running.end()
    assert quotas.to_tell(at_most=9, now=later) == [usage]


def test_conversations_are_held_together_but_for_what_was_not_told() -> None:
    here, there = Quotas.of_conversations(Quota()), Quotas.of_conversations(Quota())
    quota = Quota(commands=4)
    for _ in range(2):
        admit(here, quota)
        admit(there, quota)
    share((here, there), now=NOW)
    for quotas in (here, there):
        assert refusal(quotas, quota).metadata["remaining"] == "0"


def test_conversations_are_bounded() -> None:
    """In memory, and so in what waits to be told: what was forgotten is not told any more, nor when it ends."""
    quotas, quota = Quotas.of_conversations(Quota(), max_conversations=10), Quota(commands=2)
    admitted = [admit(quotas, quota, owner=f"c-{number}") for number in range(100) for _ in range(2)]
    assert len(quotas) == 10
    for each in admitted:
        each.end()
    assert len(quotas.to_tell(at_most=1000, now=NOW)) == 10
    with pytest.raises(OpenlineError):
        admit(quotas, quota, owner="c-99")


def test_made_up_conversations_push_out_nobody_elses() -> None:
    """One owner with very many has a share of what is remembered, and forgets its own oldest."""
    quotas, quota = Quotas.of_conversations(Quota(), max_of_owner=25), Quota(commands=1)
    admit(quotas, quota, owner="correlation:bob:c", of="bob")
    for number in range(1000):
        admit(quotas, quota, owner=f"correlation:alice:{number}", of="alice")
    assert len(quotas) == 26
    for spent, of in (("correlation:bob:c", "bob"), ("correlation:alice:999", "alice")):
        with pytest.raises(OpenlineError):
            admit(quotas, quota, owner=spent, of=of)
    admit(quotas, quota, owner="correlation:alice:0", of="alice")
