"""What an operator sees of two replicas, their executors and a gateway that have run commands of every fate: metrics,
and the dashboard and alerts made of them, which a Prometheus answers that has read them all along; logs, in which each
line about a command says whose conversation it is of.

All is asked before the tests, at debug, which is begun while the programs run; each test then looks at what came of it.
"""

import asyncio
import contextlib
import itertools
import json
import math
import re
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from promql_parser import AggregateExpr, MatrixSelector, VectorSelector

from broker.core.tally import OTHER_RULE, REFUSED, STAGES
from gateway.app import build_app
from gateway.traffic import METHODS, NO_ROUTE, OTHER_METHOD, Why
from openline import __version__, ids
from openline.metrics import BROKER, GATEWAY, Metric
from openline.pipes import Pipes
from openline.policy import Rule
from openline.reasons import OUTCOME_TEXT, Reason
from openline.v1 import (
    admin_service_pb2,
    cluster_service_pb2,
    command_service_pb2,
    executor_service_pb2,
    session_service_pb2,
)
from tests.prometheus import Prometheus

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy/grafana/openline.json").read_text())
RULES = ROOT / "deploy/prometheus/alerts.yaml"
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
PATIENCE_S = 60.0
OPERATOR = "the-key-of-ops"
# What Prometheus adds to every series that it scrapes.
OF_THE_TARGET = {"instance", "job"}

Line = dict[str, Any]


@dataclass
class Story:
    """What was asked, and what the programs had to say and to show."""

    # Command ids by what was to become of them, which is also their conversation; without one, "nobody".
    fates: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    # Lines by kind of program: broker, executor, gateway.
    lines: dict[str, list[Line]] = field(default_factory=dict)
    # Pages by kind of program, one for each process: as they are in the end, and before anything was asked.
    pages: dict[str, list[str]] = field(default_factory=dict)
    first_pages: dict[str, list[str]] = field(default_factory=dict)
    brokers: list[str] = field(default_factory=list)
    # What Prometheus answered in the end, by where the query is, and what it says of the rules, by alert.
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    rules: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def conversations(self) -> dict[str, str]:
        """By command id."""
        return {command_id: fate for fate, command_ids in self.fates.items() for command_id in command_ids}

    def about(self, program: str, fate: str, **fields: Any) -> list[Line]:
        """The lines of a program about commands with this fate, with these fields among others."""
        wanted = set(self.fates[fate])
        lines = [line for line in self.lines[program] if line.get("command_id") in wanted]
        return [line for line in lines if fields.items() <= line.items()]


