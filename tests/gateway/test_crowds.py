"""Many callers at once, and a gateway that is killed under them."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from openline.settings import Address
from openline.v1 import command_service_pb2 as pb
from tests.programs import free_port, until

STREAMS = 500
EVENTS = {"Accept": "text/event-stream", "X-API-Key": "test-key"}
# Nobody waits longer for anything here.
PATIENCE_S = 90.0
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux to count sockets")


def open_files(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def client(address: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=f"http://{address}", timeout=PATIENCE_S, limits=limits, trust_env=False)


async def events_of(lines: AsyncIterator[str]) -> list[tuple[str, dict[str, Any]]]:
    """Name and data of each, to the end of the stream."""
    events, name = [], ""
    async for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            events.append((name, json.loads(value)))
    return events


async def follow(api: httpx.AsyncClient, method: str, path: str, **asked: Any) -> list[tuple[str, dict[str, Any]]]:
    async with api.stream(method, path, headers=EVENTS, **asked) as answer:
        assert answer.status_code == 200, await answer.aread()
        return await events_of(answer.aiter_lines())


@needs_proc
async def test_500_streams_at_once(stage: Any) -> None:
    """Each gets its own command's output and result, none before all have begun; then nothing is left of any."""
    everybody = asyncio.Event()

    async def script(frame: pb.CallerFrame, say: Any) -> None:
        word = frame.execute_stream.argv[2].encode()
        await say.state("RUNNING")
        await say.output(0, b"begun " + word)
        await everybody.wait()
        await say.output(1, b", done " + word)
        await say.result(exit_code=0, stdout=b"begun " + word + b", done " + word)

    async with stage(script) as scene:
        tasks, files = len(asyncio.all_tasks()), open_files()
        async with client(scene.gateway) as api, asyncio.timeout(PATIENCE_S):
            path = "/v1/clusters/local/commands"
            streams = [
                asyncio.create_task(follow(api, "POST", path, json={"argv": ["get", "pod", f"p{number}"]}))
                for number in range(STREAMS)
            ]
            await until(lambda: len(scene.broker.asked) == STREAMS)
            assert scene.open_calls == STREAMS
            everybody.set()
            told = await asyncio.gather(*streams)
        for number, events in enumerate(told):
            output = f"begun p{number}, done p{number}"
            assert "".join(data["text"] for name, data in events if name == "output") == output
            assert [name for name, _ in events].count("result") == 1
            assert (events[-1][0], events[-1][1]["stdout"]) == ("result", output)
        await until(lambda: scene.open_calls == 0)
        # The scripts' own tasks are the broker's.
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        await until(lambda: open_files() <= files)
        assert scene.broker.abandoned == []


