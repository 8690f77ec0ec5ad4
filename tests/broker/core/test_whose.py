"""Whose commands an operator means."""

from typing import Any

import pytest

from broker.core.ledger import Ledger
from broker.core.life import State
from broker.core.patterns import Patterns
from broker.core.whose import Whose
from openline.reasons import NO, Reason


@pytest.mark.parametrize(
    ("whose", "meant"),
    [
        (Whose(session_id="s-1"), {"of the session"}),
        (Whose(owner="bob"), {"of bob"}),
        (Whose(cluster_id="prod"), {"of the session", "of bob", "plain", "told"}),
        (Whose(owner="alice"), {"of the session", "plain", "elsewhere", "told"}),
        (Whose(owner="alice", within=Patterns.of(["stag*"])), {"elsewhere"}),
        (Whose(cluster_id="prod", within=Patterns.of(["stag*"])), set()),
        (Whose(session_id="none"), set()),
        (Whose(correlation_id="c-1"), {"of bob", "told"}),
        (Whose(correlation_id="c-1", owner="alice"), {"told"}),
        (Whose(session_id="s-1", owner="alice"), {"of the session"}),
        (Whose(session_id="s-1", owner="bob"), set()),
        (Whose(correlation_id="c-1", within=Patterns.of(["stag*"])), set()),
        (Whose(), set()),
    ],
    ids=lambda each: str(each) if isinstance(each, Whose) else str(len(each)),
)
def test_commands_are_chosen(new_ask: Any, whose: Whose, meant: set[str]) -> None:
    """By session, conversation, owner or cluster, within the clusters that are seen; nobody's are nobody's."""
    asks = {
        "of the session": new_ask(session_id="s-1"),
        "of bob": new_ask(owner="bob", correlation_id="c-1"),
        "told": new_ask(correlation_id="c-1"),
        "plain": new_ask(),
        "elsewhere": new_ask("staging"),
    }
    assert {name for name, each in asks.items() if whose.has(each)} == meant


@pytest.mark.parametrize(
    ("whose", "sees", "more"),
    [
        (Whose(session_id="s-1", owner="alice"), "*", "session"),
        (Whose(correlation_id="c-1"), "*", "conversation"),
        (Whose(owner="alice"), "*", "owner"),
        (Whose(owner="alice", within=Patterns.of(["pr*"])), "prod*", "owner"),
        (Whose(owner="alice", within=Patterns.of(["prod*"])), "pr*", ""),
        (Whose(owner="alice", cluster_id="prod"), "*", ""),
        (Whose(cluster_id="prod"), "*", ""),
    ],
    ids=str,
)
def test_what_is_asked_for_with_a_command_is_meant_as_well(new_ask: Any, whose: Whose, sees: str, more: str) -> None:
    """Unless it may be in a cluster that is not meant."""
    assert whose.more_than(new_ask(clusters=Patterns.of([sees]))) == more


def test_those_that_wait_come_first(desk: Any, new_connection: Any) -> None:
    """So that none of them is written when another one's end makes room; and what has ended is none of them."""
    desk.connect(new_connection(max_concurrency=1))
    written = [desk.submit(), desk.submit()]
    waiting = desk.submit()
    assert waiting.state is State.QUEUED
    assert desk.ledger.of(Whose(cluster_id="prod")) == [waiting, *written]
    desk.ledger.cancel(waiting, why="stop", now=1.0)
    assert waiting.state is State.DONE
    assert desk.ledger.of(Whose(cluster_id="prod")) == written


def test_a_command_that_was_cancelled_on_its_way_is_not_placed_anew(new_ask: Any, new_connection: Any) -> None:
    """The replica that it was forwarded to sends it back, and there is a place for it here by now."""
    ledger = Ledger(reconnect_grace_s=10.0)
    ask = new_ask(attach=True)
    command, _ = ledger.submit(ask, asked_at=new_connection().connected_at, now=0.0)
    assert command.is_sought
    ledger.cancel(command, why="stop", now=1.0)
    ledger.connect(new_connection(), in_flight=[], unacked=[], now=2.0)
    ledger.relayed.returned(command, 3.0)
    assert command.result is not None
    assert (command.result.error.reason, command.result.error.executed) == (Reason.CANCELLED, NO)
