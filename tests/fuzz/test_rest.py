"""The gateway against whatever its own OpenAPI document allows and forbids: every answer is one that it documents.

The three programs run as processes, on loopback, and kubectl is a script. Requests come from schemathesis, half of them
valid and half of them not; some of the ids in them are exchanged for ones that exist, since made-up ones seldom meet
anything. `make test` sends 600 requests, always the same; `make fuzz` as many as OPENLINE_FUZZ_REQUESTS says.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi import checks

from gateway.app import build_app

REQUESTS = int(os.environ.get("OPENLINE_FUZZ_REQUESTS", "600"))
PROGRAMS = Path(sys.executable).parent
PATIENCE_S = 60.0
pytestmark = [
    pytest.mark.timeout(3600),
    # Theirs, which are errors here by default.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:schemathesis.*"),
]

KUBECTL = """#!/bin/sh
case "$2" in
  fail) echo 'Error from server (NotFound): pods "fail" not found' >&2; exit 1 ;;
  json) echo '{"items": [{"name": "web-0"}, {"name": "web-1"}]}' ;;
  *) for word; do
       case "$word" in --request-timeout=* | --limit-bytes=* | --tail=*) ;; *) echo "$word" ;; esac
     done ;;
esac
"""
KEYS = "me:test-key:execute+session+read+admin+audit,looker:read-key:read"
WORDS = [["get", "pods"], ["get", "fail"], ["get", "json"], ["logs", "web-0", "--tail=5"], ["delete", "pod", "x"]]
CLUSTERS = ["local", "local", "local", "west", "nowhere"]
# What a request may say of time, where it is valid: a wait of minutes finds nothing that a short one does not.
LONGEST_WAIT_S = 0.02
# A defect is never an answer; whatever else a gateway or broker cannot do has a reason of its own.
DEFECTS = {500}
CHECKS = [checks.status_code_conformance, checks.content_type_conformance, checks.response_headers_conformance]
# Events are held to their own rules: schemathesis takes the schema of the whole text for that of each event.
CHECKS_OF_SHAPE = [*CHECKS, checks.response_schema_conformance]
EVENTS = {"status", "output", "result", "error", "summary", "overview"}
# Its events go on for ever; the header ends them.
ENDLESS = "watch_overview"


@dataclass
class Surface:
    """The gateway, and the ids that it has given out."""

    address: str
    session: requests.Session
    commands: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    sessions: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    statuses: Counter[int] = field(default_factory=Counter)

    def learn(self, answer: Any) -> None:
        try:
            told = answer.json()
        except ValueError:
            return
        if isinstance(told, dict) and answer.status_code < 300:
            for known, name in (
                (self.commands, "command_id"),
                (self.commands, "operation_id"),
                (self.sessions, "session_id"),
            ):
                # A look at one adds nothing: otherwise there would soon be a single one.
                if told.get(name) and told[name] not in known:
                    known.append(told[name])


@contextmanager
def program(log: Path, name: str, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENLINE_")}
    with log.open("wb") as lines:
        process = subprocess.Popen([PROGRAMS / name, *flags, "--log-format", "json"], stderr=lines, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=PATIENCE_S)


def told(log: Path, event: str) -> dict[str, Any]:
    """The fields of the first log line of this event."""
    ends_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_at:
        for line in log.read_text(errors="replace").splitlines():
            if f'"{event}"' in line and line.endswith("}"):
                return dict(json.loads(line))
        time.sleep(0.02)
    raise AssertionError(f"{log.name} did not say {event}: {log.read_text()}")


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surface]:
    home = tmp_path_factory.mktemp("rest")
    kubectl = home / "kubectl"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    with ExitStack() as stages:
        tokens = "local:the-token-of-local,west:the-token-of-west"
        flags = ("--listen", "127.0.0.1:0", "--api-keys", KEYS, "--executor-tokens", tokens)
        stages.enter_context(program(home / "broker", "openline-broker", *flags))
        broker = told(home / "broker", "broker.started")["listen"]
        flags = (
            "--broker",
            broker,
            "--cluster-id",
            "local",
            "--token",
            "the-token-of-local",
            "--kubectl",
            str(kubectl),
        )
        stages.enter_context(program(home / "executor", "openline-executor", *flags))
        told(home / "executor", "connection.opened")
        flags = ("--listen", "127.0.0.1:0", "--broker", broker)
        gateway = stages.enter_context(program(home / "gateway", "openline-gateway", *flags))
        told(home / "gateway", "pipe.opened")
        address = f"http://{told(home / 'gateway', 'gateway.listening')['address']}"
        session = stages.enter_context(requests.Session())
        session.trust_env = False
        session.headers["X-API-Key"] = "test-key"
        yield (surface := Surface(address, session))
        print(f"{surface.statuses.total()} requests: {sorted(surface.statuses.items())}")  # noqa: T201
        assert gateway.poll() is None, "the gateway has died"
        said = (home / "gateway").read_text(errors="replace")
        assert "Traceback" not in said, said[said.index("Traceback") - 2000 :][:6000]


def make_real(case: Any, dice: random.Random, surface: Surface) -> None:
    """Exchanges some of what was made up for what exists, and long waits for short ones."""
    path, body, query = case.path_parameters, case.body, case.query
    if "cluster_id" in (path or {}) and dice.random() < 0.8:
        # The only thing to delete of a cluster is its tokens, and one cluster must stay.
        path["cluster_id"] = dice.choice(CLUSTERS if case.method != "DELETE" else ["west", "nowhere"])
    for name, ids in (("command_id", surface.commands), ("session_id", surface.sessions)):
        if name in (path or {}) and ids and dice.random() < 0.7:
            path[name] = dice.choice(ids)
    if isinstance(query, dict) and isinstance(query.get("wait"), int | float | str):
        query["wait"] = dice.choice([query["wait"], 0, LONGEST_WAIT_S])
    if not isinstance(body, dict):
        return
    if "cluster_id" in body and dice.random() < 0.7:
        body["cluster_id"] = dice.choice(CLUSTERS)
    if "clusters" in body and dice.random() < 0.7:
        body["clusters"] = dice.sample(CLUSTERS, dice.randint(1, 4))
        body.pop("selector", None)
    if "session_id" in body and dice.random() < 0.8:
        body["session_id"] = dice.choice([*surface.sessions, None])
    if "args" in body and dice.random() < 0.5:
        body["args"] = dice.choice(WORDS)
        body.pop("command_type", None)
    if ("argv" in body or "command" in body) and dice.random() < 0.6:
        body["argv"] = dice.choice(WORDS)
        body.pop("command", None)
    wait = body.get("wait_for_cluster_s")
    if isinstance(wait, int | float) and wait > LONGEST_WAIT_S:
        body["wait_for_cluster_s"] = LONGEST_WAIT_S


def headers(dice: random.Random) -> dict[str, str]:
    """What no schema tells of: who asks, and the answer that is wanted."""
    made = {"X-API-Key": dice.choices(["test-key", "read-key", "nope", ""], [94, 2, 2, 2])[0]}
    if dice.random() < 0.15:
        made["Accept"] = "text/event-stream"
    if dice.random() < 0.15:
        made["Prefer"] = dice.choice(["respond-async", "respond-async, wait=0", "handling=strict"])
    return made


def check_events(text: str) -> None:
    """Each is named and is JSON, and the last one is an end, unless its reader did not want to wait for that."""
    assert text.endswith("\n\n")
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(": ping")]
    if blocks[-1].startswith(": the time asked for is up"):
        blocks.pop()
    else:
        assert blocks[-1].partition("\n")[0] in {"event: result", "event: error", "event: summary"}
    for block in blocks:
        event = dict(line.split(": ", 1) for line in block.split("\n"))
        assert event["event"] in EVENTS
        assert isinstance(json.loads(event["data"]), dict)


def document() -> dict[str, Any]:
    """What the gateway says of itself, for which it needs no broker."""

    async def ask() -> httpx.Response:
        nobody: Any = None
        app = httpx.ASGITransport(app=build_app(nobody))
        async with httpx.AsyncClient(transport=app, base_url="http://gateway") as client:
            return await client.get("/openapi.json")

    return dict(asyncio.run(ask()).json())


DOCUMENT = document()
OPERATIONS = [operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()]


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_every_answer_is_documented(surface: Surface, operation_id: str) -> None:
    """Status, headers, content type and shape, for what is valid and for what is not; and no defect."""
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    operation = schema.find_operation_by_id(operation_id)
    valid = operation.as_strategy(schemathesis.GenerationMode.POSITIVE)
    invalid = operation.as_strategy(schemathesis.GenerationMode.NEGATIVE)
    has_input = (
        bool(operation.body) or bool(operation.path_parameters) or bool(operation.query) or bool(operation.headers)
    )
    wanted = -(-REQUESTS // len(OPERATIONS))
    sent = 0

    @settings(
        max_examples=wanted,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        print_blob=False,
    )
    @given(case=valid | invalid if has_input else valid, seed=st.integers(0, 2**32))
    def ask(case: Any, seed: int) -> None:
        nonlocal sent
        dice = random.Random(seed)
        make_real(case, dice, surface)
        asked = headers(dice) | ({"X-Request-Timeout": "1"} if operation_id == ENDLESS else {})
        answer = case.call(base_url=surface.address, session=surface.session, headers=asked, timeout=30)
        sent += 1
        surface.statuses[answer.status_code] += 1
        surface.learn(answer)
        assert answer.status_code not in DEFECTS, f"{case.as_curl_command()}\n{answer.text}"
        if is_events := answer.headers["content-type"][0].startswith("text/event-stream"):
            check_events(answer.text)
        case.validate_response(answer, checks=CHECKS if is_events else CHECKS_OF_SHAPE)

    while sent < wanted:
        ask()
