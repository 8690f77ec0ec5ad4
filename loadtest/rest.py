"""`rest`: the same commands through the gateway, as an AI agent asks for them."""

import contextlib
import itertools
import json
from collections.abc import Sequence

from pydantic import Field

from loadtest.asking import CLIENT, MARGIN_S
from loadtest.bench import Bench
from loadtest.figures import OK
from loadtest.http import Answer, Connections, HttpFailed, open_connections
from loadtest.installation import open_installation
from loadtest.measuring import Ask
from loadtest.settings import LoadSettings

PATH = "/debug/execute"


class RestSettings(LoadSettings):
    """Asks for commands through the gateway, and says how long they take and what they cost."""

    url: str | None = Field(None, pattern=r"^https?://[^/ ]+/?$")
    """The gateway of an installation, as http://HOST:PORT. With it, no broker is asked and none is started."""


async def run(settings: RestSettings, bench: Bench) -> None:
    async with contextlib.AsyncExitStack() as stack:
        pids: dict[str, int] = {}
        if settings.url is None:
            installation = await stack.enter_async_context(open_installation(settings))
            url = await installation.stage.gateway(installation.brokers, settings.tls if settings.broker else None)
            api_key, cluster_ids, pids = installation.api_key, installation.cluster_ids, installation.stage.pids
        else:
            url, api_key, cluster_ids = settings.url, settings.api_key.get_secret_value(), settings.cluster_ids
        connections = await stack.enter_async_context(open_connections(url, ca=settings.tls_ca))
        await bench.measure(
            "rest",
            over_rest(connections, cluster_ids, settings.command, api_key=api_key, timeout_s=settings.timeout),
            pids=pids,
            callers=settings.callers,
            seconds=settings.seconds,
            count=settings.count,
        )


def over_rest(
    connections: Connections, cluster_ids: Sequence[str], argv: Sequence[str], *, api_key: str, timeout_s: float
) -> Ask:
    """Asks for the command in each of the clusters in turn."""
    bodies = itertools.cycle([execute_body(cluster_id, argv, timeout_s=timeout_s) for cluster_id in cluster_ids])
    headers = headers_of(api_key)

    async def ask() -> str:
        try:
            return _ended(await connections.post(PATH, next(bodies), headers, timeout_s=timeout_s + MARGIN_S))
        except HttpFailed as failure:
            return str(failure)

    return ask


def execute_body(cluster_id: str, argv: Sequence[str], *, timeout_s: float) -> bytes:
    """The verb is the first of the arguments, and the namespace is among them or nowhere."""
    body = {"cluster_id": cluster_id, "args": list(argv), "namespace": None, "timeout_seconds": int(timeout_s)}
    return json.dumps(body).encode()


def headers_of(api_key: str) -> str:
    # The commands are all the same, and each is to be run.
    return f"X-API-Key: {api_key}\r\nX-Correlation-ID: {CLIENT}\r\nCache-Control: no-cache\r\n"


def _ended(answer: Answer) -> str:
    try:
        said = json.loads(answer.body)
        if answer.status != 200:
            return str(said.get("reason") or f"HTTP {answer.status}")
    except (ValueError, AttributeError):
        return f"HTTP {answer.status}"
    if said["status"] == "success":
        return OK
    return f"exit code {said['exit_code']}" if said["status"] == "failure" else str(said["status"])
