"""Identical reads with everything real but kubectl, which writes down that it runs."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from openline.errors import OpenlineError
from openline.reasons import Reason
from openline.v1 import command_pb2

CLUSTERS = [f"cluster-{number}" for number in range(4)]
SHARED = command_pb2.SERVED_FROM_SHARED


@pytest.fixture(scope="module")
def fleet(make_fleet: Callable[..., Any]) -> Iterator[Any]:
    """Two replicas, which share for so long that no test machine is too slow for it."""
    with make_fleet(replicas=2, clusters=CLUSTERS, flags=("--share-within", "5")).running() as running:
        yield running


_left = iter(CLUSTERS)


@pytest.fixture
async def callers(fleet: Any) -> AsyncIterator[list[Any]]:
    """Who asks each of the replicas."""
    fleet.mend()
    async with fleet.callers() as callers:
        yield callers


@pytest.fixture
async def cluster(fleet: Any, callers: list[Any], open_cluster: Callable[..., Any]) -> AsyncIterator[Any]:
    """A cluster whose executor is connected to one of the replicas."""
    async with open_cluster(next(_left), fleet.brokers[1].address, fleet.brokers[0].address) as cluster:
        cluster.caller = callers[1]
        await cluster.start()
        yield cluster


async def test_two_hundred_on_two_replicas_run_once(cluster: Any, callers: list[Any]) -> None:
    """Each with an id of its own, under which its result is found on either replica."""
    request = cluster.request("one", "sleep-3")
    answers = await asyncio.gather(*(callers[number % 2].execute(request) for number in range(200)))
    assert cluster.runs == {"one": 1}
    assert {answer.result.stdout for answer in answers} == {b"begun one\ndone one\n"}
    assert len({answer.result.command_id for answer in answers}) == 200
    assert Counter(answer.result.served_from for answer in answers) == {0: 1, SHARED: 199}
    for caller in callers:
        found = await caller.get(answers[-1].result.command_id)
        assert found.result.stdout == b"begun one\ndone one\n"


async def test_the_executor_is_killed(cluster: Any, callers: list[Any]) -> None:
    """The one that it had is lost, as always; the others had not been sent, and the next process runs one for all."""
    asked = [callers[0].execute(cluster.request("one", "sleep-2")) for _ in range(10)]
    await cluster.until_it_runs("one")
    await asyncio.sleep(0.5)
    cluster.stop()
    await cluster.start()
    ends = await asyncio.gather(*asked, return_exceptions=True)
    lost = [end for end in ends if isinstance(end, OpenlineError)]
    assert [end.reason for end in lost] == [Reason.EXECUTOR_LOST]
    assert len({end.result.stdout for end in ends if end not in lost}) == 1
    assert cluster.runs == {"one": 2}


async def test_the_replica_that_shares_is_killed(fleet: Any, cluster: Any, callers: list[Any]) -> None:
    """Whoever asked the other one has a result: what ran is found again, and what had joined it is run."""
    [executor] = (await callers[0].cluster(cluster.cluster_id)).executors
    home = int(executor.replica_id.removeprefix("broker-"))
    asked = [callers[1 - home].execute(cluster.request("one", "sleep-3")) for _ in range(4)]
    await cluster.until_it_runs("one")
    await asyncio.sleep(0.5)
    fleet.brokers[home].signal(signal.SIGKILL)
    answers = await asyncio.gather(*asked)
    assert {answer.result.stdout for answer in answers} == {b"begun one\ndone one\n"}
    assert 2 <= cluster.runs["one"] <= len(answers)
