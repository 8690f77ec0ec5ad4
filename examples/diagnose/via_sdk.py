"""Asks a broker with openline's client for Python. Needs openline and, to select from JSON, python-jsonpath.

A program that pays nothing for what it reads takes the output as it is, and shapes it itself.
"""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import jsonpath

from openline.client import AsyncClient, NotNow, OpenlineError

from .words import Answer, Refusal, Run, Step

DEMO = "127.0.0.1:50051,127.0.0.1:50052"
# Nothing: that no broker is there is a refusal as well.
UNREACHED: tuple[type[Exception], ...] = ()
TIMEOUT_S = 30


@asynccontextmanager
async def connect(brokers: str, key: str, conversation: str) -> AsyncIterator[Run]:
    async with AsyncClient(brokers, key, timeout_s=TIMEOUT_S) as client:

        async def run(cluster: str, step: Step) -> Answer:
            try:
                result = await client.execute(cluster, *step.argv, correlation_id=conversation)
            except OpenlineError as no:
                return Answer(exit_code=None, refusal=_refusal(no))
            stdout = result.stdout.decode(errors="replace")
            shown = shape(stdout, step) if result.exit_code == 0 and not result.truncated else stdout
            return Answer(shown, result.stderr.decode(errors="replace"), result.exit_code)

        yield run


def shape(text: str, step: Step) -> str:
    lines = text.splitlines()
    if step.jsonpath is not None:
        lines = [json.dumps(value) for value in jsonpath.findall(step.jsonpath, json.loads(text))]
    if step.grep is not None:
        lines = [line for line in lines if re.search(step.grep, line)]
    return "\n".join(lines if step.tail is None else lines[-step.tail :])


def _refusal(no: OpenlineError) -> Refusal:
    return Refusal(
        no.reason,
        no.error.message,
        retry_after_s=no.retry_after_s if isinstance(no, NotNow) else None,
        near=tuple(filter(None, no.metadata.get("near", "").split(","))),
        allowed=no.metadata.get("allowed", ""),
    )
