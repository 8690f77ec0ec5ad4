"""openline's Pipe and unary Execute beside gRPC's own floor and beside NATS, with messages of the same size."""

import contextlib
from collections.abc import AsyncIterator, Set

from loadtest.asking import Requests, by_unary, open_pipe, over_pipe
from loadtest.compare.contenders import Contender
from loadtest.measuring import Ask
from loadtest.rivals import echoing, nats
from loadtest.stage import KEY, Stage, new_token
from openline.channels import open_channel

CLUSTERS = [f"loadtest-{number}" for number in range(1, 33)]
# Its executor is connected to the other replica.
FAR = "loadtest-far"
ARGV = ("get", "pods", "-n", "shop")
OUTPUT_BYTES = 256
TIMEOUT_S = 10.0

NAMES = (
    "pipe_c1",
    "nats_c1",
    "unary_c1",
    "echo_c1",
    "stream_c1",
    "forwarded_c1",
    "pipe_c64",
    "nats_c64",
    "pipe_c64_32clusters",
)


@contextlib.asynccontextmanager
async def streams(stage: Stage, wanted: Set[str]) -> AsyncIterator[list[Contender]]:
    """Those of NAMES that are wanted. Raises StartFailed, NatsMissing, NoAnswer, OpenlineError.

    The others carry what openline carries: a request as it is on the wire, and for NATS as much of an answer.
    """
    payload = Requests(CLUSTERS, ARGV).next().SerializeToString()
    async with contextlib.AsyncExitStack() as stack:
        asks, reply_bytes = await _openline(stage, stack, wanted)
        if any(name.startswith("nats") for name in wanted):
            asks |= await _nats(stage, stack, payload, reply_bytes)
        if wanted & {"echo_c1", "stream_c1"}:
            asks |= await _echo(stage, stack, payload)
        yield [Contender(name, asks[name], _callers(name)) for name in NAMES if name in wanted]


def _callers(name: str) -> int:
    return 64 if "_c64" in name else 1


async def _openline(stage: Stage, stack: contextlib.AsyncExitStack, wanted: Set[str]) -> tuple[dict[str, Ask], int]:
    """The ways to ask, and how many bytes an answer has."""
    redis_url, token = await stage.valkey(), new_token()
    near = await stage.broker("broker", redis_url, [*CLUSTERS, FAR], token)
    flag = f"--output-bytes={OUTPUT_BYTES}"
    await stage.executors("executors", [near], CLUSTERS, token, flag)
    if "forwarded_c1" in wanted:
        far = await stage.broker("broker-far", redis_url, [*CLUSTERS, FAR], token)
        await stage.executors("executors-far", [far], [FAR], token, flag)
    pipe = await stack.enter_async_context(open_pipe(near))
    channel = await stack.enter_async_context(open_channel(near))

    def piped(*clusters: str) -> Ask:
        return over_pipe(pipe, Requests(clusters, ARGV), api_key=KEY)

    answer = await pipe.execute(Requests(CLUSTERS[:1], ARGV).next(), api_key=KEY, timeout_s=TIMEOUT_S)
    asks = {
        "pipe_c1": piped(CLUSTERS[0]),
        "pipe_c64": piped(CLUSTERS[0]),
        "pipe_c64_32clusters": piped(*CLUSTERS),
        "forwarded_c1": piped(FAR),
        "unary_c1": by_unary(channel, Requests(CLUSTERS[:1], ARGV), api_key=KEY),
    }
    return asks, answer.ByteSize()


async def _echo(stage: Stage, stack: contextlib.AsyncExitStack, payload: bytes) -> dict[str, Ask]:
    channel = await stack.enter_async_context(open_channel(await echoing.start(stage)))
    return {
        "echo_c1": echoing.unary(channel, payload),
        "stream_c1": await stack.enter_async_context(echoing.open_stream(channel, payload)),
    }


async def _nats(stage: Stage, stack: contextlib.AsyncExitStack, payload: bytes, reply_bytes: int) -> dict[str, Ask]:
    url = await nats.start(stage, reply_bytes=reply_bytes)
    ask = await stack.enter_async_context(nats.requester(url, payload))
    return {"nats_c1": ask, "nats_c64": ask}
