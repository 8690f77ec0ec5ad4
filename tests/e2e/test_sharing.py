"""Identical reads with everything real but kubectl, which writes down that it runs."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from openline import ids
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
        await fleet.know(cluster)
        yield cluster


async def until_placed(caller: Any, command_ids: list[str]) -> None:
    """Waits until the replica that has the executor knows them all: they run, or have joined what does."""
    async with asyncio.timeout(60):
        for command_id in command_ids:
            while not await is_placed(caller, command_id):
                await asyncio.sleep(0.02)


async def is_placed(caller: Any, command_id: str) -> bool:
    try:
        state = (await caller.get(command_id)).state
    except OpenlineError as failure:
        if failure.reason is not Reason.COMMAND_UNKNOWN:
            raise
        return False
    return bool(state != command_pb2.COMMAND_STATE_FORWARDED)


async def test_two_hundred_on_two_replicas_run_once(cluster: Any, callers: list[Any]) -> None:
    """Each with an id of its own, under which its result is found on either replica."""
    command_ids = [ids.new_id() for _ in range(200)]
    with cluster.held("one"):
        requests = [cluster.request("one", command_id=command_id) for command_id in command_ids]
        asked = [callers[number % 2].execute(request) for number, request in enumerate(requests)]
        await until_placed(callers[0], command_ids)
    answers = await asyncio.gather(*asked)
    assert cluster.runs == {"one": 1}
    assert {answer.result.stdout for answer in answers} == {b"begun one\ndone one\n"}
    assert len({answer.result.command_id for answer in answers}) == 200
    assert Counter(answer.result.served_from for answer in answers) == {0: 1, SHARED: 199}
    for caller in callers:
        found = await caller.get(answers[-1].result.command_id)
        assert found.result.stdout == b"begun one\ndone one\n"


async def test_the_executor_is_killed(cluster: Any, callers: list[Any]) -> None:
    """The one that it had is lost, as always; the others had not been sent, and the next process runs one for all."""
    command_ids = [ids.new_id() for _ in range(10)]
    with cluster.held("one"):
        requests = [cluster.request("one", command_id=each, wait_for_cluster_s=60) for each in command_ids]
        asked = [callers[0].execute(request) for request in requests]
        await cluster.until_it_runs("one")
        await until_placed(callers[0], command_ids)
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
    command_ids = [ids.new_id() for _ in range(4)]
    with cluster.held("one"):
        asked = [callers[1 - home].execute(cluster.request("one", command_id=each)) for each in command_ids]
        await cluster.until_it_runs("one")
        await until_placed(callers[1 - home], command_ids)
        fleet.brokers[home].signal(signal.SIGKILL)
    answers = await asyncio.gather(*asked)
    assert {answer.result.stdout for answer in answers} == {b"begun one\ndone one\n"}
    assert 2 <= cluster.runs["one"] <= len(answers)
