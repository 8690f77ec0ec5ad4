"""The live page at /ui, as an operator uses it: the machine's own Chromium, real programs, keys and clicks.

`make browser` installs Chromium where there is none. Screenshots go to pytest's temporary directory.
"""

import asyncio
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp
from playwright.async_api import Browser, BrowserContext, Page, Request, Route, async_playwright, expect

from broker.rates import History
from openline.v1 import overview_pb2 as pb
from openline.v1.cluster_service_pb2 import Replica
from openline.v1.command_service_pb2 import ExecuteRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)
ADMIN, READER, OF_EAST = "test-key", "the-key-of-a-reader", "the-key-of-an-admin-of-east"
HOSTILE_OWNER, HOSTILE_KEY = '<img src=x onerror="window.owned=1">', "the-key-of-somebody-hostile"
KEYS = ",".join(
    (
        f"test:{ADMIN}:execute+read+session+admin+audit",
        f"reader:{READER}:read+execute",
        f"pat:{OF_EAST}:admin@east",
        f"{HOSTILE_OWNER}:{HOSTILE_KEY}:execute",
    )
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
# What Chromium itself says of answers that are no 2xx, and of a gateway that is gone.
NETWORK = "Failed to load resource"

T = TypeVar("T")


def chromium() -> str:
    found = os.environ.get("OPENLINE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    assert found, "there is no Chromium: `make browser` installs one, or OPENLINE_CHROMIUM says where it is"
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    flags = [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=chromium(), args=flags)
        yield opened
        await opened.close()


class Tab:
    """One tab of its own, and what it has done that a test should know of."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.requests: list[Request] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda said: self._heard(said.type, said.text))
        page.on("pageerror", lambda failure: self.complaints.append(str(failure)))
        page.on("dialog", lambda dialog: self.complaints.append(f"a dialog: {dialog.message}"))
        page.on("request", lambda request: self.requests.append(request))

    def _heard(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and NETWORK not in text:
            self.complaints.append(text)

    def check(self) -> None:
        """Nothing went wrong inside, and nothing was asked of anybody but the gateway."""
        assert self.complaints == []
        assert [each.url for each in self.requests if not each.url.startswith(f"{self.url}/")] == []

    async def open(self) -> None:
        await self.page.goto(f"{self.url}/ui")

    async def sign_in(self, key: str = ADMIN, *, remember: bool = False) -> None:
        await self.open()
        await self.page.get_by_label("API key").fill(key)
        if remember:
            await self.page.get_by_label("Remember it in this tab").check()
        await self.page.get_by_role("button", name="Sign in").click()

    async def says(self, text: str | re.Pattern[str]) -> None:
        """The state at the top, as it is read aloud."""
        await expect(self.page.locator("#state")).to_contain_text(text)

    def grid(self, name: str) -> Any:
        return self.page.get_by_role("grid", name=name, exact=True)

    def row(self, grid: str, *texts: str) -> Any:
        rows = self.grid(grid).locator("tbody tr.row")
        for text in texts:
            rows = rows.filter(has_text=text)
        return rows

    async def shows(self, grid: str, *texts: str) -> None:
        await expect(self.row(grid, *texts).first).to_be_visible()

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.page.keyboard.press(key)


@asynccontextmanager
async def tab_of(browser: Browser, url: str, **context: Any) -> AsyncIterator[Tab]:
    opened: BrowserContext = await browser.new_context(**({"viewport": {"width": 1440, "height": 1200}} | context))
    try:
        tab = Tab(await opened.new_page(), url)
        yield tab
        tab.check()
    finally:
        await opened.close()


class Stage:
    """Two replicas, a gateway, and clusters that tests open."""

    def __init__(self, fleet: Any, browser: Browser) -> None:
        self.fleet = fleet
        self.browser = browser
        self.url = f"http://{fleet.gateway.address}"

    async def stop_all(self, cluster_id: str) -> None:
        """Nothing that this test has begun is seen by the next one."""
        async with self.client() as client, asyncio.timeout(PATIENCE_MS / 1000):
            while (await client.post("/admin/cancel", json={"cluster_id": cluster_id})).json()["cancelled"]:
                await asyncio.sleep(0.05)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers={"X-API-Key": ADMIN}, timeout=60, trust_env=False)

    def tab(self, **context: Any) -> Any:
        return tab_of(self.browser, self.url, **context)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(make_fleet: Callable[..., Any], browser: Browser) -> AsyncIterator[Stage]:
    fleet = make_fleet(replicas=2, clusters=("east", "west"), keys=KEYS, flags=("--rebalance", "0"))
    with fleet.running():
        await fleet.gateway.start()
        yield Stage(fleet, browser)


@pytest.fixture
def east(stage: Stage, open_cluster: Callable[..., Any]) -> Any:
    """`async with east() as cluster`: the cluster, with its executor connected to the first replica."""

    @asynccontextmanager
    async def opened(*brokers: str) -> AsyncIterator[Any]:
        async with open_cluster("east", *(brokers or stage.fleet.addresses)) as cluster:
            # The other one is there to move to, and not for a first one that is slow to answer.
            with ExitStack() as cut:
                for line in cluster.lines[1:]:
                    cut.enter_context(line.broken())
                await cluster.start()
            try:
                yield cluster
            finally:
                await stage.stop_all("east")

    return opened


# Signing in


async def test_it_asks_for_a_key_and_says_what_is_wrong_with_one(stage: Stage) -> None:
    """A key that is none, one without the scope, and one that is good; it is shown nowhere and in no URL."""
    async with stage.tab() as tab:
        await tab.open()
        page = tab.page
        await expect(page.get_by_label("API key")).to_be_focused()
        assert await page.get_by_label("API key").get_attribute("type") == "password"
        await tab.sign_in("a-key-that-there-never-was")
        await expect(page.get_by_role("alert")).to_contain_text("is not known")
        await tab.sign_in(READER)
        await expect(page.get_by_role("alert")).to_contain_text("lacks the scope admin")
        await page.get_by_label("API key").fill("schlüssel")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_contain_text("cannot be a key")
        await tab.sign_in()
        await tab.says("live, by broker-")
        assert ADMIN not in await page.content()
        assert not any(ADMIN in request.url for request in tab.requests)
        assert await page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}])") == "[{},{}]"


async def test_a_key_is_remembered_in_its_tab_alone_until_it_is_signed_out(stage: Stage) -> None:
    async with stage.tab() as tab:
        await tab.sign_in(remember=True)
        await tab.says("live")
        await tab.page.reload()
        await tab.says("live")
        assert await tab.page.evaluate("localStorage.length") == 0
        another = Tab(await tab.page.context.new_page(), stage.url)
        await another.open()
        await expect(another.page.get_by_label("API key")).to_be_visible()
        await tab.page.get_by_role("button", name="Sign out").click()
        await expect(tab.page.get_by_label("API key")).to_be_focused()
        assert await tab.page.evaluate("sessionStorage.length") == 0
        await tab.page.reload()
        await expect(tab.page.get_by_label("API key")).to_be_visible()


async def test_a_key_that_is_revoked_is_asked_for_again(stage: Stage) -> None:
    """At once, with all that was shown gone."""
    wanted = {"owner": "eve", "scopes": ["admin"]}
    async with stage.client() as client, stage.tab() as tab:
        made = (await client.post("/admin/keys", json=wanted)).json()
        await tab.sign_in(made["key"], remember=True)
        await tab.says("live")
        await client.delete(f"/admin/keys/{made['key_id']}")
        await expect(tab.page.get_by_role("alert")).to_contain_text("was revoked")
        await expect(tab.page.locator("#live")).to_be_hidden()
        assert await tab.page.locator("tr.row").count() == 0
        assert await tab.page.evaluate("sessionStorage.length") == 0


async def test_a_key_of_some_clusters_is_shown_those_alone(stage: Stage, east: Any) -> None:
    """And is told why there are no rates."""
    async with east(), stage.tab() as tab:
        await tab.sign_in(OF_EAST)
        await tab.shows("Clusters", "east", "connected")
        await expect(tab.row("Clusters")).to_have_count(1)
        await expect(tab.page.locator("#notice")).to_contain_text("some clusters only")
        await expect(tab.page.locator("#figures")).to_be_hidden()


# What is shown


async def test_a_command_as_it_runs_and_ends(stage: Stage, east: Any, tmp_path: Path) -> None:
    """With whose it is; then for some seconds how it ended. The numbers on top move."""
    async with east() as cluster, stage.tab() as tab:
        await tab.sign_in()
        await tab.shows("Clusters", "east", "connected")
        with cluster.held("mine"):
            asked = cluster.execute("mine", "default", correlation_id="talk-1")
            await tab.shows("Commands", "running", "east", "get pods mine -n default", "talk-1", "only")
            await expect(tab.page.locator("#in-flight")).to_have_text("1")
            await expect(tab.row("Clusters", "east")).to_contain_text("1 / 8")
            await expect(tab.page.locator("#replicas-note")).to_have_text("answer, 1 executor")
            await tab.page.screenshot(path=tmp_path / "running.png", full_page=True)
            failed = cluster.execute("yours", "fail-3")
            await tab.shows("Commands", "exit 3", "get pods yours", "only")
        await asked
        await tab.shows("Commands", "exit 0", "get pods mine", "only")
        done = tab.row("Commands", "exit 0").get_by_title("only, known to broker-0")
        await expect(done).to_be_visible()
        await expect(tab.page.locator("#rate")).not_to_have_text("–")
        await expect(tab.page.locator("#p95")).not_to_have_text("–")
        await expect(tab.page.locator("#throughput path").first).to_be_visible()
        await expect(tab.page.locator("#stages svg")).to_have_attribute("aria-label", re.compile("run [0-9]"))
        await expect(tab.row("Commands")).to_have_count(0)
        await failed


async def test_errors_are_counted_by_reason(stage: Stage) -> None:
    async with stage.tab() as tab, stage.fleet.callers() as (caller, _):
        await tab.sign_in()
        await tab.says("live")
        asked = [caller.execute(request("west")) for _ in range(3)]
        await asyncio.gather(*asked, return_exceptions=True)
        await tab.shows("Errors by reason", "CLUSTER_OFFLINE", "refused", "3")


def request(cluster_id: str, **fields: Any) -> Any:
    return ExecuteRequest(**({"cluster_id": cluster_id, "argv": ["get", "pods"], "timeout_s": 60} | fields))


async def test_what_others_have_named_is_text(stage: Stage) -> None:
    """Owners, words, conversations: none of it is read as markup, and no script of theirs runs."""
    evil = ['<img src=x onerror="window.owned=1">', "<script>window.owned=1</script>", "javascript:window.owned=1"]
    async with stage.tab() as tab, stage.fleet.callers() as (caller, _):
        await tab.sign_in()
        await tab.says("live")
        talk = "<svg/onload=window.owned=1>"
        waits = request(
            "west", argv=["get", *evil], wait_for_cluster_s=60, correlation_id=talk, cancel_on_disconnect=True
        )
        call = caller._commands.Execute(waits, metadata=(("x-api-key", HOSTILE_KEY),))
        try:
            await tab.shows("Commands", "waits", evil[0], talk, HOSTILE_OWNER)
            await tab.page.get_by_role("button", name="Cancel get").click()
            await expect(tab.page.locator("#cancel-argv")).to_contain_text(evil[1])
            await expect(tab.page.locator("#cancel-facts")).to_contain_text(HOSTILE_OWNER)
            await tab.press("Escape", "/")
            await tab.page.keyboard.type(evil[0])
            await tab.shows("Commands", evil[0])
            assert await tab.page.evaluate("window.owned") is None
            assert await tab.page.locator("#content img, #content script, svg[onload], dialog img").count() == 0
        finally:
            call.cancel()


async def test_markup_from_a_script_is_refused_by_the_browser(stage: Stage) -> None:
    """Whatever a later change to the page may do: no text becomes markup, and no style is written in."""
    async with stage.tab() as tab:
        await tab.open()
        attempts = {
            "innerHTML": "document.body.innerHTML = '<b>x</b>'",
            "outerHTML": "document.querySelector('h1').outerHTML = '<b>x</b>'",
            "document.write": "document.write('x')",
        }
        for name, attempt in attempts.items():
            refused = await tab.page.evaluate(
                f"() => {{ try {{ {attempt}; return '' }} catch (e) {{ return e.name }} }}"
            )
            assert refused in ("TypeError", "EvalError"), name
        style = "() => { const s = document.createElement('style'); s.textContent = 'body{display:none}';"
        assert (
            await tab.page.evaluate(
                f"{style} document.head.append(s); return getComputedStyle(document.body).display }}"
            )
            == "block"
        )
        tab.complaints.clear()


# What somebody does


async def test_a_command_is_cancelled_by_keys(stage: Stage, east: Any, tmp_path: Path) -> None:
    """Chosen, asked about, and then no more; Esc leaves it alone, and so does an Enter too many."""
    async with east() as cluster, stage.tab() as tab:
        await tab.sign_in()
        asked = cluster.execute("long", "sleep-300")
        await tab.shows("Commands", "running", "long")
        await tab.press("j", "c")
        dialog = tab.page.get_by_role("dialog", name="Cancel this command?")
        await expect(dialog).to_contain_text("get pods long -n sleep-300")
        await tab.page.screenshot(path=tmp_path / "cancel.png")
        await tab.press("Escape")
        await expect(dialog).to_be_hidden()
        await expect(tab.row("Commands", "long")).to_be_focused()
        await tab.press("c", "Enter")
        await expect(dialog).to_be_hidden()
        await tab.press("c")
        await expect(dialog.get_by_role("button", name="Let it run")).to_be_focused()
        await tab.press("Tab", "Enter")
        with pytest.raises(Exception, match="cancelled by its caller"):
            await asked
        await tab.shows("Commands", "cancelled", "long")


async def test_a_command_is_cancelled_by_an_admin_who_may_run_none(stage: Stage, east: Any) -> None:
    async with east() as cluster, stage.tab() as tab:
        await tab.sign_in(OF_EAST)
        asked = cluster.execute("long", "sleep-300")
        await tab.shows("Commands", "running", "long")
        await tab.page.get_by_role("button", name="Cancel get pods long").click()
        await tab.page.get_by_role("button", name="Cancel the command").click()
        with pytest.raises(Exception, match="cancelled by its caller"):
            await asked


async def test_rows_are_found_and_chosen_by_keys(stage: Stage, east: Any) -> None:
    """The filter, the tables one after the other, a cluster's commands, pausing, and what the keys are."""
    async with east() as cluster, stage.tab() as tab:
        await tab.sign_in()
        asked = [cluster.execute(f"c-{number}", "sleep-300") for number in range(3)]
        for number in range(3):
            await tab.shows("Commands", f"c-{number}")
        await tab.press("/")
        await tab.page.keyboard.type("c-1")
        await expect(tab.row("Commands")).to_have_count(1)
        await tab.press("Escape")
        await expect(tab.row("Commands", "running")).to_have_count(3)
        await tab.press("j", "j")
        chosen = tab.grid("Commands").locator('tr[aria-selected="true"]')
        await expect(chosen).to_be_focused()
        await expect(chosen).to_have_attribute("aria-rowindex", "3")
        await tab.press("ArrowUp")
        await expect(chosen).to_have_attribute("aria-rowindex", "2")
        await tab.press("g")
        await expect(tab.grid("Clusters").locator('tr[aria-selected="true"]')).to_be_focused()
        await tab.press("Enter")
        await expect(tab.page.get_by_label("Filter clusters and commands")).to_have_value("east")
        await tab.press("Escape", "d")
        await expect(tab.grid("Replicas").locator('tr[aria-selected="true"]')).to_be_focused()
        await tab.press("p")
        await tab.says("paused")
        await tab.press("p")
        await tab.says("live")
        await tab.press("?")
        await expect(tab.page.get_by_role("dialog", name="Keys")).to_be_visible()
        await tab.press("Escape")
        await stage.stop_all("east")
        await asyncio.gather(*asked, return_exceptions=True)


async def test_clusters_are_sorted_out_by_their_state(stage: Stage, east: Any) -> None:
    async with east(), stage.tab() as tab:
        await tab.sign_in()
        await tab.shows("Clusters", "east", "connected")
        await tab.page.get_by_role("button", name="Away 1").click()
        await expect(tab.row("Clusters")).to_have_count(1)
        await tab.shows("Clusters", "west", "never came")
        await tab.page.get_by_role("button", name="Connected 1").click()
        await tab.shows("Clusters", "east")
        await expect(tab.row("Clusters")).to_have_count(1)


# Looks


async def test_light_and_dark(stage: Stage, tmp_path: Path) -> None:
    """As the system has it, and as somebody chooses, which is remembered."""
    back = "getComputedStyle(document.body).backgroundColor"
    async with stage.tab(color_scheme="dark") as tab:
        await tab.sign_in()
        await tab.says("live")
        dark = await tab.page.evaluate(back)
        await tab.page.screenshot(path=tmp_path / "dark.png", full_page=True)
        await tab.press("t")
        light = await tab.page.evaluate(back)
        await tab.page.screenshot(path=tmp_path / "light.png", full_page=True)
        assert light != dark
        await tab.page.reload()
        assert await tab.page.evaluate(back) == light
    async with stage.tab(color_scheme="light") as tab:
        await tab.open()
        assert await tab.page.evaluate(back) == light


@pytest.mark.parametrize("width", [360, 768, 1024, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_is_wider_than_the_window_and_all_text_can_be_read(
    stage: Stage, east: Any, width: int, scheme: str, tmp_path: Path
) -> None:
    """No page that moves sideways; each text has at least the contrast that WCAG's AA asks for."""
    async with east() as cluster, stage.tab(viewport={"width": width, "height": 800}, color_scheme=scheme) as tab:
        asked = cluster.execute("long", "sleep-300")
        await tab.sign_in()
        await tab.shows("Commands", "running")
        await tab.page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
        assert await tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert await tab.page.evaluate(CONTRASTS) == []
        await stage.stop_all("east")
        await asyncio.gather(asked, return_exceptions=True)


# Text, and what is behind it, where the contrast of the two is below 4.5. What cannot be clicked now is exempt.
CONTRASTS = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [x, y, z] = [r, g, b].map((v) => linear(v / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = rgb(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
    if (!own || !node.checkVisibility() || node.closest(':disabled, noscript, .sr')) continue;
    const style = getComputedStyle(node);
    const ink = rgb(node instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [luminance(ink), luminance(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${node.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


NAMELESS = """() => [...document.querySelectorAll('#live :is(button, input, table, [role=img]), dialog')]
  .filter((node) => node.checkVisibility() || node.tagName === 'DIALOG')
  .filter((node) => !(node.tagName === 'BUTTON' && node.textContent.trim()) && !node.labels?.length)
  .filter((node) => !node.getAttribute('aria-label') && !node.getAttribute('aria-labelledby'))
  .map((node) => node.outerHTML.slice(0, 80))"""


async def test_everything_has_a_name_for_those_who_listen(stage: Stage, east: Any) -> None:
    """Fields, buttons, tables, pictures and dialogs; and one heading above all others."""
    async with east() as cluster, stage.tab() as tab:
        asked = cluster.execute("long", "sleep-300")
        await tab.sign_in()
        await tab.shows("Commands", "running")
        assert await tab.page.evaluate(NAMELESS) == []
        assert await tab.page.evaluate("document.documentElement.lang") == "en"
        headings = await tab.page.evaluate("[...document.querySelectorAll('#live h1')].length")
        assert headings == 1
        for name in ("Replicas", "Commands", "Clusters", "Errors by reason"):
            await expect(tab.grid(name)).to_be_visible()
        await expect(tab.page.get_by_role("img", name=re.compile("^Commands a second: exited"))).to_be_visible()
        await expect(tab.page.get_by_role("status").first).to_contain_text("live")
        await stage.stop_all("east")
        await asyncio.gather(asked, return_exceptions=True)


async def test_who_wants_no_motion_is_shown_none(stage: Stage) -> None:
    async with stage.tab(reduced_motion="reduce") as tab:
        await tab.open()
        assert await tab.page.evaluate("getComputedStyle(document.querySelector('button')).transitionDuration") == "0s"
    async with stage.tab(reduced_motion="no-preference") as tab:
        await tab.open()
        assert await tab.page.evaluate("getComputedStyle(document.querySelector('button')).transitionDuration") != "0s"


# Much of it


def large(clusters: int, commands: int) -> dict[str, Any]:
    """An overview as a gateway of a large installation sends it."""
    executor = {"replica_id": "a", "connected_at": None, "is_moving": False, "running": 1, "max_concurrency": 8}
    versions = {"versions": {"executor": "0.2.0", "kubectl": "v1.36", "kubernetes": "v1.35"}}
    state = {"is_connected": True, "is_active": False, "active_for_seconds": 0, "last_seen": None}
    command = {"owner": "o", "session_id": None, "correlation_id": None, "created_at": None, "running_s": 1.0}
    place = {"executor_id": "e", "replica_id": "a", "state": "running", "is_live": False, "is_cancelling": False}
    return {
        "at": "2026-11-29T12:00:00Z",
        "replica_id": "a",
        "is_whole": False,
        "replicas": [],
        "clusters": [
            {
                "cluster_id": f"c-{number:04}",
                **state,
                "executors": [{"executor_id": f"e-{number}", **executor, **versions}],
                "more_executors": 7,
            }
            for number in range(clusters)
        ],
        "more_clusters": 500,
        "connected_clusters": clusters,
        "active_clusters": 0,
        "commands": [
            {
                "command_id": f"id-{n}",
                "cluster_id": "c-0001",
                "argv": ["get", f"p-{n}"],
                "elapsed_s": n,
                **command,
                **place,
            }
            for n in range(commands)
        ],
        "more_commands": 4321,
        "ended": [],
    }


def ended(command_id: str) -> dict[str, Any]:
    """A command that ended a minute ago."""
    whose = {"cluster_id": "c-0001", "owner": "o", "session_id": None, "correlation_id": None}
    how = {"outcome": "exited", "exit_code": 0, "reason": None, "total_s": 1.0, "ended_s_ago": 60.0}
    return {"command_id": command_id, "argv": ["get", "pods"], "executor_id": "e", "replica_id": "a", **whose, **how}


async def test_a_large_installation_costs_what_is_in_sight(stage: Stage) -> None:
    """Two thousand clusters and two hundred commands: a few dozen rows are there, and each can be come to."""
    async with stage.tab() as tab:
        text = f"event: overview\ndata: {json.dumps(large(2000, 200))}\n\n"
        head = {"Content-Type": "text/event-stream"}
        await tab.page.route("**/admin/overview/events*", lambda route: route.fulfill(headers=head, body=text))
        await tab.sign_in()
        await tab.shows("Clusters", "c-0000")
        await tab.shows("Clusters", "e-0 and 7 more")
        await tab.shows("Clusters", "≥ 1 / 8")
        await expect(tab.page.locator("#clusters-count")).to_have_text("2,000 of 2,500 connected")
        await expect(tab.page.locator("#clusters .more")).to_have_text("… and 500 more")
        await expect(tab.page.locator("#commands .more")).to_contain_text("… and 4,321 more")
        assert await tab.page.evaluate("document.querySelectorAll('tr.row').length") < 120
        assert await tab.grid("Clusters").get_attribute("aria-rowcount") == "2001"
        await tab.page.locator("#clusters").evaluate("(node) => node.scrollTo(0, node.scrollHeight)")
        await tab.shows("Clusters", "c-1999")
        assert await tab.page.evaluate("document.querySelectorAll('tr.row').length") < 120
        await tab.press("g", "g")
        for _ in range(40):
            await tab.press("j")
        chosen = tab.grid("Clusters").locator('tr[aria-selected="true"]')
        await expect(chosen).to_contain_text("c-0040")
        await expect(chosen).to_be_focused()
        await expect(chosen).to_be_in_viewport()
        await tab.press("/")
        await tab.page.keyboard.type("e-1234")
        await expect(tab.row("Clusters")).to_have_count(1)
        await tab.shows("Clusters", "c-1234")


async def test_what_ended_long_ago_is_not_kept_while_the_page_is_paused(stage: Stage) -> None:
    """A page that was left paused over a weekend: what would not be shown any more is not in it."""
    looks = [large(1, 1) | {"ended": [ended(f"id-{look}-{n}") for n in range(100)]} for look in range(50)]
    is_paused, all_came = False, asyncio.Event()
    told: list[int] = []

    async def answer(route: Route) -> None:
        # It asks again when it has taken what came.
        if told and told[-1] == len(looks):
            all_came.set()
        now = looks if is_paused else looks[:1]
        text = "".join(f"event: overview\ndata: {json.dumps(look)}\n\n" for look in now)
        await route.fulfill(headers={"Content-Type": "text/event-stream"}, body=text)
        told.append(len(now))

    async with stage.tab() as tab:
        await tab.page.route("**/admin/overview/events*", answer)
        await tab.sign_in()
        await tab.shows("Clusters", "c-0000")
        await tab.press("p")
        await expect(tab.page.locator("#pause")).to_have_text("Go on")
        is_paused = True
        async with asyncio.timeout(PATIENCE_MS / 1000):
            await all_came.wait()
        assert await largest_map(tab.page) < 1_000


async def largest_map(page: Page) -> int:
    """Of all that the page's scripts have."""
    browser = await page.context.new_cdp_session(page)
    prototype = await browser.send("Runtime.evaluate", {"expression": "Map.prototype"})
    maps = await browser.send("Runtime.queryObjects", {"prototypeObjectId": prototype["result"]["objectId"]})
    size = "function () { return Math.max(...this.map((each) => each.size)); }"
    question = {"functionDeclaration": size, "objectId": maps["objects"]["objectId"], "returnByValue": True}
    return int((await browser.send("Runtime.callFunctionOn", question))["result"]["value"])


async def test_the_page_and_the_terminal_have_the_same_rates(stage: Stage) -> None:
    """Two looks at two replicas, one of which was restarted: the same differences, and the same percentiles."""
    bounds = [0.001, 0.01, 0.1, 1.0]
    looks: list[list[tuple[str, int, dict[str, int], list[int]]]] = [
        [
            ("a", 1, {"exited": 10, "refused CLUSTER_BUSY": 1}, [5, 5, 0, 0, 0]),
            ("b", 1, {"exited": 900}, [900, 0, 0, 0, 0]),
        ],
        [
            ("a", 1, {"exited": 30, "refused CLUSTER_BUSY": 6}, [15, 15, 3, 0, 2]),
            ("b", 2, {"exited": 4}, [0, 4, 0, 0, 0]),
        ],
        [
            ("a", 1, {"exited": 31, "lost EXECUTOR_LOST": 2}, [15, 16, 3, 1, 2]),
            ("b", 2, {"exited": 9}, [0, 4, 5, 0, 0]),
        ],
    ]
    history = History()
    for look in looks:
        overview = pb.Overview()
        for name, started, ends, counts in look:
            record = Replica(replica_id=name, started_at=Timestamp(seconds=started))
            counted = [
                pb.EndCount(outcome=end.split()[0], reason=" ".join(end.split()[1:]), count=n)
                for end, n in ends.items()
            ]
            figures = pb.Figures(ends=counted, total=pb.Durations(bounds_s=bounds, counts=counts))
            overview.replicas.append(pb.ReplicaOverview(replica=record, figures=figures))
        history.take(overview, seconds=2.0)
    known = history.over(60)
    shown = [[_as_shown(bounds, *replica) for replica in look] for look in looks]
    script = """async ([looks]) => {
      const rates = await import(new URL('ui/rates.js', location.href));
      const differences = new rates.Differences();
      const steps = looks.map((replicas) => differences.take({replicas}, 2)).filter((step) => step !== null);
      const all = rates.together(steps);
      const percentiles = [0.1, 0.5, 0.9, 0.95, 0.99, 1].map((share) => rates.percentile(all.total, share));
      return {s: all.s, ends: Object.fromEntries(all.ends), errors: rates.errorShare(all), percentiles};
    }"""
    async with stage.tab() as tab:
        await tab.open()
        found = await tab.page.evaluate(script, [shown])
    assert found["s"] == known.seconds
    assert found["ends"] == {" ".join(end) if end[1] else f"{end[0]} ": n for end, n in known.ends.items() if n}
    assert found["errors"] == pytest.approx(known.error_share)
    assert found["percentiles"] == pytest.approx(
        [known.total.percentile(share) for share in (0.1, 0.5, 0.9, 0.95, 0.99, 1)]
    )


async def test_the_page_forgets_a_replica_that_is_gone_for_good(stage: Stage) -> None:
    """As the terminal does: after five minutes, it is one that was just seen."""
    counts = [5, None, 8, None, None, 20]
    looks = [[] if n is None else [_as_shown([], "gone", 1, {"exited": n}, [n])] for n in counts]
    script = """async ([looks]) => {
      const rates = await import(new URL('ui/rates.js', location.href));
      const differences = new rates.Differences();
      return looks.map((replicas) => rates.all(differences.take({replicas}, 200) ?? rates.nothing()));
    }"""
    async with stage.tab() as tab:
        await tab.open()
        assert await tab.page.evaluate(script, [looks]) == [0, 0, 3, 0, 0, 0]


def _as_shown(bounds: list[float], name: str, started: int, ends: dict[str, int], counts: list[int]) -> dict[str, Any]:
    durations = {"bounds_s": bounds, "counts": counts, "sum_s": 0}
    listed = [
        {"outcome": end.split()[0], "reason": " ".join(end.split()[1:]) or None, "is_agent_call": False, "count": n}
        for end, n in ends.items()
    ]
    return {"replica_id": name, "started_at": started, "figures": {"ends": listed, "total": durations, "stages": {}}}


# When things break


async def test_a_gateway_that_goes_and_comes_back(stage: Stage) -> None:
    """What is shown is said to be old; then it goes on by itself, without a reload."""
    async with stage.tab() as tab:
        await tab.sign_in()
        await tab.says("live")
        stage.fleet.gateway.kill()
        await tab.says(re.compile("stale for .*does not answer"))
        await expect(tab.page.locator("#content")).to_have_class("stale")
        await stage.fleet.gateway.start()
        await tab.says("live")
        await expect(tab.page.locator("#content")).not_to_have_class("stale")


async def test_brokers_that_go_and_come_back(stage: Stage) -> None:
    """One of them is not missed, but shown as one that does not answer; without any, what is shown is old."""
    async with stage.tab() as tab:
        await tab.sign_in()
        await tab.shows("Replicas", "broker-0", "answers")
        await tab.shows("Replicas", "broker-1", "answers")
        first, second = stage.fleet.brokers
        first.signal(signal.SIGSTOP)
        await tab.shows("Replicas", "broker-0", "does not answer")
        await tab.says("live, by broker-1")
        await expect(tab.page.locator("#notice")).to_contain_text("broker-0 does not answer")
        first.signal(signal.SIGCONT)
        await tab.shows("Replicas", "broker-0", "answers")
        for broker in (first, second):
            broker.kill()
        await tab.says(re.compile("stale for .*no broker replica answers"))
        stage.fleet.mend()
        await tab.says("live")


async def test_a_replica_is_drained_by_the_dialog(stage: Stage, east: Any, tmp_path: Path) -> None:
    """Its executors are elsewhere a moment later, and what runs goes on; no Enter too many does it, and one in a field
    does what was filled in. The last test of these: nothing undoes it."""
    first, second = stage.fleet.addresses
    async with east(first, second) as cluster, stage.tab() as tab, AsyncExitStack() as held:
        await tab.sign_in()
        await tab.shows("Clusters", "east", "broker-0")
        held.enter_context(cluster.held("long"))
        asked = cluster.execute("long")
        await tab.shows("Commands", "running", "long")
        await tab.press("d")
        await expect(tab.row("Replicas", "broker-0")).to_be_focused()
        await tab.press("d")
        dialog = tab.page.get_by_role("dialog", name="Drain broker-0?")
        await expect(dialog).to_contain_text("Its executor is told to move")
        await tab.press("Enter")
        await expect(dialog).to_be_hidden()
        await tab.press("d")
        await expect(dialog.get_by_role("button", name="Leave it")).to_be_focused()
        await expect(tab.row("Replicas", "broker-0")).not_to_contain_text("drained")
        await dialog.get_by_label("Over how many seconds").fill("0")
        await dialog.get_by_label("Reason").fill("an upgrade")
        await tab.page.screenshot(path=tmp_path / "drain.png")
        await tab.press("Enter")
        await expect(tab.page.locator("#told")).to_contain_text("1 executor is told to move")
        await tab.shows("Replicas", "broker-0", "drained")
        await tab.shows("Clusters", "east", "connected", "broker-1")
        await held.aclose()
        assert (await asked).result.exit_code == 0
        await expect(tab.page.get_by_role("button", name="Drain broker-1")).to_be_disabled()