@pytest.fixture(scope="module")
def story(
    long_allowance: None, make_fleet: Any, open_cluster: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Story:
    return asyncio.run(play(make_fleet, open_cluster, tmp_path_factory.mktemp("prometheus")))


async def play(make_fleet: Any, open_cluster: Callable[..., Any], here: Path) -> Story:
    told = Story()
    flags = ["--api-keys", f"ops:{OPERATOR}:admin", "--metrics-listen", "127.0.0.1:0"]
    fleet = make_fleet(replicas=2, clusters=("c", "d", "away"), flags=flags)
    told.brokers = fleet.addresses
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(fleet.running())
        api = await stack.enter_async_context(fleet.rest())
        callers = await stack.enter_async_context(fleet.callers())
        told.first_pages = await scrape(fleet, api)
        targets = metrics_of(fleet)
        prometheus = Prometheus(here, [*targets, fleet.gateway.address], RULES)
        stack.callback(prometheus.close)
        await prometheus.start()
        await prometheus.has_read(0.0)
        cluster = await stack.enter_async_context(open_cluster("c", *fleet.addresses))
        other = await stack.enter_async_context(open_cluster("d", fleet.addresses[0]))
        for each in (cluster, other):
            await each.start("--log-format", "json")
            await fleet.know(each)
            each.signal(signal.SIGUSR1)
            await each.until(lambda log=each.log: "log.level_changed" in log.read_text())
        answer = await api.put("/admin/log-level", json={"level": "debug"}, headers={"X-API-Key": OPERATOR})
        assert answer.json()["replica_ids"] == ["broker-0", "broker-1"]
        await ask(told, api, callers, cluster)
        told.pages = await scrape(fleet, api)
        await prometheus.has_read(time.time())
        for query in (*SHOWN, LOSSES):
            text = query.asked(replicas="|".join(targets), gateways=fleet.gateway.address, over="10m")
            told.answers[query.where] = await prometheus.ask(text)
        told.rules = {rule["name"]: rule for rule in await prometheus.rules()}
    logs = {"broker": [each.log for each in fleet.brokers], "gateway": [fleet.gateway.log]}
    logs["executor"] = [cluster.log, other.log]
    told.lines = {program: [line for log in files for line in lines_of(log)] for program, files in logs.items()}
    # Who is refused is not told the id that the gateway has made.
    told.fates["offline"] = [
        line["command_id"] for line in told.lines["gateway"] if line.get("correlation_id") == "offline"
    ]
    return told


def lines_of(log: Path) -> Iterator[Line]:
    """What an executor was killed over is half a line."""
    for line in log.read_text().rpartition("\n")[0].splitlines():
        if line.startswith("{"):
            yield json.loads(line)


async def ask(told: Story, api: httpx.AsyncClient, callers: list[Any], cluster: Any) -> None:
    """Commands of every fate, all but one of them in a conversation."""

    async def run(
        fate: str, *argv: str, where: str = "c", header: bool = True, **body: Any
    ) -> tuple[str, httpx.Response]:
        """Over REST; by respond-async, so that the command's id is known when it has not ended."""
        headers = {"Prefer": "respond-async, wait=20"} | ({"X-Correlation-ID": fate} if header else {})
        answer = await api.post(f"/v1/clusters/{where}/commands", json={"argv": argv, **body}, headers=headers)
        command_id = answer.json().get("command_id") or ""
        if command_id:
            told.fates[fate if header else "nobody"].append(command_id)
        return command_id, answer

    def begin(fate: str, name: str, what: str) -> Any:
        """Over gRPC, of any replica: where the executor is now that one may hear a moment later."""
        command_id = ids.new_id()
        request = cluster.request(name, what, correlation_id=fate, command_id=command_id, wait_for_cluster_s=20)
        told.fates[fate].append(request.command_id)
        return request

    _, answer = await run("ran", "get", "pods", "ran")
    assert answer.json()["outcome"] == "exited"
    _, answer = await run("ran", "get", "pods", "ran", header=False)
    assert answer.json()["outcome"] == "exited"
    _, answer = await run("denied", "delete", "pods", "denied")
    assert answer.json()["reason"] == Reason.POLICY_DENIED
    _, answer = await run("offline", "get", "pods", "offline", where="away")
    assert answer.json()["reason"] == Reason.CLUSTER_OFFLINE
    _, answer = await run("late", "get", "pods", "late", "-n", "sleep-20", timeout_seconds=2)
    assert answer.json()["reason"] == Reason.COMMAND_TIMEOUT
    _, answer = await run("cut", "get", "pods", "cut", "-n", "flood-3000000")
    assert answer.json()["truncated"]
    # One of the replicas has not the executor.
    for caller in callers:
        await caller.execute(begin("forwarded", "forwarded", ""))
    # Cancelled, watched and looked at, by requests that name no conversation.
    request = begin("cancelled", "cancelled", "sleep-60")
    running = callers[0].execute(request)
    await cluster.until_it_runs("cancelled")
    watching = asyncio.create_task(api.get(f"/v1/commands/{request.command_id}/events"))
    await asyncio.sleep(0.2)
    assert (await api.delete(f"/v1/commands/{request.command_id}")).status_code == 202
    assert (await watching).status_code == 200
    assert (await api.get(f"/v1/commands/{request.command_id}?wait=20")).json()["outcome"] == "cancelled"
    await asyncio.gather(running, return_exceptions=True)
    # Its line breaks, and it comes back.
    running = callers[1].execute(begin("torn", "torn", "sleep-2"))
    await cluster.until_it_runs("torn")
    for line in cluster.lines:
        line.break_all()
    assert (await running).result.exit_code == 0
    # Its executor dies, and the next one says so.
    running = callers[0].execute(begin("lost", "lost", "sleep-60"))
    await cluster.until_it_runs("lost")
    cluster.stop()
    await cluster.start("--log-format", "json")
    await asyncio.gather(running, return_exceptions=True)
    assert running.exception() is not None
    for key in ("", "a-key-that-there-is-not"):
        assert (await api.get("/v1/clusters", headers={"X-API-Key": key})).status_code == 401


async def scrape(fleet: Any, api: httpx.AsyncClient) -> dict[str, list[str]]:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        pages = [(await client.get(f"http://{address}/metrics")).text for address in metrics_of(fleet)]
    return {"broker": pages, "gateway": [(await api.get("/metrics")).text]}


def metrics_of(fleet: Any) -> list[str]:
    """Where the replicas show their metrics."""
    return [line["address"] for broker in fleet.brokers for line in broker.lines("metrics.listening")]


# Logs


def test_every_line_about_a_command_says_whose_conversation_it_is_of(story: Story) -> None:
    """On every program and at every level, whatever became of the command, and whoever asked for it without saying."""
    conversations = story.conversations
    wrong = [
        (program, line)
        for program, lines in story.lines.items()
        for line in lines
        if (fate := conversations.get(line.get("command_id", ""), "nobody")) != "nobody"
        and line.get("correlation_id") != fate
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("fate", "programs"),
    [
        ("ran", {"broker", "executor", "gateway"}),
        ("nobody", {"broker", "executor", "gateway"}),
        ("denied", {"broker", "executor", "gateway"}),
        ("offline", {"broker", "gateway"}),
        ("late", {"broker", "executor", "gateway"}),
        ("cut", {"broker", "executor", "gateway"}),
        ("forwarded", {"broker", "executor"}),
        ("cancelled", {"broker", "executor", "gateway"}),
        ("torn", {"broker", "executor"}),
        ("lost", {"broker"}),
    ],
)
def test_each_command_is_one_line_at_info(story: Story, fate: str, programs: set[str]) -> None:
    """Of each program that had to do with it; a look, a watch and a cancel are requests of their own at the gateway."""
    events = {
        "broker": partial(story.about, "broker", fate, event="audit", action="execute"),
        "gateway": partial(story.about, "gateway", fate, event="request.answered", method="POST"),
        "executor": lambda: [
            line
            for line in story.about("executor", fate, level="info")
            if line["event"] in ("command.finished", "command.rejected")
        ],
    }
    asked_by_rest = 0 if fate in ("forwarded", "cancelled", "torn", "lost") else len(story.fates[fate])
    expected = {"gateway": asked_by_rest, "broker": len(story.fates[fate]), "executor": len(story.fates[fate])}
    assert story.fates[fate]
    for program, found in events.items():
        lines = found()
        assert len(lines) == (expected[program] if program in programs else 0), (program, lines)
        assert all({"agent_call", "ms"} & line.keys() or program == "executor" for line in lines)


def test_a_cancel_is_a_line_of_its_own(story: Story) -> None:
    [cancel] = story.about("broker", "cancelled", event="audit", action="cancel")
    assert cancel["correlation_id"] == "cancelled"
    verbs = [line["method"] for line in story.about("gateway", "cancelled", event="request.answered")]
    assert sorted(verbs) == ["DELETE", "GET", "GET"]


def test_at_debug_each_step_is_told(story: Story) -> None:
    """Which was begun while the programs ran: by REST at brokers and the gateway, by a signal at the executor."""
    steps = [line["event"] for line in story.about("broker", "ran", level="debug")]
    assert steps == ["command.placed", "command.accepted", "command.started", "command.finished"] or (
        # The gateway asked the replica that has not the executor.
        set(steps) == {"command.placed", "command.accepted", "command.started", "command.finished"}
    )
    steps = [line["event"] for line in story.about("executor", "ran", level="debug")]
    assert steps == ["command.received", "command.started"]
    assert [line["event"] for line in story.about("executor", "late", level="debug")][-1] == "command.killed"
    for program, by in (("broker", "ops"), ("executor", "signal")):
        changes = [line for line in story.lines[program] if line["event"] == "log.level_changed"]
        assert {(line["was"], line["to"], line["for_s"]) for line in changes} == {("info", "debug", 600.0)}
        assert by in {line["by"] for line in changes}
    entries = [line for line in story.lines["broker"] if line.get("action") == "set_log_level"]
    assert [(line["owner"], line["detail"]) for line in entries] == [("ops", "debug on every replica")]


# Metrics

ROUTES = set(build_app(Pipes(("127.0.0.1:1",), client="test"))._app._usual.openapi()["paths"])  # type: ignore[attr-defined]
CALLS = {
    f"{service.name}.{method.name}"
    for pb2 in (
        admin_service_pb2,
        cluster_service_pb2,
        command_service_pb2,
        executor_service_pb2,
        session_service_pb2,
    )
    for service in pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods
} | {f"Health.{name}" for name in ("Check", "List", "Watch")}
REASONS = set(map(str, Reason))
YES_NO = {"yes", "no"}
# Every label, and all that it can be. What a set of an installation's own is, such as its brokers, has a few values.
POSSIBLE: Mapping[tuple[str, str], set[str]] = {
    ("openline_broker_build_info", "version"): {__version__},
    ("openline_broker_build_info", "replica_id"): {"broker-0", "broker-1"},
    ("openline_broker_commands_total", "outcome"): {REFUSED, "unknown", *OUTCOME_TEXT.values()},
    ("openline_broker_commands_total", "reason"): {"", *REASONS},
    ("openline_broker_commands_total", "agent_call"): YES_NO,
    ("openline_broker_policy_denials_total", "rule"): {OTHER_RULE, *map(str, Rule)},
    ("openline_broker_command_duration_seconds", "agent_call"): YES_NO,
    ("openline_broker_command_stage_seconds", "stage"): set(STAGES),
    ("openline_broker_commands_in_flight", "state"): {"queued", "written", "accepted", "running", "forwarded"},
    ("openline_broker_commands_waiting", "waits_for"): {"place", "cluster", "redis"},
    ("openline_broker_quota_refusals_total", "quota"): {
        "commands",
        "in-flight",
        "conversation-commands",
        "conversation-in-flight",
    },
    ("openline_broker_refused_credentials_total", "kind"): {"api_key", "executor_token"},
    ("openline_broker_clusters", "state"): {"connected", "offline"},
    ("openline_broker_executor_connects_total", "kind"): {"first", "reconnect"},
    ("openline_broker_received_bytes_total", "method"): CALLS,
    ("openline_broker_sent_bytes_total", "method"): CALLS,
    ("openline_broker_redis_writes_lost_total", "why"): {"full", "refused"},
    ("openline_broker_records_lost_total", "record"): {"result", "history", "audit"},
    ("openline_gateway_build_info", "version"): {__version__},
    ("openline_gateway_requests_total", "route"): {NO_ROUTE, *ROUTES, "/docs", "/openapi.json"},
    ("openline_gateway_requests_total", "method"): {OTHER_METHOD, *METHODS},
    ("openline_gateway_requests_total", "status"): {"1xx", "2xx", "3xx", "4xx", "5xx"},
    ("openline_gateway_requests_total", "agent_call"): YES_NO,
    ("openline_gateway_request_duration_seconds", "route"): {NO_ROUTE, *ROUTES, "/docs", "/openapi.json"},
    ("openline_gateway_request_duration_seconds", "agent_call"): YES_NO,
    ("openline_gateway_refused_total", "why"): set(Why.__args__),
}
# Series that one metric can have: of requests it is less, since a route has one or two methods.
MOST = 5_000


def samples(pages: Mapping[str, list[str]], *programs: str) -> Iterator[Any]:
    """Of these programs, or of all."""
    for program in programs or pages:
        for page in pages[program]:
            for family in text_string_to_metric_families(page):
                yield from family.samples


def possible(story: Story, metric: Metric, label: str) -> set[str]:
    return set(story.brokers) if label == "broker" else POSSIBLE[metric.name, label]


@pytest.mark.parametrize("metric", [*BROKER, *GATEWAY], ids=lambda metric: metric.name)
def test_labels_are_bounded(story: Story, metric: Metric) -> None:
    """Each has a set of values that we have made up, and after commands of every fate no other."""
    program = "broker" if metric in BROKER else "gateway"
    series = 1
    for label in metric.labels:
        series *= len(possible(story, metric, label))
        found = {each.labels[label] for each in samples(story.pages, program) if of(metric, each.name)}
        assert found <= possible(story, metric, label)
        assert found
    assert series <= MOST


def of(metric: Metric, sample: str) -> bool:
    suffixes = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
    return sample in {metric.name + suffix for suffix in suffixes}


# The dashboard and the alerts


@dataclass(frozen=True)
class Query:
    """One expression of a file, and where it is."""

    where: str
    text: str
    legend: str = ""

    def asked(self, *, replicas: str, gateways: str, over: str) -> str:
        """As Prometheus is asked, with Grafana's variables filled in."""
        text = self.text.replace("$__rate_interval", over)
        return text.replace("$replica", replicas).replace("$gateway", gateways)

    @property
    def tree(self) -> Any:
        return promql_parser.parse(self.asked(replicas="a|b", gateways="a", over="1m"))

    @property
    def parts(self) -> list[Any]:
        """Every node of the expression."""
        found, left = [], [self.tree]
        while left:
            part = left.pop()
            found.append(part)
            below = (getattr(part, name, None) for name in ("lhs", "rhs", "expr", "vector_selector", "param"))
            left += [each for each in below if each is not None] + list(getattr(part, "args", ()))
        return found

    @property
    def selectors(self) -> list[VectorSelector]:
        return [part for part in self.parts if isinstance(part, VectorSelector)]

    @property
    def counted(self) -> list[VectorSelector]:
        """What it wants to know the growth of."""
        return [part.vector_selector for part in self.parts if isinstance(part, MatrixSelector)]

    @property
    def grouped_by(self) -> set[str]:
        modifiers = [part.modifier for part in self.parts if isinstance(part, AggregateExpr) and part.modifier]
        return {label for modifier in modifiers for label in modifier.labels}


PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SHOWN = [
    Query(f"{panel['title']} {target['refId']}", target["expr"], target.get("legendFormat", ""))
    for panel in PANELS
    for target in panel["targets"]
]
ALARMS = [Query(rule["alert"], rule["expr"]) for rule in ALERTS]
QUERIES = [*SHOWN, *ALARMS]
LOSSES = Query("losses", 'sum(increase(openline_broker_commands_total{outcome="lost"}[10m]))')


def labels_of(story: Story, name: str) -> set[str]:
    """Of what is scraped under this name."""
    found = (each for each in samples(story.pages) if each.name == name)
    return {label for each in found for label in each.labels}


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.where)
def test_what_is_asked_is_there(story: Story, query: Query) -> None:
    """Each metric, each label and each value of one that the two files name is in a scrape, or can be."""
    assert query.selectors
    known: set[str] = set()
    for selector in query.selectors:
        names = {each.name for each in samples(story.pages)}
        assert selector.name in names
        known |= labels_of(story, selector.name) | OF_THE_TARGET
        metric = next((each for each in (*BROKER, *GATEWAY) if of(each, selector.name)), None)
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels_of(story, selector.name) | OF_THE_TARGET
            if metric is not None and matcher.name not in OF_THE_TARGET:
                assert set(matcher.value.split("|")) <= possible(story, metric, matcher.name)
    assert query.grouped_by <= known
    shown = set(re.findall(r"{{(\w+)}}", query.legend))
    assert shown <= (query.grouped_by or known)


