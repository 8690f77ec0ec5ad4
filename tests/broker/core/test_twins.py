"""Bounds of what is shared, and what cannot be told as a story."""

from collections.abc import Callable
from typing import Any

import pytest

from broker.core import twins
from broker.core.alike import MAX_ARGV_CHARACTERS, key_of
from openline.v1 import command_pb2

SHARED, CACHE = command_pb2.SERVED_FROM_SHARED, command_pb2.SERVED_FROM_CACHE


def ran(frames: Any, desk: Any, connection: Any, command: Any, stdout: bytes = b"", *, now: float = 0.0) -> None:
    pieces = [stdout[start : start + 65536] for start in range(0, len(stdout), 65536)]
    output = [frames.output(command.command_id, seq, piece) for seq, piece in enumerate(pieces)]
    named = command.command_id
    desk.say(connection, frames.accepted(named), frames.started(named), *output, frames.finished(named), now=now)


def test_the_answer_is_its_own(desk: Any, new_connection: Any, frames: Any) -> None:
    """Its ids, its instants and its time; the output, how it ended and the other times are those of the run."""
    open_ = new_connection()
    desk.connect(open_)
    lead = desk.submit(now=10.0, share_s=1.0, session_id="s-1", correlation_id="c-1")
    other = desk.submit(now=10.5, share_s=1.0, session_id="s-2", correlation_id="c-2")
    ran(frames, desk, open_, lead, b"NAME", now=12.0)
    one, two = lead.result, other.result
    assert (two.command_id, two.session_id, two.correlation_id) == (other.command_id, "s-2", "c-2")
    assert (two.served_from, two.run_by_command_id, two.age_s) == (SHARED, lead.command_id, 0.5)
    assert (two.stdout, two.exit_code, two.executor_id) == (b"NAME", 0, "exec-1")
    assert two.timings.total_s == pytest.approx(1.5)
    assert (two.timings.run_s, two.timings.deliver_s) == (one.timings.run_s, one.timings.deliver_s)
    assert (one.served_from, one.run_by_command_id, one.age_s) == (0, "", 0.0)
    # Whoever watches it is shown what was written.
    assert [piece.data for piece in other.transcript.since(0)] == [b"NAME"]
    desk.settle_all()
    desk.assert_empty()


def test_a_kept_result_has_no_hint_of_another_conversation(desk: Any, new_connection: Any, frames: Any) -> None:
    """The hint is put into the result of whoever repeats itself, which is what is kept."""
    open_ = new_connection()
    desk.connect(open_)
    lead = desk.submit(now=10.0, share_s=1.0, cache_s=5.0)
    ran(frames, desk, open_, lead, b"NAME", now=10.1)
    lead.result.hint = "This was asked for 3 times."
    other = desk.submit(now=11.0, share_s=1.0, cache_s=5.0)
    assert (other.result.served_from, other.result.stdout, other.result.hint) == (CACHE, b"NAME", "")


def test_an_error_names_the_command_that_it_is_told_of(desk: Any, new_connection: Any, frames: Any) -> None:
    open_ = new_connection()
    desk.connect(open_)
    lead, other = desk.submit(share_s=1.0), desk.submit(share_s=1.0)
    denied = command_pb2.Error(reason="POLICY_DENIED", executed=command_pb2.EXECUTED_NO)
    desk.say(open_, frames.rejected(lead.command_id, denied))
    assert lead.result.error.metadata["command_id"] == lead.command_id
    assert other.result.error.metadata["command_id"] == other.command_id


