"""Moving from one broker to another, between two that do what the test says."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from openline import limits
from openline.v1 import executor_service_pb2 as wire

KEEP = wire.VERDICT_ACTION_KEEP
AWAY = wire.BrokerFrame(go_away=wire.GoAway(reason="stopping"))
# Far more than it takes, far less than what could be in the way: see `in_order`.
SOON_S = 15.0


def ack(command_id: str) -> wire.BrokerFrame:
    return wire.BrokerFrame(result_ack=wire.ResultAck(command_id=command_id))


@pytest.fixture(autouse=True)
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses are dialed in the order they are given, and every wait is as long as it can be, or longer."""
    monkeypatch.setattr("executor.link.random.sample", lambda addresses, k: list(addresses)[:k])
    monkeypatch.setattr("executor.link.random.random", lambda: 1.0)
    for wait in ("openline.stream.GOODBYE_S", "executor.connection.LEAVE_S", "executor.route.HOP_S"):
        monkeypatch.setattr(wait, 60.0)


@pytest.fixture
async def brokers(serving: Any) -> AsyncIterator[tuple[Any, Any]]:
    async with serving() as first, serving() as second:
        yield first, second


def addresses(*brokers: Any) -> str:
    return ",".join(broker.address for broker in brokers)


async def left(connection: Any) -> None:
    """Waits for the executor's end of the stream, and ends the broker's, as a broker does."""
    await connection.until_closed()
    connection.end()


async def test_what_runs_goes_along(brokers: Any, dial: Any, stub_kubectl: Any, execute: Any, open_gate: Any) -> None:
    """The other broker hears at once what runs, sealed as it came, and gets the result; it runs once."""
    first, second = brokers
    kubectl = stub_kubectl("echo run >>$LOG; gate end; echo out")
    async with dial(kubectl, brokers=addresses(first, second)):
        connection = await first.connection()
        await connection.welcome(epoch=41)
        frame = execute("get", "pods", timeout_s=100.0)
        frame.execute.seal = b"sealed"
        sent = time.monotonic()
        await connection.send(frame)
        await connection.expect("accepted")
        await connection.expect("started")
        began = time.monotonic()
        await connection.send(AWAY)
        await left(connection)
        connection = await second.connection()
        hello = await connection.welcome(verdict=KEEP, epoch=7)
        assert time.monotonic() - began < SOON_S
        assert list(hello.in_flight_ids) == [frame.execute.command_id]
        assert hello.last_epoch == 41
        [held] = hello.held
        assert 100.0 - (time.monotonic() - sent) - 0.1 <= held.execute.timeout_s < 100.0
        held.execute.timeout_s = 100.0
        assert held.execute == frame.execute
        assert held.first_seq == 0
        open_gate("end")
        finished, stdout, _ = await connection.result(frame.execute.command_id)
        assert (finished.exit_code, stdout) == (0, b"out\n")
        await connection.send(ack(frame.execute.command_id), AWAY)
        await left(connection)
        hello = await (await first.connection()).welcome()
        assert (hello.last_epoch, len(hello.held), len(hello.unacked_ids)) == (41, 0, 0)
    assert kubectl.with_name("log").read_text() == "run\n"


async def test_a_live_command_goes_on_at_the_other_broker(
    brokers: Any, dial: Any, stub_kubectl: Any, execute: Any, open_gate: Any
) -> None:
    """It begins with the first seq that has not been acknowledged by credit, and nothing is missing after that."""
    first, second = brokers
    async with dial(
        stub_kubectl("echo one; gate two; echo two; gate three; echo three"), brokers=addresses(first, second)
    ):
        connection = await first.connection()
        await connection.welcome()
        frame = execute("logs", "x", live=True)
        await connection.send(frame)
        await connection.expect("accepted")
        await connection.expect("started")
        await connection.grant((await connection.expect("output")).output)
        open_gate("two")
        assert (await connection.expect("output")).output.data == b"two\n"
        await connection.send(AWAY)
        await left(connection)
        connection = await second.connection()
        hello = await connection.welcome(verdict=KEEP, next_seq=1)
        assert hello.held[0].first_seq == 1
        open_gate("three")
        _, stdout, _ = await connection.result(frame.execute.command_id, next_seq=1)
        assert stdout == b"two\nthree\n"


async def test_what_waits_for_credit_does_not_hold_a_move_up(
    brokers: Any, dial: Any, stub_kubectl: Any, execute: Any
) -> None:
    """A result that has gone out in part is sent whole at the other broker."""
    first, second = brokers
    async with dial(stub_kubectl("head -c 500000 /dev/zero"), brokers=addresses(first, second)):
        connection = await first.connection()
        await connection.welcome()
        frame = execute(max_bytes=1 << 20)
        await connection.send(frame)
        taken = 0
        while taken < limits.COMMAND_CREDIT_BYTES:
            taken += len((await connection.frame()).output.data)
        began = time.monotonic()
        await connection.send(AWAY)
        await left(connection)
        connection = await second.connection()
        hello = await connection.welcome(verdict=KEEP)
        assert time.monotonic() - began < SOON_S
        assert list(hello.unacked_ids) == [frame.execute.command_id]
        assert hello.held[0].execute.timeout_s > 0
        _, stdout, _ = await connection.result(frame.execute.command_id)
        assert len(stdout) == 500_000


async def test_what_is_queued_goes_out_before_a_move(brokers: Any, dial: Any, stub_kubectl: Any, execute: Any) -> None:
    """Also the answer to an Execute that came in the same message as GoAway."""
    first, second = brokers
    async with dial(stub_kubectl("sleep 5"), brokers=addresses(first, second)):
        connection = await first.connection()
        await connection.welcome()
        frame = execute()
        await connection.send(AWAY, frame)
        assert (await connection.expect("accepted")).accepted.command_id == frame.execute.command_id
        await left(connection)
        hello = await (await second.connection()).welcome(verdict=KEEP)
        assert [held.execute.command_id for held in hello.held] == [frame.execute.command_id]