@pytest.mark.parametrize("query", [query for query in ALARMS if query.counted], ids=lambda query: query.where)
def test_what_an_alert_counts_is_there_before_it_happens(story: Story, query: Query) -> None:
    """A series that begins with eight has not grown, as Prometheus sees it: the eight would alarm nobody."""
    for selector in query.counted:
        metric = next(each for each in (*BROKER, *GATEWAY) if of(each, selector.name))
        first = list(series_of(selector, samples(story.first_pages)))
        assert metric.kind == "histogram" or {each.value for each in first} == {0.0}
        there = [each.labels.items() for each in first]
        # All that the rule names, for agent calls and others; and whatever else of it there has been since.
        named = {matcher.name: matcher.value.split("|") for matcher in selector.matchers.matchers}
        named |= {label: sorted(YES_NO) for label in metric.labels if label == "agent_call"}
        wanted = [dict(zip(named, values, strict=True)) for values in itertools.product(*named.values())]
        wanted += [each.labels for each in series_of(selector, samples(story.pages))]
        assert [labels for labels in wanted if not any(labels.items() <= each for each in there)] == []


def series_of(selector: VectorSelector, samples: Iterable[Any]) -> Iterator[Any]:
    """Those of the samples that it selects."""
    matchers = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
    for each in samples:
        if each.name == selector.name and all(re.fullmatch(v, each.labels[k]) for k, v in matchers.items()):
            yield each


