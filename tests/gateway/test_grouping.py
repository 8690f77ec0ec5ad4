"""Many answers, with what is the same said once."""

import pytest

from gateway.command_answers import command_answer
from gateway.command_models import CommandAnswer
from gateway.grouping import Grouping, summary
from openline.v1 import command_pb2


def answer(cluster_id: str, stdout: bytes, exit_code: int = 0) -> CommandAnswer:
    result = command_pb2.CommandResult(outcome=command_pb2.OUTCOME_EXITED, stdout=stdout, exit_code=exit_code)
    return command_answer(command_pb2.Command(command_id=f"of-{cluster_id}", cluster_id=cluster_id, result=result))


def test_the_same_output_is_one_group() -> None:
    """The largest first; clusters as they were given, whatever the order in which they answered."""
    grouping = Grouping(["a", "b", "c", "d", "e"])
    for cluster_id, stdout in (("e", b"1"), ("d", b"2"), ("a", b"1"), ("c", b"3"), ("b", b"1")):
        grouping.add(answer(cluster_id, stdout))
    told = grouping.answer()
    assert [(group.clusters, group.output) for group in told.groups] == [
        (["e", "a", "b"], "1"), (["c"], "3"), (["d"], "2"),
    ]  # fmt: skip
    assert [result.cluster_id for result in told.results] == ["a", "b", "c", "d", "e"]
    assert told.summary == "3 clusters the same, 2 differ"


def test_the_same_output_with_another_exit_code_is_not_the_same() -> None:
    """Nor is it on the other stream."""
    grouping = Grouping(["a", "b"])
    grouping.add(answer("a", b"x"))
    grouping.add(answer("b", b"x", exit_code=1))
    assert [group.clusters for group in grouping.answer().groups] == [["a"], ["b"]]


def test_output_may_be_left_out() -> None:
    """For the end of a stream that has told it."""
    grouping = Grouping(["a"])
    grouping.add(answer("a", b"x"))
    [group] = grouping.answer(with_output=False).groups
    assert (group.output, group.stderr, group.clusters) == (None, None, ["a"])


@pytest.mark.parametrize(
    ("sizes", "failed", "expected"),
    [
        ([38, 1, 1], 0, "38 clusters the same, 2 differ"),
        ([38, 1], 0, "38 clusters the same, 1 differs"),
        ([40], 0, "all 40 clusters the same"),
        ([2], 0, "both clusters the same"),
        ([1, 1, 1], 0, "3 clusters, each different"),
        ([1], 1, "1 cluster answered; 1 failed: c0 (CLUSTER_OFFLINE)"),
        ([], 2, "2 failed: c0 (CLUSTER_OFFLINE), c1 (CLUSTER_OFFLINE)"),
        ([3], 7, "all 3 clusters the same; 7 failed: " + ", ".join(f"c{n} (CLUSTER_OFFLINE)" for n in range(5))
         + ", 2 more"),
        ([], 0, "no cluster was asked"),
    ],
)  # fmt: skip
def test_a_sentence_says_it(sizes: list[int], failed: int, expected: str) -> None:
    """As a person would."""
    problems = [{"cluster_id": f"c{n}", "reason": "CLUSTER_OFFLINE"} for n in range(failed)]
    assert summary(sizes, problems) == expected
