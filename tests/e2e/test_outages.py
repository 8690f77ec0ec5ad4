"""Replicas and Redis that go away, as the table of promises has it: killed, stopped, frozen, full, empty."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest

from openline import ids
from openline.pipes import Pipes
from openline.settings import Address

CLUSTERS = [f"cluster-{number}" for number in range(16)]
# Somebody runs a command of this name, which takes as long as that; gives its output.
Ask = Callable[..., Awaitable[str]]


@pytest.fixture(scope="module")
def running(make_fleet: Callable[..., Any]) -> Iterator[Any]:
    with make_fleet(replicas=2, clusters=CLUSTERS).running() as running:
        yield running


@pytest.fixture
def fleet(running: Any) -> Any:
    """Two replicas, both of which run; each test has a cluster of its own, and leaves behind what it likes."""
    running.mend()
    return running


_left = iter(CLUSTERS)


@pytest.fixture
async def cluster(fleet: Any, open_cluster: Callable[..., Any]) -> AsyncIterator[Any]:
    """A cluster whose executor has not been started yet, with a line to each replica."""
    async with open_cluster(next(_left), *fleet.addresses) as cluster:
        yield cluster


async def start_at(cluster: Any, at: int) -> None:
    """Starts the executor so that it is connected to this replica first."""
    for line in cluster.lines:
        line.cut = line is not cluster.lines[at]
    await cluster.start("--max-concurrency", "16")
    for line in cluster.lines:
        line.cut = False


@pytest.fixture
async def rest(fleet: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The gateway, which prefers the first replica."""
    async with fleet.rest() as client:
        yield client
    fleet.gateway.close()


@pytest.fixture
async def pipes(fleet: Any) -> AsyncIterator[Pipes]:
    """The client, which prefers the first replica."""
    async with Pipes([Address(address) for address in fleet.addresses], client="tests") as pipes:
        async with asyncio.timeout(30):
            while not all(replica.is_connected for replica in pipes.replicas):
                await asyncio.sleep(0.02)
        yield pipes


class Callers:
    """Asks through the gateway and through the client, and keeps what was answered."""

    def __init__(self, cluster: Any, rest: httpx.AsyncClient, pipes: Pipes) -> None:
        self._cluster = cluster
        self._rest = rest
        self._pipes = pipes
        # By the command's name: what it is known by, and its output, or what went wrong.
        self.ids: dict[str, str] = {}
        self.answers: dict[str, str] = {}
        self.took_s: dict[str, float] = {}
        self._number = itertools.count()

    async def through_gateway(self, name: str, what: str = "", *, key: str = "") -> None:
        argv = ["get", "pods", name, *(["-n", what] if what else [])]
        body = {"argv": argv, "timeout_seconds": 60}
        path = f"/v1/clusters/{self._cluster.cluster_id}/commands"
        began = time.monotonic()
        response = await self._rest.post(path, json=body, headers={"Idempotency-Key": key} if key else {})
        self.took_s[name] = time.monotonic() - began
        answer = response.json()
        self.ids[name] = answer.get("command_id", "")
        self.answers[name] = answer["stdout"] if response.status_code == 200 else response.text

    async def through_client(self, name: str, what: str = "", *, key: str = "") -> None:
        request = self._cluster.request(name, what, command_id=ids.new_id(), idempotency_key=key)
        self.ids[name] = request.command_id
        began = time.monotonic()
        try:
            response = await self._pipes.execute(request, api_key="test-key", timeout_s=60)
            self.answers[name] = response.result.stdout.decode() or repr(response.result)
        except Exception as failure:
            self.answers[name] = repr(failure)
        self.took_s[name] = time.monotonic() - began

    async def keep_asking(self, ask: Callable[[str], Awaitable[None]], until: asyncio.Event) -> None:
        while not until.is_set():
            await ask(f"short{next(self._number)}")

    def check(self) -> None:
        """Every caller has its command's output, and each command ran once."""
        wrong = {name: text for name, text in self.answers.items() if text != f"begun {name}\ndone {name}\n"}
        assert not wrong, (len(wrong), dict(itertools.islice(wrong.items(), 3)))
        twice = {name: count for name, count in self._cluster.runs.items() if count != 1}
        assert not twice
        assert self._cluster.runs == dict.fromkeys(self.answers, 1)


@pytest.fixture
def callers(cluster: Any, rest: httpx.AsyncClient, pipes: Pipes) -> Callers:
    return Callers(cluster, rest, pipes)


@pytest.mark.parametrize(
    ("executor_at", "killed"),
    [
        pytest.param(0, 0, id="which-had-callers-and-executor"),
        pytest.param(1, 0, id="which-only-forwarded"),
        pytest.param(1, 1, id="which-had-the-executor"),
    ],
)
async def test_a_broker_replica_is_killed(
    fleet: Any, cluster: Any, callers: Callers, executor_at: int, killed: int
) -> None:
    """Every caller gets its result, once, of one run; and the results can be fetched from the replica that is left."""
    await start_at(cluster, executor_at)
    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for ask in (callers.through_gateway, callers.through_client):
            for seconds in (2, 3, 5):
                tasks.create_task(ask(f"long{seconds}{ask.__name__}", f"sleep-{seconds}"))
            tasks.create_task(ask(f"keyed{ask.__name__}", "sleep-2", key=f"key-{cluster.cluster_id}-{ask.__name__}"))
            for _ in range(4):
                tasks.create_task(callers.keep_asking(ask, over))
        for ask in (callers.through_gateway, callers.through_client):
            await cluster.until_it_runs(f"long5{ask.__name__}")
            await cluster.until_it_runs(f"keyed{ask.__name__}")
        await asyncio.sleep(0.5)
        fleet.brokers[killed].kill()
        await asyncio.sleep(3)
        over.set()
    callers.check()
    async with fleet.callers() as replicas:
        for name in list(callers.ids)[:20]:
            stored = await replicas[1 - killed].get(callers.ids[name], wait_s=5)
            assert stored.result.stdout.decode() == callers.answers[name]


async def test_a_broker_replica_is_killed_and_the_executor_comes_late(
    fleet: Any, cluster: Any, callers: Callers
) -> None:
    """Its commands are looked for until it is there, with an idempotency key and without."""
    await start_at(cluster, 0)
    key = f"late-{cluster.cluster_id}"
    cluster.lines[1].cut = True
    async with asyncio.TaskGroup() as tasks:
        for ask in (callers.through_gateway, callers.through_client):
            tasks.create_task(ask(f"long{ask.__name__}", "sleep-2"))
            tasks.create_task(ask(f"keyed{ask.__name__}", "sleep-2", key=f"{key}-{ask.__name__}"))
            await cluster.until_it_runs(f"long{ask.__name__}")
            await cluster.until_it_runs(f"keyed{ask.__name__}")
        fleet.brokers[0].kill()
        await asyncio.sleep(4)
        assert not callers.answers
        cluster.lines[1].cut = False
    callers.check()