@pytest.mark.parametrize("query", SHOWN, ids=lambda query: query.where)
def test_the_dashboard_shows_something(story: Story, query: Query) -> None:
    """Prometheus answers, with numbers; nobody has drained a replica."""
    answer = story.answers[query.where]
    assert answer["status"] == "success", answer
    numbers = [float(series["value"][1]) for series in answer["data"]["result"]]
    assert any(map(math.isfinite, numbers)) or query.legend.endswith("drains"), answer


def test_prometheus_can_try_every_alert(story: Story) -> None:
    assert {name: (rule["health"], rule.get("lastError")) for name, rule in story.rules.items()} == {
        query.where: ("ok", None) for query in ALARMS
    }


def test_prometheus_sees_the_first_loss_grow(story: Story) -> None:
    """Of a replica that had lost none: one, and what `increase` adds for the ends of its time."""
    [series] = story.answers[LOSSES.where]["data"]["result"]
    assert 1.0 <= float(series["value"][1]) < 2.0


def test_every_metric_is_looked_at() -> None:
    """By the dashboard: one that nobody looks at need not be."""
    asked = {selector.name for query in QUERIES for selector in query.selectors}
    assert [each.name for each in (*BROKER, *GATEWAY) if not any(of(each, name) for name in asked)] == []


