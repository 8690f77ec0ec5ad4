"""Both streams that end before the broker's first message has left: the peer still gets it, and then the status."""

import asyncio
import contextlib
from typing import Any

import grpc
import pytest

from openline import ids, limits
from openline.channels import CLIENT_OPTIONS
from openline.v1 import command_service_pb2 as pb
from openline.v1 import executor_service_pb2 as wire
from openline.v1.command_service_pb2_grpc import CommandServiceStub
from openline.v1.executor_service_pb2_grpc import ExecutorServiceStub

PATIENCE_S = 20.0
# A peer that takes next to nothing before it reads: the first message stays on its way.
SMALL_WINDOW: list[tuple[str, int | str]] = [
    *CLIENT_OPTIONS,
    ("grpc.http2.lookahead_bytes", 1024),
    ("grpc.http2.bdp_probe", 0),
]


def executor_says() -> tuple[Any, Any]:
    """A Hello whose answer is large, and what ends the stream."""
    unacked = [ids.new_id() for _ in range(1000)]
    hello = wire.Hello(
        protocol_version=1, cluster_id="prod", executor_id="e", instance_id="i", max_concurrency=1, unacked_ids=unacked
    )
    first = wire.ConnectRequest(frames=[wire.ExecutorFrame(hello=hello)])
    return first, wire.ConnectRequest(frames=[wire.ExecutorFrame()] * 5000)


def caller_says() -> tuple[Any, Any]:
    """A PipeHello with calls that are refused at once, and what ends the stream."""
    hello = pb.CallerFrame(hello=pb.PipeHello(protocol_version=1))
    calls = [pb.CallerFrame(call_id=n, execute=pb.ExecuteRequest(cluster_id="nowhere")) for n in range(1, 1000)]
    return pb.PipeRequest(frames=[hello, *calls]), pb.PipeRequest(frames=[pb.CallerFrame()] * 5000)


@pytest.mark.parametrize("method", ["Connect", "Pipe"])
@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("by the peer", grpc.StatusCode.OK),
        ("by its garbage", grpc.StatusCode.INVALID_ARGUMENT),
        ("by its silence", grpc.StatusCode.ABORTED),
    ],
)
async def test_the_status_arrives(
    broker: Any,
    monkeypatch: pytest.MonkeyPatch,
    log_lines: list[dict[str, Any]],
    method: str,
    end: str,
    code: grpc.StatusCode,
) -> None:
    """Whatever ended it. grpc.aio forgets that headers were sent when the write they went with is cancelled."""
    if end == "by its silence":
        for limit in ("HEARTBEAT_TIMEOUT_S", "IDLE_HEARTBEAT_TIMEOUT_S"):
            monkeypatch.setattr(limits, limit, 0.3)
    metadata = (("x-api-key", "the-key-of-alice"), ("authorization", "Bearer the-token-of-prod"))
    async with grpc.aio.insecure_channel(broker.address, options=SMALL_WINDOW) as channel, asyncio.timeout(PATIENCE_S):
        connect, carry = ExecutorServiceStub(channel).Connect, CommandServiceStub(channel).Pipe
        call: Any = connect(metadata=metadata) if method == "Connect" else carry(metadata=metadata)
        first, garbage = executor_says() if method == "Connect" else caller_says()
        await call.write(first)
        if end == "by the peer":
            await call.done_writing()
        elif end == "by its garbage":
            await call.write(garbage)
        while not any(line["event"] in ("connection.closed", "pipe.closed") for line in log_lines):
            await asyncio.sleep(0.01)
        begun = await call.read()
        assert begun.frames[0].HasField("welcome")
        # Another message may have left as well, before which the status cannot arrive.
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                pass
        assert await call.code() is code
