"""The example agent against the demo: as a process in every transport, and each transport by itself."""

import asyncio
import shlex
import socket
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo import kubernetes
from examples.diagnose import via_mcp, via_rest, via_sdk
from examples.diagnose.refusals import DoWithout, react
from examples.diagnose.words import Run, Step

WAYS = ["mcp", "mcp-stdio", "rest", "sdk"]
MODULES: dict[str, Any] = {"mcp": via_mcp, "rest": via_rest, "sdk": via_sdk}
README = Path(__file__).parents[2] / "examples" / "README.md"
MANIFESTS = kubernetes.__path__[0] + "/manifests"

Ask = Callable[..., Any]
Connect = Callable[[], AbstractAsyncContextManager[Run]]


def objects(file: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What the demo's cluster is made of, by kind and name."""
    with open(f"{MANIFESTS}/{file}") as manifest:
        return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(manifest)}


@pytest.mark.parametrize("via", WAYS)
def test_it_finds_the_cause(diagnoses: dict[str, Any], via: str) -> None:
    """The wrong value, who says it, and the right one; with the line of the log that led there."""
    payments = objects("50-payments.yaml")
    settings = payments["ConfigMap", "payments-config"]["data"]
    [served] = payments["Service", "payments-db"]["spec"]["ports"]
    deployment = payments["Deployment", "payments-api"]["demo"]
    told = diagnoses[via]
    assert told.code == 0
    [cause] = told.of("CAUSE")
    assert cause.startswith("payments/payments-api-")
    assert f"ConfigMap payments/payments-config has DATABASE_PORT={settings['DATABASE_PORT']};" in cause
    assert cause.endswith(f"service payments/payments-db is on port {served['port']}")
    line, setting, change = told.of("EVIDENCE")
    last = [line.removeprefix("%(time)s ") for line in deployment["logs"]["api"]["opening"] if "refused" in line][-1]
    assert line.endswith(last)
    assert setting.endswith(f'DATABASE_PORT="{settings["DATABASE_PORT"]}"')
    assert change.endswith(deployment["revisions"][-1]["cause"])


def test_it_goes_the_same_way_in_every_transport(diagnoses: dict[str, Any]) -> None:
    """The same commands, in the same order; and nothing that it was shown is long."""
    steps = {via: told.commands for via, told in diagnoses.items()}
    assert all(each == steps["rest"] for each in steps.values()), steps
    assert len(steps["rest"]) == 7
    causes = {tuple(told.of("CAUSE")) for told in diagnoses.values()}
    assert len(causes) == 1
    shown = [line for line in diagnoses["rest"].text.splitlines() if line.startswith("   ") and "$" not in line]
    assert sum(map(len, shown)) < 4_000


def test_the_page_shows_what_it_says(diagnoses: dict[str, Any]) -> None:
    """The same commands and the same cause: the demo's pods have the same names each time."""
    page, told = README.read_text(), diagnoses["mcp"]
    shown = [line.removeprefix("   $ kubectl ") for line in page.splitlines() if line.startswith("   $ ")]
    assert shown == told.commands
    assert f"CAUSE     {told.of('CAUSE')[0]}\n" in page


@pytest.mark.parametrize("via", ["mcp", "rest", "sdk"])
def test_its_commands_are_one_conversation(demo: Any, diagnoses: dict[str, Any], via: str) -> None:
    """What is listed by its correlation id, a moment after it has ended, is what it said it ran."""
    told = diagnoses[via]
    give_up = time.monotonic() + 60
    while len(listed := demo.commands(correlation_id=told.conversation)) < len(told.commands):
        assert time.monotonic() < give_up, listed
        time.sleep(0.05)
    assert [shlex.join(argv) for argv in listed] == told.commands


@pytest.mark.parametrize(
    ("via", "namespace", "file", "name", "words"),
    [
        ("mcp", "staging", "60-trouble.yaml", "storefront-preview", "the image does not exist: {image}"),
        ("rest", "analytics", "60-trouble.yaml", "warehouse-loader", "asks for {resources[requests][cpu]} of cpu"),
        ("sdk", "shop", "40-shop.yaml", "recommender", "more memory than its limit, {resources[limits][memory]}"),
    ],
)
def test_it_finds_other_causes_as_well(
    demo: Any, ask: Ask, via: str, namespace: str, file: str, name: str, words: str
) -> None:
    """It is the evidence that leads it, so another pod leads it elsewhere."""
    [container] = objects(file)["Deployment", name]["spec"]["template"]["spec"]["containers"]
    told = ask(via, demo.url(via), "--namespace", namespace)
    assert told.code == 0
    [cause] = told.of("CAUSE")
    assert cause.startswith(f"{namespace}/{name}-")
    assert words.format(**container) in cause


