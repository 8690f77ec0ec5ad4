"""/admin/overview, once and as events, and /admin/drain: through the real broker, and with brokers that break off."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
import pytest

from gateway import watched
from gateway.overview_models import OverviewAnswer
from openline.v1.admin_service_pb2_grpc import AdminServiceStub
from openline.v1.overview_pb2 import WatchOverviewRequest

pytestmark = pytest.mark.asyncio(loop_scope="session")

EVENTS = "/admin/overview/events"


@asynccontextmanager
async def watching(api: httpx.AsyncClient, **request: Any) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[Any]]]:
    async with asyncio.timeout(60), api.stream("GET", EVENTS, **request) as response:
        yield response, _events(response)


async def _events(response: httpx.Response) -> AsyncIterator[Any]:
    """Names and data, and comments as they are."""
    name = ""
    async for line in response.aiter_lines():
        if line.startswith(":"):
            yield line, None
        elif line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


async def until(events: AsyncIterator[Any], so: Any) -> Any:
    async for name, data in events:
        if name == "overview" and so(data):
            return data
    raise AssertionError("the events have ended")


async def test_everything_at_once(api: httpx.AsyncClient) -> None:
    """Replicas with figures, clusters with executors, and commands that run; in the shape of the document."""
    running = asyncio.create_task(
        api.post("/v1/clusters/local/commands", json={"argv": ["get", "slow"], "cancel_on_disconnect": True})
    )
    async with asyncio.timeout(30):
        while True:
            overview = (await api.get("/admin/overview")).json()
            slow = [each for each in overview["commands"] if each["argv"] == ["get", "slow"]]
            if slow and slow[0]["state"] == "running":
                break
            await asyncio.sleep(0.02)
    OverviewAnswer.model_validate(overview)
    [replica] = overview["replicas"]
    assert (replica["is_reachable"], replica["is_draining"], overview["is_whole"]) == (True, False, True)
    assert replica["in_flight"]["running"] >= 1
    assert set(replica["figures"]["stages"]) == {"queue", "route", "deliver", "run", "return"}
    assert [cluster["cluster_id"] for cluster in overview["clusters"]] == ["east", "local", "west"]
    local = overview["clusters"][1]
    assert (local["is_connected"], local["is_active"], overview["connected_clusters"]) == (True, True, 1)
    [executor] = local["executors"]
    assert (executor["replica_id"], executor["running"] >= 1) == (replica["replica_id"], True)
    [command] = slow
    assert (command["owner"], command["cluster_id"], command["executor_id"]) == ("me", "local", executor["executor_id"])
    assert command["elapsed_s"] > 0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_events_go_on_until_the_caller_leaves(api: httpx.AsyncClient) -> None:
    """Each at the interval that was asked for; how a command ended is among them."""
    async with watching(api, params={"interval": 0.5}) as (response, events):
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        first = await until(events, lambda _: True)
        answer = await api.post("/v1/clusters/local/commands", json={"argv": ["get", "fail"]})
        command_id = answer.json()["command_id"]

        def has_ended(overview: Any) -> bool:
            return any(each["command_id"] == command_id for each in overview["ended"])

        overview = await until(events, has_ended)
        [ended] = [each for each in overview["ended"] if each["command_id"] == command_id]
        assert (ended["outcome"], ended["exit_code"], ended["reason"]) == ("exited", 1, None)
        [executor] = next(each["executors"] for each in overview["clusters"] if each["cluster_id"] == "local")
        assert (ended["executor_id"], ended["replica_id"]) == (executor["executor_id"], executor["replica_id"])
        assert overview["at"] > first["at"]


async def test_events_go_on_for_as_long_as_was_asked(api: httpx.AsyncClient) -> None:
    """With the header of all other waits; the end is said."""
    async with watching(api, params={"interval": 0.5}, headers={"X-Request-Timeout": "3"}) as (_, events):
        names = [name async for name, _ in events]
    assert (set(names[:-1]), names[-1]) == ({"overview"}, ": the time asked for is up")


async def test_a_refusal_has_its_own_status(api: httpx.AsyncClient) -> None:
    """Before there is a stream of anything."""
    for key, status, reason in (("no-such-key", 401, "UNAUTHENTICATED"), ("other-key", 403, "SCOPE_MISSING")):
        for path in ("/admin/overview", EVENTS):
            answer = await api.get(path, headers={"X-API-Key": key})
            assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert (await api.get(EVENTS, headers={"X-API-Key": ""})).status_code == 401


@pytest.mark.parametrize("interval", ["0.4", "11", "nan", "x", "-1"])
async def test_intervals_that_cannot_be(api: httpx.AsyncClient, interval: str) -> None:
    assert (await api.get(EVENTS, params={"interval": interval})).status_code == 422


async def test_silence_is_filled_with_pings(broker: Any, cluster: str, serve_gateway: Any) -> None:
    """A proxy in between closes what says nothing."""
    async with (
        serve_gateway(broker, ping_s=0.05) as (address, _),
        client(address) as api,
        watching(api, params={"interval": 10}) as (_, events),
    ):
        await until(events, lambda _: True)
        assert await anext(events) == (": ping", None)


async def test_whoever_leaves_is_watched_for_no_more(broker: Any, cluster: str, api: httpx.AsyncClient) -> None:
    """Places at the broker are free again: more come and go, one after the other, than there are."""
    for _ in range(60):
        async with watching(api, params={"interval": 10}) as (response, events):
            assert response.status_code == 200
            await anext(events)


async def test_another_replica_is_asked_when_one_breaks_off(
    run_program: Any, serve_gateway: Any, tmp_path: Any
) -> None:
    """The stream goes on; when none is left it ends with the reason."""
    flags = ("--listen", "127.0.0.1:0", "--api-keys", "me:test-key:admin", "--executor-tokens", "a:the-token-of-a")
    with run_program("openline-broker", *flags) as one, run_program("openline-broker", *flags) as other:
        addresses = [program.until("broker.started")["listen"] for program in (one, other)]
        by_address = dict(zip(addresses, (one, other), strict=True))
        async with (
            serve_gateway(*addresses) as (address, _),
            client(address) as api,
            watching(api, params={"interval": 0.5}) as (_, events),
        ):
            first = await until(events, lambda _: True)
            [asked] = [each["address"] for each in first["replicas"] if each["replica_id"] == first["replica_id"]]
            by_address[asked].kill()
            await until(events, lambda overview: overview["replica_id"] != first["replica_id"])
            for program in (one, other):
                program.kill()
            [told] = [data async for name, data in events if name == "error"]
            assert (told["status"], told["reason"]) == (503, "BROKER_UNAVAILABLE")


async def test_another_replica_is_asked_when_one_has_no_place_left(
    run_program: Any, serve_gateway: Any, broker: Any
) -> None:
    """Where all of them are full it is said at once."""
    flags = ("--listen", "127.0.0.1:0", "--api-keys", "me:test-key:admin", "--executor-tokens", "a:the-token-of-a")
    with run_program("openline-broker", *flags) as program:
        full = program.until("broker.started")["listen"]
        async with grpc.aio.insecure_channel(full) as channel:
            watch = AdminServiceStub(channel).WatchOverview
            held = [watch(WatchOverviewRequest(), metadata=(("x-api-key", "test-key"),)) for _ in range(25)]
            for call in held:
                await call.read()
            async with serve_gateway(full) as (address, _), client(address) as api:
                answer = await api.get(EVENTS)
                assert (answer.status_code, answer.json()["reason"]) == (429, "QUOTA_EXCEEDED")
            async with (
                serve_gateway(full, broker) as (address, _),
                client(address) as api,
                watching(api) as (_, events),
            ):
                overview = await until(events, lambda _: True)
                assert [each["address"] for each in overview["replicas"]] == [broker]
            for call in held:
                call.cancel()


async def test_another_replica_is_asked_when_one_knows_of_no_overviews(
    broker: Any, serve_gateway: Any, stage: Any
) -> None:
    """An older one, that is updated next. When there is no other it is said, and soon."""

    async def mute(*_: Any) -> None:
        return

    async with stage(mute) as older:
        answer = await older.api.get(EVENTS)
        assert (answer.status_code, answer.json()["reason"]) == (501, "NOT_BUILT")
        async with (
            serve_gateway(older.pipes.replicas[0].address, broker) as (address, _),
            client(address) as api,
            watching(api) as (response, events),
        ):
            assert response.status_code == 200
            await until(events, lambda _: True)


async def test_a_replica_that_falls_silent_is_left(
    broker: Any, cluster: str, serve_gateway: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is frozen: the time is bounded, and the next attempt finds it again."""
    monkeypatch.setattr(watched, "SILENCE_S", -9.0)
    async with (
        serve_gateway(broker) as (address, _),
        client(address) as api,
        watching(api, params={"interval": 10}) as (_, events),
    ):
        seen = [await until(events, lambda _: True) for _ in range(2)]
        assert seen[0]["at"] != seen[1]["at"]


