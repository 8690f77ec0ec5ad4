"""`dispatch`: commands to executors that answer at once, over a Pipe and by unary calls: what openline itself costs."""

import contextlib
from typing import Annotated, Literal

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

from loadtest.asking import Requests, by_unary, in_turn, open_pipe, over_pipe
from loadtest.bench import Bench
from loadtest.installation import Installation, open_installation
from loadtest.measuring import Ask
from loadtest.settings import LoadSettings
from openline.channels import open_channel
from openline.settings import split_commas


class DispatchSettings(LoadSettings):
    """Asks for commands over a Pipe and by unary Execute, and says how long they take and what they cost."""

    over: Annotated[tuple[Literal["pipe", "unary"], ...], NoDecode, BeforeValidator(split_commas)] = ("pipe", "unary")
    """The ways to ask, one after the other."""


async def run(settings: DispatchSettings, bench: Bench) -> None:
    async with open_installation(settings) as installation, contextlib.AsyncExitStack() as stack:
        for way in settings.over:
            asks = [await _way(way, index, installation, settings, stack) for index in range(len(installation.brokers))]
            await bench.measure(
                way,
                in_turn(asks),
                pids=installation.stage.pids,
                callers=settings.callers,
                seconds=settings.seconds,
                count=settings.count,
            )


async def _way(
    way: str, index: int, installation: Installation, settings: LoadSettings, stack: contextlib.AsyncExitStack
) -> Ask:
    requests = Requests(installation.cluster_ids, settings.command, timeout_s=settings.timeout)
    broker, key = installation.brokers[index], installation.api_key
    if way == "unary":
        channel = await stack.enter_async_context(open_channel(broker, **installation.tls))
        return by_unary(channel, requests, api_key=key)
    return over_pipe(await stack.enter_async_context(open_pipe(broker, installation.tls)), requests, api_key=key)
