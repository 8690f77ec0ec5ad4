"""/metrics of a real gateway, as Prometheus reads it."""

import asyncio
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from openline import __version__
from openline.metrics import GATEWAY
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb

PATIENCE_S = 20.0
PREFIX = "openline_gateway_"
RUN = "/v1/clusters/{cluster_id}/commands"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(api: httpx.AsyncClient) -> Samples:
    # No key is asked for.
    answer = await api.get("/metrics", headers={"X-API-Key": ""})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.text))
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((PREFIX + name, frozenset(labels.items())), 0)


async def until(api: httpx.AsyncClient, name: str, wanted: float, **labels: str) -> Samples:
    async with asyncio.timeout(PATIENCE_S):
        while value(found := await scrape(api), name, **labels) != wanted:
            await asyncio.sleep(0.01)
    return found


async def done(_frame: pb.CallerFrame, say: Any) -> None:
    await say.reply(response=pb.ExecuteResponse(result=command_pb2.CommandResult(outcome=command_pb2.OUTCOME_EXITED)))


@pytest.mark.asyncio
async def test_requests_are_counted_by_route(stage: Any) -> None:
    """By its template, not by what was asked of it; agent calls apart from others."""
    async with stage(done) as scene:
        for cluster in ("local", "east", "west"):
            await scene.api.post(f"/v1/clusters/{cluster}/commands", json={"argv": ["get", "pods"]})
        ask = {"cluster_id": "local", "args": ["pods"], "correlation_id": "c"}
        await scene.api.post("/debug/execute", json=ask)
        await scene.api.post("/debug/execute", json={"cluster_id": "local", "args": 1})
        found = await scrape(scene.api)
        assert value(found, "requests_total", route=RUN, method="POST", status="2xx", agent_call="no") == 3
        executed = {"route": "/debug/execute", "method": "POST"}
        assert value(found, "requests_total", **executed, status="2xx", agent_call="yes") == 1
        assert value(found, "requests_total", **executed, status="4xx", agent_call="no") == 1
        assert value(found, "request_duration_seconds_count", route=RUN, agent_call="no") == 3
        assert value(found, "requests_in_flight") == 1  # the scrape
        assert value(found, "broker_connected", broker=scene.pipes.replicas[0].address) == 1
        await scene.broker.die()
        await until(scene.api, "broker_connected", 0, broker=scene.pipes.replicas[0].address)


@pytest.mark.asyncio
async def test_streams_are_counted_while_they_are_open(stage: Any) -> None:
    async def drip(_frame: pb.CallerFrame, say: Any) -> None:
        await say.state("RUNNING")
        await ended.wait()
        await say.result()

    ended = asyncio.Event()
    async with stage(drip) as scene:
        events = {"Accept": "text/event-stream"}
        async with scene.api.stream("POST", "/v1/clusters/a/commands", json={"argv": ["x"]}, headers=events) as answer:
            assert answer.status_code == 200
            found = await scrape(scene.api)
            assert value(found, "event_streams_open") == 1
            assert value(found, "requests_in_flight") == 2
            ended.set()
            await answer.aread()
        found = await until(scene.api, "event_streams_open", 0)
        assert value(found, "requests_total", route=RUN, method="POST", status="2xx", agent_call="no") == 1


@pytest.mark.asyncio
async def test_labels_are_not_for_callers_to_choose(stage: Any) -> None:
    """Whatever paths, methods and ids are asked with, there are as many series as before."""
    async with stage(done) as scene:
        seen = []
        for n in range(3):
            await scene.api.get(f"/no/such/path-{n}")
            await scene.api.post(f"/v1/commands/made-up-{n}")
            await scene.api.get(f"/v1/commands/made-up-{n}", headers={"X-Correlation-ID": f"c-{n}"})
            await scene.api.request(f"MADEUP{n}", "/healthz")
            await scene.api.post(f"/v1/clusters/x{n}/commands", json={"argv": [f"{n}"]})
            await scrape(scene.api)
            seen.append({name for name in await scrape(scene.api) if not name[0].startswith("process_")})
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.asyncio(loop_scope="session")
async def test_every_metric_is_there_with_its_help(api: httpx.AsyncClient) -> None:
    """And none that the table does not name, but for the process's own."""
    await api.get("/healthz")
    families = {f.name: f for f in text_string_to_metric_families((await api.get("/metrics")).text)}
    named = {each.name.removesuffix("_total"): each for each in GATEWAY}
    assert {name for name in families if not name.startswith("process_")} == set(named)
    for name, each in named.items():
        assert (families[name].documentation, families[name].type) == (each.help, each.kind)


@pytest.mark.asyncio
async def test_what_is_turned_away_is_counted(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a connection is closed without an answer, which nothing else tells of."""
    monkeypatch.setattr("gateway.serving.HEAD_TIMEOUT_S", 0.2)
    monkeypatch.setattr("gateway.edge.BODY_TIMEOUT_S", 0.2)
    asked = b"POST /v1/clusters/a/commands HTTP/1.1\r\nHost: x\r\nX-API-Key: k\r\n"
    async with stage(done) as scene:
        for sent in (
            b"no http\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nX-Long: %b\r\n\r\n" % (b"x" * (70 << 10)),
            b"GET /healthz HTTP/1.1\r\nHost: ",
            asked + b"Content-Length: 100\r\n\r\n{",
            asked + b"Content-Length: 2000000\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection(*scene.gateway.rsplit(":", 1))
            writer.write(sent)
            async with asyncio.timeout(PATIENCE_S):
                await reader.read()
            writer.close()
        await scene.api.get("/v1/clusters", headers={"X-API-Key": ""})
        with monkeypatch.context() as patch:
            patch.setattr("gateway.serving.MAX_CONNECTIONS", 0)
            await scene.api.get("/v1/clusters")
            patch.setattr("gateway.serving.MOST_CONNECTIONS", 0)
            reader, writer = await asyncio.open_connection(*scene.gateway.rsplit(":", 1))
            assert await reader.read() == b""
            writer.close()
        found = await until(scene.api, "refused_total", 1, why="unheard")
    for why in ("no_key", "crowded", "large_head", "large_body", "slow_body", "malformed", "slow_head"):
        assert value(found, "refused_total", why=why) == 1, why
    assert value(found, "connections_open") >= 1
    assert value(found, "build_info", version=__version__) == 1
