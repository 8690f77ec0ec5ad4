"""What is kept of commands that have succeeded: so much, so long, the newest of each kind."""

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from broker.core import lately
from broker.core.command import Command
from broker.core.lately import Lately
from openline.limits import MAX_ANSWER_AGE_S
from openline.v1 import command_pb2


@pytest.fixture
def ended(new_ask: Any) -> Any:
    def make(size: int = 10, *, written_at: float = 0.0) -> Command:
        command = Command(ask=new_ask(), created_at=written_at, asked_at=Timestamp())
        command.written_at = written_at
        command.result = command_pb2.CommandResult(outcome=command_pb2.OUTCOME_EXITED, stdout=b"x" * size)
        return command

    return make


def test_the_newest_of_a_kind_is_found_while_it_is_young(ended: Any) -> None:
    """Its age is counted from when it was written, since it saw nothing before that."""
    kept = Lately()
    kept.keep("a", ended(), now=1.0)
    newer = ended(written_at=1.0)
    kept.keep("a", newer, now=3.0)
    assert len(kept) == 1
    assert kept.find("a", now=3.0, within_s=2.0) is newer
    assert kept.find("a", now=3.1, within_s=2.0) is None
    assert kept.find("b", now=3.0, within_s=2.0) is None


def test_what_is_too_old_for_anybody_is_dropped(ended: Any) -> None:
    """Many at a time, and nothing is due when nothing is left."""
    kept = Lately()
    assert kept.next_due() is None
    for number in range(10):
        kept.keep(number, ended(), now=number / 10)
    due = kept.next_due()
    assert due is not None
    assert due > MAX_ANSWER_AGE_S
    kept.forget(due)
    assert kept.next_due() is None
    assert (len(kept), kept._bytes) == (0, 0)


def test_it_is_bounded(ended: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number and by bytes: the oldest goes first."""
    monkeypatch.setattr(lately, "MAX_COMMANDS", 3)
    kept = Lately()
    for name in "abcd":
        kept.keep(name, ended(), now=0.0)
    assert [name for name in "abcd" if kept.find(name, now=0.0, within_s=1.0)] == ["b", "c", "d"]
    monkeypatch.setattr(lately, "MAX_BYTES", 3 * lately.COMMAND_BYTES + 2000)
    kept.keep("e", ended(900), now=0.0)
    assert [name for name in "abcde" if kept.find(name, now=0.0, within_s=1.0)] == ["c", "d", "e"]
    kept.keep("f", ended(900), now=0.0)
    assert [name for name in "abcdef" if kept.find(name, now=0.0, within_s=1.0)] == ["e", "f"]


def test_one_that_is_too_large_is_not_kept(ended: Any) -> None:
    """Nor is the one before it, which is older."""
    kept = Lately()
    kept.keep("a", ended(), now=0.0)
    kept.keep("a", ended(lately.MAX_COMMAND_BYTES), now=0.0)
    assert (len(kept), kept._bytes) == (0, 0)