def test_it_does_not_make_trouble_up(demo: Any, ask: Ask) -> None:
    """In a namespace where all is well."""
    told = ask("rest", demo.gateway, "--namespace", "monitoring")
    assert (told.code, told.of("CAUSE")) == (1, [])
    assert told.of("NO CAUSE") == ["There is nothing that it can explain."]


@pytest.mark.parametrize(
    ("via", "says"),
    [
        ("rest", "It gave up: UNAUTHENTICATED: Invalid API key."),
        ("mcp-stdio", "says 401: Invalid API key. Check the API key that this server is started with."),
        # The SDK's client keeps to itself what it was told.
        ("mcp", "Server returned an error response"),
    ],
)
def test_a_wrong_key_is_told(demo: Any, ask: Ask, via: str, says: str) -> None:
    told = ask(via, demo.gateway, "--key", "wrong")
    assert told.code == 1
    assert told.of("NO CAUSE")[0].endswith(says)


def test_a_cluster_that_is_away_is_told(demo: Any, ask: Ask) -> None:
    """Whoever has no patience is not kept waiting."""
    told = ask("sdk", demo.broker, "--cluster", "away", "--patience", "0")
    assert told.code == 1
    assert told.of("NO CAUSE")[0].startswith("It gave up: CLUSTER_OFFLINE:")


@pytest.mark.parametrize("via", ["mcp-stdio", "rest"])
def test_a_gateway_that_is_not_there_is_told(ask: Ask, via: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    told = ask(via, url)
    assert told.code == 1
    assert told.of("NO CAUSE")[0].startswith(f"It cannot reach {url}: ")


@pytest.fixture(params=MODULES)
def connect(demo: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """With pages that are too short for what is asked."""
    way = MODULES[request.param]
    monkeypatch.setattr(way, "PAGE_CHARS", 100, raising=way is not via_sdk)
    return lambda: way.connect(demo.url(request.param), "test-key", "a-test")


async def test_output_of_many_pages_is_put_together(connect: Connect) -> None:
    """Line by line what was selected."""
    step = Step("", ("get", "pods", "-n", "kube-system", "-o", "json"), jsonpath="$.items[*].metadata.labels")
    async with connect() as run:
        answer = await run("local", step)
    assert answer.is_good
    assert len(answer.stdout) > 3 * 100
    apps = [labels.get("k8s-app") for labels in answer.values()]
    assert apps.count("kube-dns") == 2
    assert len(apps) == 8


async def test_a_command_that_failed_has_its_exit_code(connect: Connect) -> None:
    async with connect() as run:
        answer = await run("local", Step("", ("get", "pod", "nope", "-o", "json"), jsonpath="$.spec"))
    assert (answer.exit_code, answer.refusal, answer.values()) == (1, None, [])
    assert 'pods "nope" not found' in answer.stderr


@pytest.mark.parametrize(
    ("cluster", "argv", "reason"),
    [
        ("locla", "get pods", "CLUSTER_UNKNOWN"),
        ("away", "get pods", "CLUSTER_OFFLINE"),
        ("local", "get secrets", "POLICY_DENIED"),
    ],
)
async def test_a_refusal_says_what_to_do(connect: Connect, cluster: str, argv: str, reason: str) -> None:
    async with connect() as run:
        answer = await run(cluster, Step("", tuple(argv.split())))
    assert not answer.is_good
    refusal = answer.refusal
    assert refusal is not None
    assert refusal.reason == reason
    assert refusal.message
    assert refusal.near == (("local",) if reason == "CLUSTER_UNKNOWN" else ())
    assert (refusal.retry_after_s is not None) == (reason == "CLUSTER_OFFLINE")
    assert bool(refusal.allowed) == (reason == "POLICY_DENIED")


async def test_a_command_that_takes_too_long_is_done_without(
    demo: Any, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a namespace whose answers take a minute."""
    for way in MODULES.values():
        monkeypatch.setattr(way, "TIMEOUT_S", 1)
    async with connect() as run:
        answer = await run("local", Step("", ("get", "pods", "-n", "stuck")))
    assert answer.refusal is not None
    assert answer.refusal.reason == "COMMAND_TIMEOUT"
    assert isinstance(react(answer.refusal, cluster="local", patience_s=9), DoWithout)


async def test_what_is_no_gateway_is_told() -> None:
    """Such as a proxy with a page of its own."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\noops")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with via_rest.connect(f"http://127.0.0.1:{port}", "key", "a-test") as run:
            told = await run("local", Step("", ("get", "pods")))
    assert told.refusal is not None
    assert told.refusal.reason == "502"
