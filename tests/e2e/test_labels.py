"""Clusters chosen by the labels of their executors, and lists of what was run there, on any replica."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

CLUSTERS = {"east": "env=prod,region=us", "west": "env=prod,region=eu", "lab": "env=dev"}


@pytest.fixture(scope="module")
def fleet(make_fleet: Callable[..., Any]) -> Iterator[Any]:
    with make_fleet(replicas=2, clusters=list(CLUSTERS)).running() as running:
        yield running


async def listed(rest: httpx.AsyncClient, query: str, count: int) -> list[dict[str, Any]]:
    """The commands that fit, newest first, once there are so many and all are done: a list is written late."""
    async with asyncio.timeout(30):
        while True:
            commands = (await rest.get(f"/v1/commands?{query}")).json()["commands"]
            if [command["state"] for command in commands] == ["done"] * count:
                return list(commands)
            await asyncio.sleep(0.05)


async def test_a_fan_out_chooses_by_labels(fleet: Any, open_cluster: Callable[..., Any]) -> None:
    """Whichever replica has the executor; every command is on the list once, also one that was forwarded."""
    async with AsyncExitStack() as stack:
        for number, (cluster_id, labels) in enumerate(CLUSTERS.items()):
            opened = open_cluster(cluster_id, fleet.brokers[number % 2].address)
            cluster = await stack.enter_async_context(opened)
            await cluster.start("--labels", labels)
            await fleet.know(cluster)
        rest = await stack.enter_async_context(fleet.rest())
        shown = (await rest.get("/v1/clusters")).json()["clusters"]
        assert {cluster["cluster_id"]: cluster["labels"].get("env") for cluster in shown} == {
            "east": "prod", "lab": "dev", "west": "prod",
        }  # fmt: skip
        for selector, chosen in (
            ("env=prod", ["east", "west"]),
            ("env=prod,region in (eu)", ["west"]),
            ("!region", ["lab"]),
        ):
            body = {"selector": selector, "argv": ["get", "pods", "one"], "correlation_id": "fan-out"}
            answer = (await rest.post("/v1/fanout", json=body)).json()
            assert [result["cluster_id"] for result in answer["results"]] == chosen
            assert answer["problems"] == []
        commands = await listed(rest, "correlation_id=fan-out", 4)
        assert sorted(command["cluster_id"] for command in commands) == ["east", "lab", "west", "west"]
        assert len(await listed(rest, "correlation_id=fan-out&cluster_id=west", 2)) == 2
