"""An upgrade rehearsed by processes, and taken back: old and new side by side, under load, and no caller sees an error.

Two broker replicas, two clusters and two gateways of the last release are replaced by today's, one process after the
other, in the order of docs/upgrading.md, and then the other way round. `make rehearse` does it again and again for as
long as OPENLINE_REHEARSE_SECONDS says. A broker's successor listens where it did; an executor's begins beside it; of
two gateways, callers ask the one that is there, as behind a Service.
"""

import asyncio
import json
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from time import monotonic
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from openline.client import AsyncClient, Result

SECONDS = float(os.environ.get("OPENLINE_REHEARSE_SECONDS", "0"))
CLUSTERS = ("east", "west")
# Each asks some twice a second, of two cores that run everything else as well.
REST_CALLERS = 5
CLIENTS = 2
# Callers are sent to a gateway no more for so long before it is told to stop: what a preStop hook waits for.
UNLISTED_S = 0.5
TIMEOUT_S = 30

pytestmark = pytest.mark.timeout(SECONDS + 400)


class Load:
    """Callers that ask all the time, and what they were told that nobody should be told."""

    def __init__(self, here: Any) -> None:
        self._here = here
        self._draw = random.Random(9)
        # What runs once each, and the ids under which the results are kept.
        self.names: dict[str, str] = {}
        self.wrong: list[str] = []
        self.kinds: Counter[str] = Counter()
        # The gateways that callers are sent to.
        self.listed: dict[int, httpx.AsyncClient] = {}
        self._stopping = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Every caller has had its last answer when this has been left."""
        async with AsyncClient(self._here.addresses, self._here.key) as client, asyncio.TaskGroup() as callers:
            for number in range(REST_CALLERS):
                callers.create_task(self._call(number, self._rest()))
            for number in range(CLIENTS):
                callers.create_task(self._call(REST_CALLERS + number, self._client(client)))
            try:
                yield
            finally:
                self._stopping.set()

    async def _call(self, number: int, ways: list[Callable[[str, str, str], Awaitable[str]]]) -> None:
        count = 0
        while not self._stopping.is_set():
            await asyncio.sleep(self._draw.uniform(0.1, 0.9))
            count += 1
            name, cluster_id = f"c{number}n{count}", self._draw.choice(CLUSTERS)
            way = self._draw.choice(ways)
            what = self._draw.choices(["nothing", "tenths-5", "sleep-2"], [6, 3, 1])[0]
            self.names[name] = ""
            began = monotonic()
            try:
                self.names[name] = await way(name, cluster_id, what)
            except Exception as failure:
                about = f"{name}, {way.__name__}, {what}, for {monotonic() - began:.1f} s until {monotonic():.1f}"
                self.wrong.append(f"{about}: {failure!r}")
            self.kinds[way.__name__] += 1

    # Ways to ask; each returns the command's id, and raises for what is not its whole output.

    def _rest(self) -> list[Callable[[str, str, str], Awaitable[str]]]:
        async def execute(name: str, cluster_id: str, what: str) -> str:
            return self._checked(name, (await self._post(name, cluster_id, what)).json())

        async def drop_in(name: str, cluster_id: str, what: str) -> str:
            body = {"cluster_id": cluster_id, "command_type": "get", "args": ["pods", name], "namespace": what}
            answer = await self._gateway().post("/debug/execute", json=body)
            told = answer.json()
            assert (answer.status_code, told.get("output")) == (200, whole(name)), told
            return str(answer.headers.get("x-command-id", ""))

        async def events(name: str, cluster_id: str, what: str) -> str:
            answer = await self._post(name, cluster_id, what, accept="text/event-stream")
            said = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
            assert "".join(each["text"] for each in said if "text" in each) == whole(name), answer.text
            return self._checked(name, said[-1])

        async def later(name: str, cluster_id: str, what: str) -> str:
            """Any gateway knows it by its id."""
            begun = await self._post(name, cluster_id, what, prefer="respond-async, wait=0")
            if begun.status_code == 200:
                return self._checked(name, begun.json())
            assert begun.status_code == 202, begun.text
            ended = await self._gateway().get(begun.headers["location"], params={"wait": f"{TIMEOUT_S}"})
            return self._checked(name, ended.json())

        async def twice(name: str, cluster_id: str, what: str) -> str:
            """With one idempotency key, perhaps by way of two gateways of two versions: one run."""
            asked = (self._post(name, cluster_id, what, idempotency_key=f"key-{name}") for _ in range(2))
            first, second = [self._checked(name, answer.json()) for answer in await asyncio.gather(*asked)]
            assert first == second
            return first

        return [execute, drop_in, events, later, twice]

    def _client(self, client: AsyncClient) -> list[Callable[[str, str, str], Awaitable[str]]]:
        async def pipe(name: str, cluster_id: str, what: str) -> str:
            result = await client.execute(cluster_id, "get", "pods", name, "-n", what, timeout_s=TIMEOUT_S)
            assert result.text == whole(name), result
            return result.command_id

        async def stream(name: str, cluster_id: str, what: str) -> str:
            told = client.stream(cluster_id, "get", "pods", name, "-n", what, timeout_s=TIMEOUT_S)
            async with aclosing(told) as events:
                *_, last = [event async for event in events]
            assert isinstance(last, Result)
            assert last.text == whole(name), last
            return last.command_id

        return [pipe, stream]

    def _gateway(self) -> httpx.AsyncClient:
        return self._draw.choice(list(self.listed.values()))

    async def _post(self, name: str, cluster_id: str, what: str, **headers: str) -> httpx.Response:
        body = {"argv": ["get", "pods", name, "-n", what], "timeout_seconds": TIMEOUT_S}
        given = {header.replace("_", "-"): value for header, value in headers.items()}
        return await self._gateway().post(f"/v1/clusters/{cluster_id}/commands", json=body, headers=given)

    @staticmethod
    def _checked(name: str, told: dict[str, Any]) -> str:
        assert (told.get("exit_code"), told.get("stdout")) == (0, whole(name)), told
        return str(told["command_id"])


def whole(name: str) -> str:
    return f"begun {name}\ndone {name}\n"


class Fleet:
    """All that can be replaced, and the replacing of it."""

    def __init__(self, here: Any, load: Load, stack: AsyncExitStack) -> None:
        self._here = here
        self._load = load
        self._stack = stack
        self._brokers: dict[int, Any] = {}
        self._executors: dict[str, Any] = {}
        self._gateways: dict[int, Any] = {}
        # What was done when, for whoever reads of a failure.
        self.done: list[str] = []

    def _done(self, what: str) -> None:
        self.done.append(f"{monotonic():.1f} {what}")

    async def begin(self, tree: Any) -> None:
        """All of it, of one version."""
        await asyncio.gather(*(self._replace_broker(number, tree) for number in range(2)))
        gateways = (self._replace_gateway(number, tree) for number in range(2))
        await asyncio.gather(self.replace_executors(tree), *gateways)

    async def replace_brokers(self, tree: Any) -> None:
        """One after the other: each has everything to do while the other one is away."""
        for number in range(2):
            await self._replace_broker(number, tree)

    async def replace_executors(self, tree: Any) -> None:
        """Of each cluster by itself."""
        await asyncio.gather(*(self._replace_executor(cluster_id, tree) for cluster_id in CLUSTERS))

    async def replace_gateways(self, tree: Any) -> None:
        for number in range(2):
            await self._replace_gateway(number, tree)

    async def _replace_broker(self, number: int, tree: Any) -> None:
        """Stopped before its successor begins at the same address."""
        if number in self._brokers:
            await self._brokers[number].stop()
            self._done(f"broker {number} has stopped")
        self._brokers[number] = await self._here.broker(tree, number)
        await serving(self._here.addresses[number])
        self._done(f"broker {number} is {tree.name}")

    async def _replace_executor(self, cluster_id: str, tree: Any) -> None:
        """Its successor is connected before it is told to stop."""
        before = self._executors.get(cluster_id)
        self._executors[cluster_id] = await self._here.executor(tree, cluster_id)
        self._done(f"an executor of {cluster_id} is {tree.name}")
        if before is not None:
            await before.stop()
            self._done(f"the executor before of {cluster_id} has stopped")

    async def _replace_gateway(self, number: int, tree: Any) -> None:
        """Callers are sent to the other one meanwhile; what has been asked is answered."""
        if number in self._gateways:
            del self._load.listed[number]
            await asyncio.sleep(UNLISTED_S)
            await self._gateways[number].stop()
            self._done(f"gateway {number} has stopped")
        self._gateways[number] = await self._here.gateway(tree, number)
        address, headers = self._here.gateways[number], {"X-API-Key": self._here.key}
        client = httpx.AsyncClient(base_url=f"http://{address}", headers=headers, timeout=TIMEOUT_S + 30)
        self._load.listed[number] = await self._stack.enter_async_context(client)
        self._done(f"gateway {number} is {tree.name}")


async def serving(address: str) -> None:
    """As a readiness probe sees it."""
    async with asyncio.timeout(60), grpc.aio.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest()
        while (await health.Check(asked, wait_for_ready=True)).status != health_pb2.HealthCheckResponse.SERVING:
            await asyncio.sleep(0.1)


async def test_an_upgrade_under_load_and_back(old: Any, new: Any, install: Callable[..., Any]) -> None:
    """No caller sees an error, each command has run exactly once, and every result is known to each replica."""
    until = monotonic() + SECONDS
    async with install(*CLUSTERS) as here, AsyncExitStack() as stack:
        load = Load(here)
        fleet = Fleet(here, load, stack)
        await fleet.begin(old)
        rounds = 0
        async with load.running():
            while rounds == 0 or (monotonic() < until and not load.wrong):
                await asyncio.sleep(1)
                for replace in (fleet.replace_brokers, fleet.replace_executors, fleet.replace_gateways):
                    await replace(new)
                asked_by_then = len(load.names)
                await asyncio.sleep(1)
                for replace in (fleet.replace_gateways, fleet.replace_executors, fleet.replace_brokers):
                    await replace(old)
                await asyncio.sleep(1)
                rounds += 1
        sys.stdout.write(f"{rounds} times there and back, {len(load.names)} commands: {dict(load.kinds)}\n")
        sys.stdout.write("".join(f"{line}\n" for line in (*fleet.done, *load.wrong)))
        assert load.wrong == []
        assert here.runs == dict.fromkeys(load.names, 1)
        assert set(load.kinds) == {"execute", "drop_in", "events", "later", "twice", "pipe", "stream"}
        assert len(load.names) > asked_by_then > 20
        for number in range(2):
            caller = await here.caller(number)
            for name, command_id in load.names.items():
                if command_id:
                    assert (await caller.get(command_id, wait_s=10)).result.stdout.decode() == whole(name)
