"""Live output, credit and the spool, against a broker that does what the test says."""

import asyncio
from pathlib import Path
from typing import Any

from executor.activity import Activity
from openline import limits
from openline.reasons import Reason
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

KEEP = wire.VERDICT_ACTION_KEEP
WINDOW = limits.COMMAND_CREDIT_BYTES
MIB = 1 << 20


def ack(command_id: str) -> wire.BrokerFrame:
    return wire.BrokerFrame(result_ack=wire.ResultAck(command_id=command_id))


def cancel(command_id: str) -> wire.BrokerFrame:
    return wire.BrokerFrame(cancel=wire.Cancel(command_id=command_id))


def count(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


async def output(connection: Any, size: int) -> list[command_pb2.Output]:
    """Reads output without giving credit, until there are so many bytes of it."""
    frames: list[command_pb2.Output] = []
    while sum(len(frame.data) for frame in frames) < size:
        frame = await connection.frame()
        if frame.HasField("output"):
            frames.append(frame.output)
        assert not frame.HasField("finished")
    return frames


async def until_nothing_runs(connection: Any) -> None:
    """As a heartbeat says it."""
    while not (frame := await connection.frame()).HasField("heartbeat") or frame.heartbeat.running:
        assert not frame.HasField("finished")


async def test_output_comes_while_the_process_runs(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any, open_gate: Any
) -> None:
    """stdout and stderr apart, in order, before the end; a cancel ends what would go on for ever."""
    async with dial(stub_kubectl("echo one; gate two; echo two >&2; sleep 60")):
        connection = await broker.connection()
        await connection.welcome()
        frame = execute("logs", "-f", "web-0", live=True)
        await connection.send(frame)
        [first] = await output(connection, 4)
        open_gate("two")
        [second] = await output(connection, 4)
        assert (first.seq, first.source, first.data) == (0, 1, b"one\n")
        assert (second.seq, second.source, second.data) == (1, 2, b"two\n")
        await connection.send(cancel(frame.execute.command_id))
        finished = (await connection.expect("finished")).finished
        assert finished.outcome == command_pb2.OUTCOME_CANCELLED
        assert (finished.stdout_summary.total_bytes, finished.stderr_summary.total_lines) == (4, 1)


async def test_streaming_commands_are_for_streaming_calls(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any
) -> None:
    async with dial(stub_kubectl("echo out")):
        connection = await broker.connection()
        await connection.welcome()
        await connection.send(execute("get", "pods", "-w"))
        refused = (await connection.expect("rejected")).rejected.error
        assert refused.reason == Reason.POLICY_DENIED
        assert "streaming calls only" in refused.message
        allowed = execute("get", "pods", "-w", live=True)
        await connection.send(allowed)
        _, stdout, _ = await connection.result(allowed.execute.command_id)
        assert stdout == b"out\n"


async def test_without_credit_the_process_is_held_up(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any, tmp_path: Path
) -> None:
    """It writes as much as the window and its pipe hold and then waits; with credit it goes on to the exact end."""
    body = "for n in 1 2 3 4 5 6 7 8 9 10; do head -c 100000 /dev/zero | tr '\\0' '\\n'; echo $n >>$LOG; done"
    async with dial(stub_kubectl(body)):
        connection = await broker.connection()
        await connection.welcome()
        frame = execute(live=True)
        await connection.send(frame)
        got = await output(connection, WINDOW)
        assert sum(len(piece.data) for piece in got) == WINDOW
        await asyncio.sleep(0.4)
        assert count(tmp_path / "log") < 6
        for piece in got:
            await connection.grant(piece)
        finished, stdout, _ = await connection.result(frame.execute.command_id, next_seq=len(got))
        assert WINDOW + len(stdout) == finished.stdout_summary.total_bytes == MIB - 48_576
        assert finished.stdout_summary.cut_bytes == 0


async def test_a_command_that_is_held_up_does_not_hold_up_another(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any
) -> None:
    """One floods and gets no credit; another comes and goes."""
    async with dial(stub_kubectl('[ "$1" = logs ] && exec yes\necho quick')):
        connection = await broker.connection()
        await connection.welcome()
        flood, quick = execute("logs", "x", live=True), execute("get", "pods", live=True)
        await connection.send(flood)
        await output(connection, WINDOW)
        await connection.send(quick)
        _, stdout, _ = await connection.result(quick.execute.command_id)
        assert stdout == b"quick\n"
        await connection.send(cancel(flood.execute.command_id))


async def test_at_the_deadline_a_held_up_command_gives_what_it_has(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any, pass_time: Any
) -> None:
    """Killed although nobody reads; the rest of its output and its end follow with credit."""
    async with dial(stub_kubectl("exec yes")):
        connection = await broker.connection()
        await connection.welcome(heartbeat_interval_s=0.1)
        frame = execute("logs", "x", live=True)
        await connection.send(frame)
        got = await output(connection, WINDOW)
        pass_time(frame.execute.timeout_s)
        await until_nothing_runs(connection)
        for piece in got:
            await connection.grant(piece)
        finished, stdout, _ = await connection.result(frame.execute.command_id, next_seq=len(got))
        assert finished.outcome == command_pb2.OUTCOME_TIMED_OUT
        assert finished.stdout_summary.total_bytes == WINDOW + len(stdout) <= WINDOW + MIB


async def test_a_broken_connection_costs_no_output(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any, open_gate: Any
) -> None:
    """What the broker has is not sent again, what it has not is; what came meanwhile follows."""
    async with dial(stub_kubectl("echo one; gate two; echo two; gate three; echo three")):
        connection = await broker.connection()
        await connection.welcome()
        frame = execute(live=True)
        await connection.send(frame)
        assert [piece.data for piece in await output(connection, 4)] == [b"one\n"]
        open_gate("two")
        assert [piece.data for piece in await output(connection, 4)] == [b"two\n"]
        connection.end()
        open_gate("three")
        connection = await broker.connection()
        await connection.welcome(verdict=KEEP, next_seq=1)
        _, stdout, _ = await connection.result(frame.execute.command_id, next_seq=1)
        assert stdout == b"two\nthree\n"


async def test_output_that_cannot_be_continued_ends_the_command(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any
) -> None:
    """Another broker that has nothing of it, after the first had taken some: no gap, but an end that says why."""
    async with dial(stub_kubectl("echo one; sleep 60")):
        connection = await broker.connection()
        await connection.welcome()
        frame = execute("logs", "-f", "x", live=True)
        await connection.send(frame)
        (piece,) = await output(connection, 4)
        await connection.grant(piece)
        await connection.send(execute("version"))  # so that the credit has arrived
        await connection.expect("accepted")
        connection.end()
        connection = await broker.connection()
        await connection.welcome(verdict=KEEP, next_seq=0)
        finished, stdout, _ = await connection.result(frame.execute.command_id)
        assert stdout == b""
        assert "cannot be continued" in finished.error.message


async def test_eight_large_results_do_not_stand_before_a_small_one(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any
) -> None:
    """Their windows are all that goes before it; what they still have waits for credit."""
    async with dial(stub_kubectl('[ "$1" = logs ] && exec head -c 1048576 /dev/zero\necho quick')):
        connection = await broker.connection()
        await connection.welcome(heartbeat_interval_s=0.1)
        await connection.send(*(execute("logs", f"x{index}") for index in range(8)))
        got = await output(connection, limits.STREAM_CREDIT_BYTES)
        quick = execute("get", "pods")
        await connection.send(quick)
        await connection.expect("accepted")
        await connection.expect("started")
        await until_nothing_runs(connection)  # it waits for its turn
        await connection.send(wire.BrokerFrame(credit=wire.Credit(bytes=limits.MAX_FRAME_BYTES * 8 + 100)))
        before = 0
        while (frame := await connection.frame()).finished.command_id != quick.execute.command_id:
            before += len(frame.output.data)
        assert sum(len(piece.data) for piece in got) == limits.STREAM_CREDIT_BYTES
        assert before <= 8 * limits.MAX_FRAME_BYTES + 100


async def test_activity_speeds_the_heartbeats_up(broker: Any, dial: Any, stub_kubectl: Any, monkeypatch: Any) -> None:
    """At once, not only after the slow one that is due."""
    monkeypatch.setattr(Activity, "beat_s", lambda self, *_, now, **__: 0.05 if self.active(now) else 3600.0)
    async with dial(stub_kubectl("exit")):
        connection = await broker.connection()
        await connection.welcome()
        await connection.expect("heartbeat")
        await connection.send(wire.BrokerFrame(activity=wire.Activity(active_for_s=60.0)))
        await connection.expect("heartbeat")
