"""The same call again and again."""

import pytest

from broker.core.repetition import SHORT_BYTES, WINDOW_S, Call, Repetitions
from openline.errors import error
from openline.reasons import MEANING, Reason
from openline.v1 import command_pb2

CALL: Call = (("alice", "c-1"), "prod", ("get", "pods"))


def exited(stdout: bytes = b"web-0", *, code: int = 0, stderr: bytes = b"", cut: int = 0) -> command_pb2.CommandResult:
    return command_pb2.CommandResult(
        outcome=command_pb2.OUTCOME_EXITED,
        exit_code=code,
        stdout=stdout,
        stderr=stderr,
        stdout_summary=command_pb2.OutputSummary(total_bytes=len(stdout) + cut, cut_bytes=cut),
        stderr_summary=command_pb2.OutputSummary(total_bytes=len(stderr)),
    )


def ended(reason: Reason, outcome: command_pb2.Outcome.ValueType) -> command_pb2.CommandResult:
    return command_pb2.CommandResult(outcome=outcome, error=error(reason, "no"))


def hints(*results: command_pb2.CommandResult, every_s: float = 10.0) -> list[str]:
    """What is said after each, asked for at this pace."""
    seen = Repetitions()
    return [ended_at_once(seen, CALL, result, number * every_s) for number, result in enumerate(results)]


def ended_at_once(seen: Repetitions, call: Call, result: command_pb2.CommandResult, now: float) -> str:
    return seen.ended(call, result, asked_at=now, now=now)


def rounds(seen: Repetitions, *ends: command_pb2.CommandResult, count: int = 1, of: int = 3) -> list[list[bool]]:
    """Which are told, where so many ask at a time, and again when all have their answers; each takes a second."""
    told = []
    for number in range(count):
        began = number * 2.0
        results = [ends[(number * of + each) % len(ends)] for each in range(of)]
        told.append(
            [bool(seen.ended(CALL, each, asked_at=began, now=began + 1 + n / 10)) for n, each in enumerate(results)]
        )
    return told


def test_the_third_time_within_a_minute_it_is_said() -> None:
    """And each time after that, with how often it was."""
    said = hints(*[exited()] * 4)
    assert said[:2] == ["", ""]
    assert said[2].startswith("This was asked for 3 times in the last 20 s, with the same result each time.")
    assert said[3].startswith("This was asked for 4 times in the last 30 s")
    assert "--watch" in said[3]


def test_whoever_asks_now_and_then_is_told_nothing() -> None:
    """A minute is as long as it may take to come to the third time."""
    assert hints(*[exited()] * 6, every_s=WINDOW_S / 2 + 0.1) == [""] * 6
    assert hints(*[exited()] * 3, every_s=WINDOW_S / 2)[2]
    seen = Repetitions()
    for now in (0.0, 1.0, 2.0 + WINDOW_S, 3.0 + WINDOW_S):
        assert ended_at_once(seen, CALL, exited(), now) == ""
    assert "3 times in the last 2 s" in ended_at_once(seen, CALL, exited(), 4.0 + WINDOW_S)