def test_who_has_no_part_in_so_much_output_joins_the_next_one(
    desk: Any, new_connection: Any, frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are answered in the end, and never with more than so many bytes at a time."""
    monkeypatch.setattr(twins, "MAX_ANSWERED_BYTES", 1 << 20)
    open_ = new_connection()
    desk.connect(open_)
    commands = [desk.submit(share_s=1.0) for _ in range(40)]
    runs = 0
    while open_.commands:
        before = len(desk.concluded)
        lead = desk.ledger.commands[min(open_.commands)]
        ran(frames, desk, open_, lead, b"x" * 100_000)
        answered = desk.concluded[before:]
        assert 1 <= len(answered) <= 11
        assert {each.result.run_by_command_id for each in answered} == {"", lead.command_id}
        runs += 1
    assert runs == 4
    assert all(each.result.stdout == b"x" * 100_000 for each in commands)
    desk.settle_all()
    desk.assert_empty()


def test_one_that_is_larger_than_all_is_still_shared_with_one(
    desk: Any, new_connection: Any, frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins, "MAX_ANSWERED_BYTES", 10)
    open_ = new_connection()
    desk.connect(open_)
    commands = [desk.submit(share_s=1.0) for _ in range(5)]
    while open_.commands:
        ran(frames, desk, open_, desk.ledger.commands[min(open_.commands)], b"x" * 100)
    assert sorted(each.result.served_from for each in commands) == [0, 0, 0, SHARED, SHARED]


def test_only_so_many_join_one(desk: Any, new_connection: Any, frames: Any) -> None:
    open_ = new_connection()
    desk.connect(open_)
    commands = [desk.submit(share_s=1.0) for _ in range(2 * twins.MAX_JOINED + 2)]
    assert len(open_.commands) == 2
    for name in sorted(open_.commands):
        ran(frames, desk, open_, desk.ledger.commands[name])
    assert sum(each.result.served_from == SHARED for each in commands) == 2 * twins.MAX_JOINED
    desk.settle_all()
    desk.assert_empty()


def test_one_of_another_line_does_not_wait_in_this_one(desk: Any, new_connection: Any, frames: Any) -> None:
    """Those that are placed again stand each in its own line, where all places are taken."""
    open_ = new_connection(max_concurrency=1)
    desk.connect(open_)
    lead = desk.submit(share_s=1.0, timeout_s=5.0, session_id="a")
    others = [desk.submit(share_s=1.0, timeout_s=60.0, session_id=name) for name in ("b", "c", "c")]
    for _ in range(4):
        desk.submit(argv=("get", "nodes"), timeout_s=60.0)
    desk.say(open_, frames.accepted(lead.command_id), frames.started(lead.command_id))
    timed_out = frames.finished(lead.command_id, outcome=command_pb2.OUTCOME_TIMED_OUT)
    desk.say(open_, timed_out, now=5.0)
    [queue] = desk.ledger._account.queues.values()
    assert len({each.ask.share for each in queue if each in others}) == 2
    assert [bool(each.twin.lead) for each in others].count(True) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"owner": "bob"},
        {"scopes": ("execute", "admin")},
        {"cluster_id": "staging"},
        {"max_output_bytes": 1024},
        {"argv": ("get", "nodes")},
    ],
)
def test_what_makes_another_kind(new_ask: Callable[..., Any], fields: dict[str, Any]) -> None:
    assert key_of(new_ask(**fields)) != key_of(new_ask())
    assert key_of(new_ask(timeout_s=1.0, session_id="s", correlation_id="c", traceparent="t")) == key_of(new_ask())


@pytest.mark.parametrize(
    "fields", [{"live": True}, {"argv": ("get", "x" * MAX_ARGV_CHARACTERS)}, {"argv": ("delete", "pod", "x")}]
)
def test_what_is_like_no_other(new_ask: Callable[..., Any], fields: dict[str, Any]) -> None:
    assert key_of(new_ask(**fields)) is None


def test_those_that_another_replica_sends_back_join_one(desk: Any, new_connection: Any, frames: Any) -> None:
    """They had been forwarded one by one, and now the executor is here."""
    desk.connect(new_connection())
    commands = [desk.submit(share_s=1.0, attach=True) for _ in range(3)]
    sent = [action for each in commands for action in desk.ledger.relayed.returned(each, 1.0)]
    assert [action.frame.WhichOneof("frame") for action in sent] == ["execute"]
    assert [bool(each.twin.lead) for each in commands] == [False, True, True]


def test_one_that_comes_back_does_not_wait_for_itself(desk: Any, new_connection: Any) -> None:
    """It had been followed to another replica, which did not have it after all."""
    open_ = new_connection()
    desk.connect(open_)
    command = desk.submit(share_s=1.0)
    open_.commands.clear()
    command.forward("r2", known=True, may_return=True)
    [sent] = desk.ledger.relayed.returned(command, 0.5)
    assert sent.frame.execute.command_id == command.command_id
    assert command.twin.lead is None
