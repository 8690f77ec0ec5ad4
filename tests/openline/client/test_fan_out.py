"""One command on many clusters: isolation, bounds, order, and which answers are the same."""

import asyncio
from contextlib import aclosing

import pytest

from openline.client import Answer, Answers, Cancelled, ClusterOffline, OpenlineError, Result
from openline.client.errors import typed
from openline.client.fan_out import FanOut
from openline.client.results import read_result
from openline.errors import CANCELLED_WITH, error
from openline.reasons import Reason
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ExecuteRequest


def result(cluster_id: str, stdout: bytes = b"", exit_code: int = 0) -> Result:
    ended = command_pb2.CommandResult(outcome=command_pb2.OUTCOME_EXITED, stdout=stdout, exit_code=exit_code)
    return read_result(ended, ExecuteRequest(cluster_id=cluster_id))


def failure(cluster_id: str, reason: Reason = Reason.CLUSTER_OFFLINE) -> OpenlineError:
    return typed(OpenlineError(error(reason, f"cluster {cluster_id!r}")))


async def run(cluster_id: str) -> Result:
    """Clusters are named for what they do."""
    if cluster_id.startswith("offline"):
        raise failure(cluster_id)
    await asyncio.sleep(30 if cluster_id == "stuck" else 0.05 if cluster_id == "slow" else 0)
    return result(cluster_id)


async def test_a_cluster_that_fails_is_an_answer_like_any_other() -> None:
    """In the order in which the clusters were named, each once."""
    answers = await FanOut(run, ["slow", "offline", "quick", "slow"], concurrency=8)
    assert list(answers) == ["slow", "offline", "quick"]
    assert list(answers.results) == ["slow", "quick"]
    assert isinstance(answers.failures["offline"], ClusterOffline)


async def test_answers_come_as_they_are_there() -> None:
    """Nobody waits for the slowest."""
    come = [cluster_id async for cluster_id, _ in FanOut(run, ["slow", "quick"], concurrency=8)]
    assert come == ["quick", "slow"]


async def test_no_more_run_at_a_time_than_were_allowed() -> None:
    """And each that ends makes room for the next."""
    now = most = 0

    async def counted(cluster_id: str) -> Result:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        return result(cluster_id)

    answers = await FanOut(counted, [f"c{n}" for n in range(50)], concurrency=4)
    assert (len(answers), most) == (50, 4)


async def test_a_kill_switch_ends_it() -> None:
    """A cancel means its own command; a kill switch what has not begun as well."""
    begun = []

    async def killed(cluster_id: str) -> Result:
        begun.append(cluster_id)
        metadata = {CANCELLED_WITH: "session"} if cluster_id == "killed" else {}
        raise typed(OpenlineError(error(Reason.CANCELLED, "enough", metadata=metadata)))

    answers = await FanOut(killed, ["cancelled", "killed", "next", "last"], concurrency=1)
    assert begun == ["cancelled", "killed"]
    assert all(isinstance(answer, Cancelled) for answer in answers.values())
    assert {answers[each].executed for each in ("next", "last")} == {"no"}  # type: ignore[union-attr]
    assert "enough" in str(answers["last"])


async def test_whoever_stops_before_the_end_leaves_nothing_behind() -> None:
    """The tasks that still wait are cancelled, and have ended when the generator is closed."""
    before = asyncio.all_tasks()
    async with aclosing(aiter(FanOut(run, ["stuck", "quick"], concurrency=8))) as come:  # type: ignore[type-var]
        assert (await anext(come))[0] == "quick"
    assert asyncio.all_tasks() == before


async def test_whoever_is_cancelled_leaves_nothing_behind() -> None:
    """The same for all answers together."""
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await FanOut(run, ["stuck", "quick"], concurrency=8)
    assert asyncio.all_tasks() == before


async def test_a_defect_is_no_answer() -> None:
    """Only what brokers say of a cluster is; a defect ends it all, and leaves nothing behind."""

    async def defective(cluster_id: str) -> Result:
        if cluster_id == "defect":
            raise ZeroDivisionError
        return await run(cluster_id)

    before = asyncio.all_tasks()
    with pytest.raises(ZeroDivisionError):
        await FanOut(defective, ["stuck", "defect"], concurrency=8)
    assert asyncio.all_tasks() == before


async def test_no_clusters_are_no_answers() -> None:
    """At once."""
    assert dict(await FanOut(run, [], concurrency=8)) == {}
    with pytest.raises(ValueError, match="at least 1"):
        FanOut(run, ["a"], concurrency=0)


def test_clusters_that_said_the_same_are_one_group() -> None:
    """By exit code and output, or by reason; the largest first, whatever ids and times differ."""
    answers: dict[str, Answer] = {
        "odd": result("odd", b"other"),
        "a": result("a", b"same"),
        "b": result("b", b"same"),
        "failed": result("failed", b"same", exit_code=1),
        "off1": failure("off1"),
        "off2": failure("off2"),
        "off3": failure("off3"),
        "denied": failure("denied", Reason.POLICY_DENIED),
    }
    groups = Answers(answers).groups()
    assert [group.cluster_ids for group in groups] == [
        ("off1", "off2", "off3"),
        ("a", "b"),
        ("odd",),
        ("failed",),
        ("denied",),
    ]
    assert groups[1].answer is answers["a"]