@pytest.mark.parametrize("size", [100, SHORT_BYTES + 1, 1 << 20], ids=["short", "longer", "long"])
@pytest.mark.parametrize(
    "other", [{"code": 1}, {"stderr": b"warning"}, {"stdout": b"y"}], ids=["code", "stderr", "stdout"]
)
def test_another_result_begins_anew(size: int, other: dict[str, bytes | int]) -> None:
    """Also one that differs by a byte in the middle of as many; of long ones the first is not looked at."""
    text = b"x" * size
    middle = (
        {"stdout": text[: size // 2] + b"y" + text[size // 2 + 1 :]} if "stdout" in other else {"stdout": text, **other}
    )
    same, changed = exited(text), exited(**middle)  # type: ignore[arg-type]
    said = hints(same, same, changed, same, same, same, same, every_s=1.0)
    assert said[:5] == [""] * 5
    assert "3 times" in said[5]
    assert "4 times" in said[6]


def test_output_of_which_some_was_cut_is_never_the_same() -> None:
    assert hints(*[exited(cut=1)] * 5) == [""] * 5
    assert hints(*[exited(b"x" * SHORT_BYTES, cut=9)] * 5) == [""] * 5


def test_conversations_clusters_and_words_are_told_apart() -> None:
    """Three of each, none of them three times."""
    seen = Repetitions()
    calls: list[Call] = [
        (("alice", "c-1"), "prod", ("get", "pods")),
        (("alice", "c-2"), "prod", ("get", "pods")),
        (("bob", "c-1"), "prod", ("get", "pods")),
        (("alice", "c-1"), "staging", ("get", "pods")),
        (("alice", "c-1"), "prod", ("get", "pods", "-A")),
    ]
    assert {ended_at_once(seen, call, exited(), 0.0) for call in calls * 2} == {""}
    assert all(ended_at_once(seen, call, exited(), 0.0) for call in calls)


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_is_told_of_as_well(reason: Reason) -> None:
    """Whether it ever was a command or not; with what that kind of refusal comes to."""
    refusal = error(reason, "no")
    seen = Repetitions()
    assert [seen.refused(CALL, refusal, asked_at=0.0, now=0.0) for _ in range(2)] == ["", ""]
    said = seen.refused(CALL, refusal, asked_at=1.0, now=1.0)
    assert said.startswith(f"This was asked for 3 times in the last 1 s, and ended in {reason} each time")
    assert ("will not change" in said) <= (not MEANING[reason].retryable)
    assert ("Wait" in said) == MEANING[reason].retryable
    rejected = ended(reason, command_pb2.OUTCOME_REJECTED)
    assert hints(rejected, rejected, rejected, every_s=0.5)[2] == said


REFUSED = ended(Reason.COMMAND_TIMEOUT, command_pb2.OUTCOME_TIMED_OUT)


@pytest.mark.parametrize("end", [exited(), REFUSED], ids=["result", "refusal"])
def test_who_asks_before_there_is_an_answer_repeats_nothing(end: command_pb2.CommandResult) -> None:
    """However many ask at the same time: nobody had anything to use."""
    assert rounds(Repetitions(), end, of=50) == [[False] * 50]


@pytest.mark.parametrize("end", [exited(), REFUSED], ids=["result", "refusal"])
def test_who_loops_with_several_at_a_time_is_told(end: command_pb2.CommandResult) -> None:
    """In the third round, all of them: each of those answers may be the one that is read."""
    seen = Repetitions()
    assert rounds(seen, end, count=4) == [[False] * 3, [False] * 3, [True] * 3, [True] * 3]


def test_requests_that_wait_together_and_are_refused_are_one() -> None:
    """As for a cluster that does not come."""
    seen = Repetitions()
    offline = error(Reason.CLUSTER_OFFLINE, "no")
    assert [seen.refused(CALL, offline, asked_at=0.0, now=5.0 + n / 10) for n in range(3)] == ["", "", ""]
    assert seen.refused(CALL, offline, asked_at=6.0, now=11.0) == ""
    assert "3 times" in seen.refused(CALL, offline, asked_at=12.0, now=17.0)


def test_two_that_loop_out_of_step_are_told() -> None:
    """When one asks, the other's question is always open."""
    seen = Repetitions()
    said = [bool(seen.ended(CALL, exited(), asked_at=n / 2, now=n / 2 + 1)) for n in range(6)]
    assert said == [False, False, False, False, True, True]


def test_who_asked_first_and_is_answered_last_is_told_nothing() -> None:
    """What others have asked meanwhile is not its doing."""
    seen = Repetitions()
    said = [ended_at_once(seen, CALL, exited(), now) for now in (1.0, 2.0, 3.0)]
    assert said[2]
    assert seen.ended(CALL, exited(), asked_at=0.0, now=4.0) == ""


def test_another_result_of_one_that_was_asked_for_at_the_same_time_begins_anew() -> None:
    """It is not `the same result each time` any more."""
    seen = Repetitions()
    assert rounds(seen, exited(), exited(), exited(b"web-1"), count=5) == [[False] * 3] * 5


def test_denials_and_results_do_not_add_up() -> None:
    denied = ended(Reason.POLICY_DENIED, command_pb2.OUTCOME_REJECTED)
    assert hints(denied, denied, exited(), denied, denied) == [""] * 5


def test_a_time_out_is_no_reason_to_go_on() -> None:
    timed_out = ended(Reason.COMMAND_TIMEOUT, command_pb2.OUTCOME_TIMED_OUT)
    assert hints(timed_out, timed_out, timed_out)[2].endswith("Do not go on in the same way.")


def test_what_is_remembered_is_bounded() -> None:
    """The call that was made the longest ago is forgotten first."""
    seen = Repetitions(max_calls=2)
    for _ in range(2):
        ended_at_once(seen, CALL, exited(), 0.0)
    for number in range(10):
        ended_at_once(seen, (("alice", ""), "prod", ("get", str(number))), exited(), 0.0)
        assert len(seen) <= 2
    assert ended_at_once(seen, CALL, exited(), 0.0) == ""