@needs_proc
async def test_250_of_500_streams_break_off(stage: Any) -> None:
    """Theirs are abandoned; the others' end as ever; nothing is left of either."""
    left = asyncio.Event()

    async def script(frame: pb.CallerFrame, say: Any) -> None:
        await say.state("RUNNING")
        await left.wait()
        await say.result(exit_code=0)

    async with stage(script) as scene:
        tasks, files = len(asyncio.all_tasks()), open_files()
        async with client(scene.gateway) as api, asyncio.timeout(PATIENCE_S):
            path = "/v1/clusters/local/commands"
            streams = [
                asyncio.create_task(follow(api, "POST", path, json={"argv": ["get", "pods"]})) for _ in range(STREAMS)
            ]
            await until(lambda: len(scene.broker.asked) == STREAMS)
            for stream in streams[::2]:
                stream.cancel()
            await until(lambda: len(scene.broker.abandoned) == STREAMS // 2)
            assert scene.open_calls == STREAMS // 2
            left.set()
            told = await asyncio.gather(*streams[1::2])
        assert {events[-1][0] for events in told} == {"result"}
        await until(lambda: scene.open_calls == 0)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        await until(lambda: open_files() <= files)


@needs_proc
async def test_500_watch_a_real_command(run_program: Any, broker: Address, cluster: str, gate: Any) -> None:
    """One command, 500 who attach to it while it runs: all see all of it, and then the gateway's sockets are closed."""
    attached = 0

    async def watch(api: httpx.AsyncClient, path: str) -> list[tuple[str, dict[str, Any]]]:
        async def lines(answer: httpx.Response) -> AsyncIterator[str]:
            nonlocal attached
            async for line in answer.aiter_lines():
                attached += line.startswith("event: output")
                yield line

        async with api.stream("GET", path, headers=EVENTS) as answer:
            return await events_of(lines(answer))

    with run_program("openline-gateway", "--listen", "127.0.0.1:0", "--broker", broker) as gateway:
        address = gateway.until("gateway.listening")["address"]
        gateway.until("pipe.opened")
        async with client(address) as api, asyncio.timeout(PATIENCE_S):
            files = open_files(gateway.process.pid)
            body = {"cluster_id": cluster, "args": ["held", "watched"], "timeout_seconds": 80}
            begun = (await api.post("/debug/execute/async", json=body, headers=EVENTS)).json()
            path = f"/v1/commands/{begun['operation_id']}/events"
            watching = [asyncio.create_task(watch(api, path)) for _ in range(STREAMS)]
            # Each has heard the one piece of output that there is.
            while attached < STREAMS:
                await asyncio.sleep(0.02)
            gate("watched").touch()
            told = await asyncio.gather(*watching)
        for events in told:
            name, data = events[-1]
            assert name == "result", events
            assert (data["stdout"], data["stderr"]) == ("one\ntwo\n", "oh\n")
            output = [data for name, data in events if name == "output"]
            assert "".join(data["text"] for data in output if data["source"] == "stdout") == "one\ntwo\n"
        await until(lambda: open_files(gateway.process.pid) <= files)


# A gateway that is killed

CALLERS = 24
EACH = 6
# When so many have their answer.
KILLS = (20, 50, 80)
# Writes down that it ran, and as what.
KUBECTL = """#!/bin/sh
[ "$1" = get ] || { echo '{}'; exit 0; }
echo "$3" >> "%(here)s/runs"
sleep 0.2
echo "result of $3"
"""


async def ask(api: httpx.AsyncClient, name: str, tries: Counter[str]) -> dict[str, Any]:
    """Again and again with the same key, as long as nobody answers or who answers says that it is not the end."""
    body = {"argv": ["get", "pods", name], "timeout_seconds": 30}
    while True:
        tries[name] += 1
        try:
            answer = await api.post("/v1/clusters/local/commands", json=body, headers={"Idempotency-Key": name})
        except httpx.TransportError:
            await asyncio.sleep(0.05)
            continue
        if answer.status_code == 200:
            return {**answer.json(), "replayed": answer.headers.get("Idempotency-Replayed")}
        assert answer.status_code in (429, 503), answer.text
        await asyncio.sleep(0.05)


async def poll(api: httpx.AsyncClient, ended: asyncio.Event) -> list[httpx.Response]:
    """An old client, which asks for the cluster's status and bears that nobody answers."""
    answers = []
    while not ended.is_set():
        with suppress(httpx.TransportError):
            answers.append(await api.get("/cluster/local/status"))
        await asyncio.sleep(0.02)
    return answers


async def test_a_killed_gateway_loses_no_result(run_program: Any, tmp_path: Path) -> None:
    """kill -9 under load, and a new one: who retries with its key gets its result, and each command ran once.

    An old client that polls the cluster's status meanwhile hears what is so, or nothing.
    """
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(KUBECTL % {"here": tmp_path})
    kubectl.chmod(0o755)
    keys = ("--api-keys", "me:test-key:execute+session+read", "--executor-tokens", "local:the-token-of-local")
    names = [[f"c{caller}-{number}" for number in range(EACH)] for caller in range(CALLERS)]
    tries: Counter[str] = Counter()
    results: dict[str, dict[str, Any]] = {}
    ended = asyncio.Event()

    async def call(api: httpx.AsyncClient, mine: list[str]) -> None:
        for name in mine:
            results[name] = await ask(api, name, tries)

    with run_program("openline-broker", "--listen", "127.0.0.1:0", *keys) as broker:
        at = broker.until("broker.started")["listen"]
        flags = ("--broker", at, "--cluster-id", "local", "--token", "the-token-of-local", "--kubectl", str(kubectl))
        with run_program("openline-executor", *flags) as executor:
            executor.until("connection.opened")
            address = f"127.0.0.1:{free_port()}"
            flags = ("--listen", address, "--broker", at)
            async with client(address) as api, asyncio.timeout(PATIENCE_S):
                api.headers["X-API-Key"] = "test-key"
                polling = asyncio.create_task(poll(api, ended))
                calling = asyncio.gather(*(call(api, mine) for mine in names))
                for answers in KILLS:
                    with run_program("openline-gateway", *flags) as gateway:
                        await until(lambda answers=answers: calling.done() or len(results) >= answers)
                        gateway.process.kill()
                with run_program("openline-gateway", *flags):
                    await calling
                    ended.set()
                    statuses = await polling
    assert len(results) == CALLERS * EACH
    for name, answer in results.items():
        assert (answer["stdout"], answer["exit_code"]) == (f"result of {name}\n", 0)
    assert Counter((tmp_path / "runs").read_text().split()) == Counter(dict.fromkeys(results, 1))
    # Otherwise nothing was tried here: some had to ask again, and were given what their first request had begun.
    assert any(count > 1 for count in tries.values())
    assert any(answer["replayed"] for answer in results.values())
    answered = [answer.json() for answer in statuses if answer.status_code == 200]
    assert answered
    assert all(answer["is_connected"] for answer in answered)
    # Active from the first command on, and without a gap.
    active = [answer["is_active"] for answer in answered]
    assert active == sorted(active)
    assert active[-1]
    refused = {(answer.status_code, answer.json()["reason"]) for answer in statuses if answer.status_code != 200}
    assert refused <= {(503, "BROKER_UNAVAILABLE")}