def test_a_sum_of_commands_has_each_of_them_once() -> None:
    """One that was forwarded is counted at both replicas."""
    for query in QUERIES:
        for selector in query.selectors:
            if selector.name == "openline_broker_commands_in_flight" and "state" not in query.grouped_by:
                assert 'state!="forwarded"' in query.text, query.where


def test_the_dashboard_can_be_imported() -> None:
    """Anywhere: its Prometheus and the replicas are variables; nothing lies on anything else."""
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert set(variables) == {"datasource", "replica", "gateway"}
    # A value for all of them would fit every process that the same Prometheus reads.
    assert not any("allValue" in each for each in variables.values())
    sources = [target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]]
    assert set(sources) == {"${datasource}"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells = [cell for panel in DASHBOARD["panels"] for cell in _cells(panel["gridPos"])]
    assert len(set(cells)) == len(cells)
    assert all(x < 24 for x, _ in cells)


def _cells(at: Mapping[str, int]) -> Iterable[tuple[int, int]]:
    return ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"]))


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: Mapping[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert re.fullmatch(r"\d+[smh]", rule["for"])
    assert rule["annotations"]["summary"].endswith((".", "lost."))
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_every_runbook_is_an_alerts() -> None:
    """A section that no rule links to is one that nobody finds."""
    linked = {rule["annotations"]["runbook"].partition("#")[2] for rule in ALERTS}
    headings = re.findall(r"^## (.*)$", (ROOT / "docs/alerts.md").read_text(), re.MULTILINE)
    assert {heading.lower() for heading in headings} == linked
