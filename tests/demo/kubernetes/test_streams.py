"""What takes its time: watches, followed logs, a namespace that is slow, and a log that is far too long."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from demo.kubectl import kubectl_path
from demo.kubernetes.server import ApiServer

Kubectl = Callable[..., Coroutine[None, None, CompletedProcess[str]]]

pytestmark = pytest.mark.asyncio(loop_scope="session")

PODS = "/api/v1/namespaces/payments/pods"


async def first_lines(server: ApiServer, home: Path, *args: str, count: int) -> list[str]:
    """The first lines that kubectl prints; it is then killed, as a caller would who has seen enough."""
    process = await asyncio.create_subprocess_exec(
        str(kubectl_path()),
        *args,
        env={"HOME": str(home), "KUBECONFIG": str(server.kubeconfig)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(40):
            return [(await process.stdout.readline()).decode() for _ in range(count)]
    finally:
        process.kill()
        await process.communicate()


async def test_a_watch_sees_restarts(server: ApiServer, home: Path) -> None:
    """Pods and events can be watched, and what crash-loops changes; `--watch-only` leaves out what is there already."""
    crashing = ("-n", "payments", "-l", "app=payments-api")
    pods, changes, events = await asyncio.gather(
        first_lines(server, home, "get", "pods", "-w", *crashing, count=5),
        first_lines(server, home, "get", "pods", "--watch-only", "--no-headers", *crashing, count=2),
        first_lines(server, home, "events", "-n", "payments", "--watch", count=10),
    )
    assert len({line.split()[0] for line in pods[1:]}) == 2
    assert len({tuple(line.split()[:4]) for line in pods[1:]}) > 2
    assert all(line.startswith("payments-api-") for line in changes)
    assert any("BackOff" in line for line in events)


async def test_a_followed_log_goes_on(server: ApiServer, home: Path) -> None:
    """`logs -f` of a pod that is well prints a line about every second."""
    lines = await first_lines(server, home, "logs", "-f", "deploy/web", "-c", "web", "--tail=1", count=4)
    assert all("HTTP/1.1" in line for line in lines)


async def test_a_followed_log_ends_with_its_container(kubectl: Kubectl) -> None:
    """`logs -f` of a container that crash-loops ends by itself when the container does."""
    outcome = await kubectl("logs", "-f", "-n", "payments", "deploy/payments-api")
    assert outcome.returncode == 0
    assert outcome.stdout.splitlines()[-1].endswith("giving up: exit status 1")


async def test_a_watch_ends_when_it_said(kubectl: Kubectl) -> None:
    """A watch with `timeoutSeconds` ends after them, and cleanly."""
    outcome = await kubectl("get", "--raw", f"{PODS}?watch=true&timeoutSeconds=1")
    assert outcome.returncode == 0
    events = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [event["type"] for event in events[:5]] == ["ADDED"] * 5


async def test_initial_events_end_with_a_bookmark(kubectl: Kubectl) -> None:
    """A client that lists by watching is told when it has seen everything."""
    query = (
        "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1"
    )
    outcome = await kubectl("get", "--raw", f"{PODS}?{query}")
    events = [json.loads(line) for line in outcome.stdout.splitlines()]
    (bookmark,) = (event for event in events if event["type"] == "BOOKMARK")
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert events.index(bookmark) == 5


async def test_too_old_a_revision_is_gone(kubectl: Kubectl) -> None:
    """A watch from before the backlog gets an ERROR with 410 Expired, so that the client lists again."""
    outcome = await kubectl("get", "--raw", f"{PODS}?watch=true&resourceVersion=1")
    (event,) = (json.loads(line) for line in outcome.stdout.splitlines())
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


async def test_a_slow_namespace_holds_nobody_up(kubectl: Kubectl) -> None:
    """What is asked of one is answered after others that were asked later, but what `slow` is asked is answered."""
    slow, stuck = (asyncio.create_task(kubectl("get", "pods", "-n", name)) for name in ("slow", "stuck"))
    await asyncio.sleep(0.3)
    for _ in range(3):
        assert (await kubectl("get", "pods")).returncode == 0
    assert not stuck.done()
    stuck.cancel()
    assert "tortoise-" in (await slow).stdout


async def test_a_huge_log_is_cut_where_asked(kubectl: Kubectl) -> None:
    """`--limit-bytes` cuts to the byte, and `--tail` to the line, at no cost for the rest."""
    cut = await kubectl("logs", "-n", "flood", "chatty", "--limit-bytes=100000")
    assert len(cut.stdout) == 100_000
    tail = await kubectl("logs", "-n", "flood", "chatty", "--tail=3")
    numbers = [int(line.split()[0]) for line in tail.stdout.splitlines()]
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]
    assert numbers[0] - int(cut.stdout.split()[0]) > 1_900_000


async def test_a_huge_log_lets_others_through(server: ApiServer, home: Path, kubectl: Kubectl) -> None:
    """While one client reads the flood, others are served; and when it leaves, that is all."""
    flood = asyncio.create_task(first_lines(server, home, "logs", "-n", "flood", "chatty", count=150_000))
    await asyncio.sleep(0.2)
    assert (await kubectl("get", "pods")).returncode == 0
    assert len(await flood) == 150_000
