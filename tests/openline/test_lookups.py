"""Unary calls asked of one replica after the other, on real servers that answer as they are told."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from openline import errors, lookups
from openline.errors import OpenlineError
from openline.lookups import Lookups
from openline.pipes import Pipes
from openline.reasons import NO, UNKNOWN, Reason
from openline.settings import Address
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1.cluster_service_pb2 import ListClustersRequest
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub
from openline.v1.command_service_pb2_grpc import (
    CommandServiceServicer,
    CommandServiceStub,
    add_CommandServiceServicer_to_server,
)

Look = Callable[[pb.GetCommandRequest, Any], Awaitable[pb.GetCommandResponse]]

RUNNING = pb.GetCommandResponse(command=command_pb2.Command(state=command_pb2.COMMAND_STATE_RUNNING))
DONE = pb.GetCommandResponse(command=command_pb2.Command(result=command_pb2.CommandResult(stdout=b"x")))


class Replica(CommandServiceServicer):
    def __init__(self, look: Look) -> None:
        self.look = look
        self.asked: list[pb.GetCommandRequest] = []

    async def GetCommand(self, request: pb.GetCommandRequest, context: Any) -> pb.GetCommandResponse:  # type: ignore[override]  # noqa: N802
        self.asked.append(request)
        assert ("authorization", "Bearer the-key") in context.invocation_metadata()
        return await self.look(request, context)


@asynccontextmanager
async def asking(*looks: Look) -> AsyncIterator[tuple[Lookups, list[Replica]]]:
    replicas = [Replica(look) for look in looks]
    servers: list[grpc.aio.Server] = []
    addresses: list[Address] = []
    for replica in replicas:
        server = grpc.aio.server()
        add_CommandServiceServicer_to_server(replica, server)
        addresses.append(Address(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"))
        await server.start()
        servers.append(server)
    async with Pipes(addresses, client="test") as pipes:
        yield Lookups(pipes, api_key="the-key"), replicas
    for server in servers:
        await server.stop(0)


async def done(_request: pb.GetCommandRequest, _context: Any) -> pb.GetCommandResponse:
    return DONE


async def broken(_request: pb.GetCommandRequest, context: Any) -> pb.GetCommandResponse:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
    raise AssertionError


async def frozen(_request: pb.GetCommandRequest, _context: Any) -> pb.GetCommandResponse:
    await asyncio.sleep(60)
    raise AssertionError


class Clock:
    """That of lookups, which stands still but for the time that replicas take: as much as they are said to, at once."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def frozen(self, _request: pb.GetCommandRequest, context: Any) -> pb.GetCommandResponse:
        """Until the caller's patience is at its end."""
        self.now += context.time_remaining()
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "")
        raise AssertionError

    async def broken(self, request: pb.GetCommandRequest, context: Any) -> pb.GetCommandResponse:
        self.now += 3.0
        return await broken(request, context)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lookups, "monotonic", clock)
    return clock


async def unknown(_request: pb.GetCommandRequest, context: Any) -> pb.GetCommandResponse:
    status = errors.to_status(errors.error(Reason.COMMAND_UNKNOWN, "no such command"))
    trailers = ((errors.STATUS_TRAILER, status.SerializeToString()),)
    await context.abort(grpc.StatusCode.NOT_FOUND, "no such command", trailers)
    raise AssertionError


async def test_the_first_answer_is_the_answer() -> None:
    """The next replica is asked only where the one before could not be."""
    async with asking(broken, done, done) as (found, replicas):
        assert (await found.get_command("the-id")).result.stdout == b"x"
        assert [len(replica.asked) for replica in replicas] == [1, 1, 0]


async def test_what_a_replica_answers_is_final() -> None:
    """No refusal is tried elsewhere."""
    async with asking(unknown, done) as (found, replicas):
        with pytest.raises(OpenlineError) as caught:
            await found.get_command("the-id")
        assert (caught.value.reason, len(replicas[1].asked)) == (Reason.COMMAND_UNKNOWN, 0)


async def test_one_that_is_frozen_leaves_time_for_another_one() -> None:
    """Half of what there is."""
    async with asking(frozen, done) as (found, _):
        begun = time.monotonic()
        assert (await found.get_command("the-id", timeout_s=4.0)).result.stdout == b"x"
        assert 1.9 < time.monotonic() - begun < 3.9


