"""`make pictures`: the pictures of the documentation, from a real demo under some load. Takes as long as charts are."""

import argparse
import asyncio
import contextlib
import io
import os
import random
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import grpc
import httpx
from playwright.async_api import Browser, async_playwright
from rich.console import Console

from broker.rates import History
from broker.screen import screen
from openline.v1 import overview_pb2 as pb
from openline.v1.admin_service_pb2_grpc import AdminServiceStub

HERE = Path(__file__).parents[2] / "docs" / "pictures"
PROGRAMS = Path(sys.executable).parent
KEY = "test-key"
PORT, BROKER_PORT = 18_080, 18_051
CLUSTERS = 6
# So that one is away, and commands for it are refused.
GONE = "executor-local-5"
WIDTH, HEIGHT = 1440, 1240

LIVE = (
    ("logs", "-f", "toolbox", "-n", "default"),
    ("get", "pods", "-A", "-w"),
    ("get", "events", "-n", "shop", "-w"),
    ("rollout", "status", "deployment/web", "-n", "default"),
)
SHORT = (
    ("get", "pods", "-n", "shop"),
    ("get", "nodes", "-o", "wide"),
    ("describe", "deployment", "web", "-n", "default"),
    ("get", "deployments", "-A"),
    ("top", "pods", "-n", "payments"),
    ("logs", "toolbox", "-n", "default", "--tail=50"),
    ("get", "services", "-n", "payments"),
)
DENIED = (("delete", "pod", "toolbox"), ("get", "secrets", "-n", "payments"))


@dataclass(frozen=True)
class Demo:
    url: str
    brokers: list[str]
    pids: dict[str, int]


@contextlib.asynccontextmanager
async def demo() -> AsyncIterator[Demo]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "demo.main", "--clusters", str(CLUSTERS), "--port", str(PORT),
        "--broker-port", str(BROKER_PORT), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        text = ""
        async with asyncio.timeout(120):
            while "debug/execute" not in text:
                line = await process.stdout.readline()
                assert line, f"the demo did not start: {text}"
                text += line.decode()
        rows = dict(re.findall(r"^  (\w+) +(\S.*)$", text, re.MULTILINE))
        pids = {name: int(pid) for name, pid in (each.split() for each in rows["processes"].split(", "))}
        yield Demo(rows["gateway"], rows["brokers"].split(", "), pids)
    finally:
        process.send_signal(signal.SIGINT)
        await process.wait()


@contextlib.asynccontextmanager
async def load(demo: Demo) -> AsyncIterator[None]:
    """Some AI agents at work: most of what they ask is short, some is watched, a little is denied."""
    chance = random.Random(7)
    clusters = ["local", *(f"local-{number}" for number in range(2, CLUSTERS + 1))]
    async with httpx.AsyncClient(base_url=demo.url, headers={"X-API-Key": KEY}, timeout=90) as client:

        def conversation() -> dict[str, str]:
            return {"X-Correlation-ID": f"incident-{chance.randint(4100, 4140)}"}

        async def watch() -> None:
            while True:
                body = {"argv": chance.choice(LIVE), "timeout_seconds": chance.randint(20, 80)}
                path = f"/v1/clusters/{chance.choice(clusters)}/commands"
                headers = {"Accept": "text/event-stream", **conversation()}
                with contextlib.suppress(httpx.HTTPError):
                    async with client.stream("POST", path, json=body, headers=headers) as answer:
                        async for _ in answer.aiter_bytes():
                            pass
                await asyncio.sleep(0.5)

        async def ask() -> None:
            while True:
                body = {"argv": chance.choice(DENIED) if chance.random() < 0.04 else chance.choice(SHORT)}
                cluster_id = chance.choice(clusters)
                if cluster_id == "local-5" and chance.random() < 0.8:
                    continue
                with contextlib.suppress(httpx.HTTPError):
                    await client.post(f"/v1/clusters/{cluster_id}/commands", json=body, headers=conversation())
                pace = 0.45 + 0.25 * (monotonic() // 40 % 2)
                await asyncio.sleep(chance.expovariate(1 / pace))

        tasks = [asyncio.create_task(each()) for each in (watch, watch, watch, watch, watch, ask, ask, ask)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def draw_page(browser: Browser, url: str, scheme: str, seconds: float) -> None:
    context = await browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)
    page = await context.new_page()
    await page.goto(f"{url}/ui")
    await page.get_by_label("API key").fill(KEY)
    await page.get_by_role("button", name="Sign in").click()
    await asyncio.sleep(seconds)
    await page.screenshot(path=HERE / f"ui-{scheme}.png")
    await context.close()


async def draw_top(address: str, seconds: float) -> None:
    history = History()
    async with grpc.aio.insecure_channel(address) as channel:
        request = pb.WatchOverviewRequest(interval_s=1)
        call = AdminServiceStub(channel).WatchOverview(request, metadata=(("x-api-key", KEY),))
        until, last = monotonic() + seconds, monotonic()
        while True:
            overview = (await call.read()).overview
            now = monotonic()
            history.take(overview, seconds=now - last)
            last = now
            if now >= until:
                break
        call.cancel()
    console = Console(width=116, record=True, file=io.StringIO(), force_terminal=True)
    console.print(screen(overview, history, width=116, height=34))
    # Without what it would load from elsewhere: a font, which is not needed.
    svg = re.sub(r"@font-face \{.*?\}|<!--.*?-->", "", console.export_svg(title="openline-broker top"), flags=re.DOTALL)
    (HERE / "top.svg").write_text(svg)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=290.0, help="how much of their five minutes charts show")
    seconds: float = parser.parse_args().seconds
    names = (os.environ.get("OPENLINE_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)))
    HERE.mkdir(exist_ok=True)
    async with demo() as running, load(running), async_playwright() as playwright:
        os.kill(running.pids[GONE], signal.SIGTERM)
        flags = ["--disable-gpu", "--no-first-run", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        browser = await playwright.chromium.launch(executable_path=chromium, args=flags)
        async with asyncio.TaskGroup() as tasks:
            for scheme in ("light", "dark"):
                tasks.create_task(draw_page(browser, running.url, scheme, seconds))
            tasks.create_task(draw_top(running.brokers[0], min(60.0, seconds)))
        await browser.close()


asyncio.run(main())