async def test_a_replica_that_there_is_not(api: httpx.AsyncClient) -> None:
    answer = await api.post("/admin/drain", json={"replica_id": "broker-9"})
    assert (answer.status_code, answer.json()["reason"]) == (422, "INVALID_COMMAND")
    assert answer.json()["detail"][0]["loc"] == ["body", "replica_id"]


@pytest.mark.parametrize(
    "body",
    [{}, {"replica_id": ""}, {"replica_id": "a", "spread_seconds": -1}, {"replica_id": "a", "spread_seconds": 3601},
     {"replica_id": "a", "reason": "x" * 201}, {"replica_id": "a\n"}],
)  # fmt: skip
async def test_drains_that_cannot_be(api: httpx.AsyncClient, body: Any) -> None:
    assert (await api.post("/admin/drain", json=body)).status_code == 422


async def test_a_lone_replica_is_not_drained(api: httpx.AsyncClient) -> None:
    [replica] = (await api.get("/admin/overview")).json()["replicas"]
    answer = await api.post("/admin/drain", json={"replica_id": replica["replica_id"]})
    assert (answer.status_code, answer.json()["reason"]) == (503, "BROKER_UNAVAILABLE")
    assert "no other replica" in answer.json()["detail"]


def client(address: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"http://{address}", headers={"X-API-Key": "test-key"}, timeout=20, trust_env=False
    )
