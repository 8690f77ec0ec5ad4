"""Calls the tools of a gateway's MCP server, as a model would. Needs mcp."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from .words import Answer, Refusal, Run, Step

DEMO = "http://127.0.0.1:8080"
# What is raised where no gateway is, or no program that asks it.
UNREACHED: tuple[type[Exception], ...] = (httpx2.HTTPError, MCPError, OSError)
TIMEOUT_S = 30
# A little more than a command may take: the gateway says itself when that is over.
PATIENCE_S = TIMEOUT_S + 5
# Some thousand tokens; the rest is fetched when it is wanted.
PAGE_CHARS = 4_000
MAX_PAGES = 10


@asynccontextmanager
async def connect(url: str, key: str, conversation: str) -> AsyncIterator[Run]:
    headers = {"Authorization": f"Bearer {key}", "X-Correlation-ID": conversation}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=PATIENCE_S, trust_env=False) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), read_timeout_seconds=PATIENCE_S) as client,
    ):
        yield asking(client)


@asynccontextmanager
async def connect_stdio(url: str, key: str, conversation: str) -> AsyncIterator[Run]:
    """As desktop clients do: they start a program, which makes up a name for the conversation itself."""
    arguments = ["mcp", "--stdio", "--url", url]
    environment = {**os.environ, "OPENLINE_API_KEY": key}
    program = StdioServerParameters(command="openline-gateway", args=arguments, env=environment)
    async with Client(stdio_client(program), read_timeout_seconds=PATIENCE_S) as client:
        yield asking(client)


def asking(client: Client) -> Run:
    async def run(cluster: str, step: Step) -> Answer:
        asked = {"cluster": cluster, "argv": list(step.argv), "timeout_seconds": TIMEOUT_S, **step.shaping()}
        answer = await _call(client, "kubectl", max_output_chars=PAGE_CHARS, **asked)
        pages = [answer.get("stdout", "")]
        while (cursor := answer.get("next_cursor")) and len(pages) < MAX_PAGES:
            answer = await _call(client, "get_result", cursor=cursor)
            pages.append(answer.get("stdout", ""))
        if "reason" in answer:
            return Answer("".join(pages), exit_code=None, refusal=_refusal(answer))
        return Answer("".join(pages), answer.get("stderr", ""), answer.get("exit_code"))

    return run


async def _call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """A failure is an answer as well: its fields say what to do next."""
    return dict((await client.call_tool(tool, arguments)).structured_content or {})


def _refusal(answer: dict[str, Any]) -> Refusal:
    return Refusal(
        answer["reason"],
        answer.get("message", ""),
        retry_after_s=answer.get("retry_after_s"),
        near=tuple(answer.get("near", ())),
        allowed=answer.get("allowed", ""),
    )