async def test_one_that_is_frozen_takes_half_of_a_wait(clock: Clock) -> None:
    """The wait is shared out as well: the second one is asked while there is half of it left."""
    async with asking(clock.frozen, done) as (found, [first, second]):
        assert (await found.get_command("the-id", wait_s=100.0)).result.stdout == b"x"
    [held], [asked] = first.asked, second.asked
    assert held.wait_s == 50.0
    assert clock.now < 50.0 + lookups.TIMEOUT_S
    assert asked.wait_s == (100.0 - clock.now) / 2


async def test_a_command_is_asked_for_until_it_is_done() -> None:
    """A broker waits a minute at most."""
    answers = iter([RUNNING, RUNNING, DONE])

    async def look(_request: pb.GetCommandRequest, _context: Any) -> pb.GetCommandResponse:
        return next(answers)

    async with asking(look) as (found, [replica]):
        assert (await found.get_command("the-id", wait_s=100)).result.stdout == b"x"
        assert [(asked.command_id, asked.wait_s) for asked in replica.asked] == [("the-id", 60.0)] * 3


async def test_a_look_without_a_wait_is_one_look() -> None:
    """Also when the command still runs."""

    async def look(_request: pb.GetCommandRequest, _context: Any) -> pb.GetCommandResponse:
        return RUNNING

    async with asking(look) as (found, [replica]):
        assert (await found.get_command("the-id")).state == command_pb2.COMMAND_STATE_RUNNING
        assert [asked.wait_s for asked in replica.asked] == [0.0]


async def test_nobody_who_answers_is_told_in_time(clock: Clock) -> None:
    """Of a command that is looked for nothing is known; what runs nothing did not run."""
    async with asking(clock.broken, clock.broken) as (found, replicas):
        with pytest.raises(OpenlineError) as looked:
            await found.get_command("the-id", timeout_s=20.0)
        assert 20.0 <= clock.now <= 24.0
        assert all(len(replica.asked) > 1 for replica in replicas)
    async with asking(broken) as (found, _):
        with pytest.raises(OpenlineError) as listed:
            await found.ask(lambda channel: ClusterServiceStub(channel).ListClusters, ListClustersRequest())
    assert (looked.value.reason, looked.value.error.executed) == (Reason.BROKER_UNAVAILABLE, UNKNOWN)
    assert (listed.value.reason, listed.value.error.executed) == (Reason.NOT_BUILT, NO)


async def test_each_replica_once_and_then_what_the_last_one_said(clock: Clock) -> None:
    """Not again and again: a refusal of all of them is told as it was, and soon. One who has asked in vain whoever was
    meant is the last one."""

    async def refuse(_request: pb.GetCommandRequest, context: Any) -> pb.GetCommandResponse:
        failure = errors.error(Reason.BROKER_UNAVAILABLE, "nowhere to go", executed=NO)
        trailers = ((errors.STATUS_TRAILER, errors.to_status(failure).SerializeToString()),)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "nowhere to go", trailers)
        raise AssertionError

    async def silent(_request: pb.GetCommandRequest, context: Any) -> pb.GetCommandResponse:
        failure = errors.error(Reason.BROKER_UNAVAILABLE, "replica b does not answer", executed=UNKNOWN)
        trailers = ((errors.STATUS_TRAILER, errors.to_status(failure).SerializeToString()),)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "it does not answer", trailers)
        raise AssertionError

    def ask(asked: Lookups) -> Any:
        request = pb.GetCommandRequest(command_id="x")
        return asked.ask_each_once(lambda c: CommandServiceStub(c).GetCommand, request, timeout_s=40.0)

    async with asking(broken, done) as (asked, _):
        assert await ask(asked) == DONE
    async with asking(broken, refuse) as (asked, replicas):
        with pytest.raises(OpenlineError, match="nowhere to go"):
            await ask(asked)
        assert [len(replica.asked) for replica in replicas] == [1, 1]
    async with asking(clock.frozen, done) as (asked, _):
        assert await ask(asked) == DONE
    assert clock.now <= 20.0
    async with asking(broken, silent, done) as (asked, replicas):
        with pytest.raises(OpenlineError, match="replica b does not answer"):
            await ask(asked)
        assert not replicas[2].asked
    async with asking(broken, unknown, done) as (asked, replicas):
        with pytest.raises(OpenlineError) as refused:
            await ask(asked)
        assert refused.value.reason is Reason.COMMAND_UNKNOWN
        assert not replicas[2].asked