async def test_an_execute_that_crosses_the_move_goes_along(
    brokers: Any, dial: Any, stub_kubectl: Any, execute: Any
) -> None:
    """It was on its way when the executor closed its end: it is run, and the next Hello tells of it."""
    first, second = brokers
    async with dial(stub_kubectl("echo out"), brokers=addresses(first, second)):
        connection = await first.connection()
        await connection.welcome()
        await connection.send(AWAY)
        await connection.until_closed()
        frame = execute()
        await connection.send(frame)
        connection.end()
        connection = await second.connection()
        hello = await connection.welcome(verdict=KEEP)
        assert [held.execute.command_id for held in hello.held] == [frame.execute.command_id]
        _, stdout, _ = await connection.result(frame.execute.command_id)
        assert stdout == b"out\n"


async def test_a_broker_that_does_not_take_its_leave(
    brokers: Any, dial: Any, stub_kubectl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that neither reads nor ends the stream after its GoAway is left within bounds."""
    monkeypatch.setattr("openline.stream.GOODBYE_S", 0.1)
    first, second = brokers
    async with dial(stub_kubectl("exit"), brokers=addresses(first, second)):
        connection = await first.connection()
        await connection.welcome()
        await connection.send(AWAY)
        await (await second.connection()).welcome()


async def test_a_broker_that_reads_nothing_is_left_with_what_is_queued(
    brokers: Any, dial: Any, stub_kubectl: Any, execute: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its window is full, so what is queued cannot be written; it is told to the other one."""
    monkeypatch.setattr("executor.connection.LEAVE_S", 0.2)
    first, second = brokers
    async with dial(stub_kubectl("head -c 2000000 /dev/zero"), brokers=addresses(first, second)):
        connection = await first.connection()
        await connection.welcome(command_credit_bytes=1 << 22)
        await connection.send(*(wire.BrokerFrame(credit=wire.Credit(bytes=1 << 24)) for _ in range(2)))
        frames = [execute(max_bytes=2 << 20) for _ in range(8)]
        await connection.send(*frames)
        await asyncio.sleep(1.0)  # until the window is full; nobody reads
        began = time.monotonic()
        await connection.send(AWAY)
        hello = await (await second.connection()).welcome()
        assert time.monotonic() - began < SOON_S
        assert {held.execute.command_id for held in hello.held} == {frame.execute.command_id for frame in frames}


async def test_go_away_without_end(brokers: Any, dial: Any, stub_kubectl: Any) -> None:
    """Both brokers send everybody away at once: dialed in turn, with a pause after each round."""
    first, second = brokers
    dialed: list[tuple[int, float]] = []

    async def send_away(broker: Any, name: int) -> None:
        while len(dialed) < 12:
            connection = await broker.connection()
            dialed.append((name, time.monotonic()))
            await connection.welcome()
            await connection.send(AWAY)
            await left(connection)

    async with dial(stub_kubectl("exit"), brokers=addresses(first, second)), asyncio.TaskGroup() as senders:
        for name, broker in enumerate(brokers):
            senders.create_task(send_away(broker, name))
    names, times = zip(*dialed, strict=True)
    assert names == tuple(index % 2 for index in range(13))
    # 0.2 s after the first round, then at most 0.1 s, here always all of it; less only where connections live longer.
    assert times[11] - times[0] >= 0.3


async def test_a_broker_that_dies_is_followed_by_another(
    serving: Any, dial: Any, stub_kubectl: Any, execute: Any, open_gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead one between them costs moments, not a backoff; what runs is told to whoever answers."""
    monkeypatch.setattr("executor.route.HOP_S", 0.2)
    async with serving() as first, serving() as last:
        dialed = f"{first.address},127.0.0.1:1,{last.address}"
        async with dial(stub_kubectl("gate end; echo out"), brokers=dialed):
            connection = await first.connection()
            await connection.welcome(reconnect_s=(60.0, 60.0))
            frame = execute()
            await connection.send(frame)
            await connection.expect("accepted")
            await asyncio.sleep(0.3)  # longer than the bound: a good connection
            began = time.monotonic()
            connection.end()
            connection = await last.connection()
            hello = await connection.welcome(verdict=KEEP)
            assert time.monotonic() - began < SOON_S
            assert list(hello.in_flight_ids) == [frame.execute.command_id]
            open_gate("end")
            _, stdout, _ = await connection.result(frame.execute.command_id)
            assert stdout == b"out\n"


async def test_reconnect_after_is_heeded(brokers: Any, dial: Any, stub_kubectl: Any) -> None:
    first, second = brokers
    async with dial(stub_kubectl("exit"), brokers=addresses(first, second)):
        connection = await first.connection()
        await connection.welcome()
        began = time.monotonic()
        await connection.send(wire.BrokerFrame(go_away=wire.GoAway(reconnect_after_s=0.5)))
        await left(connection)
        await (await second.connection()).welcome()
        assert time.monotonic() - began >= 0.45


async def test_closing_while_a_move_is_under_way(brokers: Any, dial: Any, stub_kubectl: Any, execute: Any) -> None:
    """The channel that was opened ahead is closed as well (`dial` awaits the end)."""
    first, second = brokers
    async with dial(stub_kubectl("sleep 5"), brokers=addresses(first, second)):
        connection = await first.connection()
        await connection.welcome()
        frame = execute()
        away = wire.GoAway(drain_deadline_s=60.0)
        await connection.send(frame, wire.BrokerFrame(go_away=away))
        await connection.expect("accepted")
