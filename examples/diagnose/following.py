"""Follows a plan through a transport, and says each step."""

import asyncio
import shlex
import time

from .refusals import DoWithout, Stop, react
from .words import Answer, Finding, GaveUp, Plan, Run, Step, printable

# What is shown of a line, and of an answer. The plan sees all of it.
MAX_CHARS = 160
MAX_LINES = 12
# Of one step: patience ends most of it, but not two clusters that are each said to be meant by the other's name.
MAX_ATTEMPTS = 20


async def follow(plan: Plan, run: Run, cluster: str, *, patience_s: float) -> Finding | None:
    """Asks what the plan wants to know until it ends; asks again for so long all told. Raises GaveUp."""
    until = time.monotonic() + patience_s
    number = 1
    try:
        step = next(plan)
        while True:
            print(f"\n{number}. {printable(step.why)}")
            print(f"   $ kubectl {shlex.join(step.argv)}")
            for name, value in step.shaping().items():
                print(f"     {name}: {value}")
            cluster, answer = await _ask(run, cluster, step, until)
            _show(answer)
            step = plan.send(answer)
            number += 1
    except StopIteration as end:
        finding: Finding | None = end.value
        return finding


async def _ask(run: Run, cluster: str, step: Step, until: float) -> tuple[str, Answer]:
    """The answer, and the cluster that has given it."""
    said = ""
    for _ in range(MAX_ATTEMPTS):
        answer = await run(cluster, step)
        if answer.refusal is None:
            return cluster, answer
        reaction = react(answer.refusal, cluster=cluster, patience_s=until - time.monotonic())
        said = reaction.said
        if isinstance(reaction, Stop):
            break
        print(f"   {_short(said)}", flush=True)
        if isinstance(reaction, DoWithout):
            return cluster, answer
        cluster = reaction.cluster
        await asyncio.sleep(reaction.wait_s)
    raise GaveUp(said)


def _show(answer: Answer) -> None:
    lines = [*answer.lines(), *answer.stderr.splitlines()] or ["(nothing)"]
    for line in lines[:MAX_LINES]:
        print(f"   {_short(line)}")
    if len(lines) > MAX_LINES:
        print(f"   … {len(lines) - MAX_LINES} more lines", flush=True)


def _short(line: str) -> str:
    line = printable(line)
    return line if len(line) <= MAX_CHARS else f"{line[: MAX_CHARS - 1]}…"
