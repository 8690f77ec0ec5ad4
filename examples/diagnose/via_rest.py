"""Asks a gateway's REST. Needs httpx."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from .words import Answer, Refusal, Run, Step

DEMO = "http://127.0.0.1:8080"
# What is raised where no gateway is.
UNREACHED: tuple[type[Exception], ...] = (httpx.HTTPError,)
TIMEOUT_S = 30
# Some thousand tokens; the rest is fetched when it is wanted.
PAGE_CHARS = 4_000
MAX_PAGES = 10


@asynccontextmanager
async def connect(url: str, key: str, conversation: str) -> AsyncIterator[Run]:
    headers = {"X-API-Key": key, "X-Correlation-ID": conversation}
    # A little more than the command may take: the gateway says itself when that is over.
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_S + 5, trust_env=False) as http:

        async def run(cluster: str, step: Step) -> Answer:
            body = {"argv": step.argv, "timeout_seconds": TIMEOUT_S, "max_output_chars": PAGE_CHARS, **step.shaping()}
            try:
                answer = _read(await http.post(f"/v1/clusters/{cluster}/commands", json=body))
                pages = [answer["stdout"]]
                while (cursor := answer["shaping"]["next_cursor"]) and len(pages) < MAX_PAGES:
                    look = http.get(f"/v1/commands/{answer['command_id']}", params={"cursor": cursor})
                    answer = _read(await look)
                    pages.append(answer["stdout"])
            except _Refused as no:
                return Answer(exit_code=None, refusal=no.refusal)
            return Answer("".join(pages), answer["stderr"], answer["exit_code"])

        yield run


class _Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


def _read(response: httpx.Response) -> dict[str, Any]:
    """What a command came to; or raises what the problem document says, or the command that did not come to its end."""
    if "json" not in response.headers.get("content-type", ""):
        raise _Refused(Refusal(str(response.status_code), f"{response.url} is no gateway of openline"))
    answer: dict[str, Any] = response.json()
    if response.is_success:
        return answer
    problem = answer.get("error") or answer
    retry = response.headers.get("retry-after", "")
    raise _Refused(
        Refusal(
            problem.get("reason", str(response.status_code)),
            str(problem.get("message") or problem.get("detail", "")),
            retry_after_s=float(retry) if retry.isdigit() else None,
            near=tuple(filter(None, problem.get("near", "").split(","))),
            allowed=problem.get("allowed", ""),
        )
    )
