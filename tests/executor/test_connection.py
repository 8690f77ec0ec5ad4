"""One connection, against a broker that does what the test says."""

import asyncio
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from openline import ids, versions
from openline.reasons import NO, YES, Reason
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire
from tests.programs import until

KEEP, DROP, STORED = wire.VERDICT_ACTION_KEEP, wire.VERDICT_ACTION_DROP, wire.VERDICT_ACTION_STORED


@pytest.fixture(autouse=True)
def fresh_logs() -> None:
    """Lines can be captured, whatever other tests have set up."""
    structlog.reset_defaults()


def cancel(command_id: str) -> wire.BrokerFrame:
    return wire.BrokerFrame(cancel=wire.Cancel(command_id=command_id, why="not needed"))


def ack(command_id: str) -> wire.BrokerFrame:
    return wire.BrokerFrame(result_ack=wire.ResultAck(command_id=command_id))


async def test_nothing_is_written_between_hello_and_welcome(broker: Any, dial: Any, stub_kubectl: Any) -> None:
    """Hello comes first and alone, with the token in the metadata; the rest waits for Welcome."""
    async with dial(stub_kubectl("exit")):
        connection = await broker.connection()
        assert connection.metadata["authorization"] == "Bearer the-token-of-local"
        hello = (await connection.frame()).hello
        assert hello.cluster_id == "local"
        early = asyncio.create_task(connection.frame())
        done, _ = await asyncio.wait({early}, timeout=0.2)
        assert not done
        welcome = wire.Welcome(protocol_version=1, heartbeat_interval_s=0.05, heartbeat_timeout_s=10.0)
        await connection.send(wire.BrokerFrame(welcome=welcome))
        assert (await early).heartbeat.seq == 1
        assert (await connection.frame()).heartbeat.seq == 2


async def test_an_execute_in_the_message_of_the_welcome_is_run(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any
) -> None:
    """A batch may hold Welcome and what follows it."""
    async with dial(stub_kubectl("echo hi")):
        connection = await broker.connection()
        await connection.expect("hello")
        frame = execute()
        await connection.send(wire.BrokerFrame(welcome=wire.Welcome(protocol_version=1)), frame)
        _, stdout, _ = await connection.result(frame.execute.command_id)
        assert stdout == b"hi\n"


async def test_heartbeats_say_how_much_runs_and_waits(broker: Any, dial: Any, stub_kubectl: Any, execute: Any) -> None:
    async with dial(stub_kubectl("sleep 60"), "--max-concurrency", "1"):
        connection = await broker.connection()
        await connection.welcome(heartbeat_interval_s=0.05)
        await connection.send(execute(), execute(), execute())
        async with asyncio.timeout(60):
            while True:
                beat = (await connection.frame()).heartbeat
                if (beat.running, beat.queued) == (1, 2):
                    break


async def test_slow_and_quick_commands_overlap(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any, open_gate: Any
) -> None:
    """A slow command does not hold up ten quick ones."""
    async with dial(stub_kubectl('[ "$2" = --namespace=slow ] && gate slow\necho "$2"')):
        connection = await broker.connection()
        await connection.welcome()
        slow = execute("get", "-n", "slow")
        quick = [execute("get", "-n", f"q{index}") for index in range(10)]
        await connection.send(slow, *quick)
        over = set()
        while len(over) < 10:
            frame = await connection.frame()
            if frame.HasField("finished"):
                over.add(frame.finished.command_id)
        assert over == {frame.execute.command_id for frame in quick}
        open_gate("slow")
        await connection.result(slow.execute.command_id)


async def test_a_duplicate_is_not_run_twice(broker: Any, dial: Any, stub_kubectl: Any, execute: Any) -> None:
    """While it runs, when it has finished, and after the acknowledgement: one run, and an answer each time."""
    kubectl = stub_kubectl("echo run >>$LOG; sleep 0.2; echo out")
    async with dial(kubectl):
        connection = await broker.connection()
        await connection.welcome()
        frame = execute()
        command_id = frame.execute.command_id
        await connection.send(frame, frame)
        first = await connection.result(command_id)
        await connection.send(frame)
        again = await connection.result(command_id)
        assert first[1] == again[1] == b"out\n"
        await connection.send(ack(command_id), frame)
        rejected = (await connection.expect("rejected")).rejected
        assert (rejected.error.reason, rejected.error.executed) == (Reason.RESULT_EXPIRED, YES)
    assert kubectl.with_name("log").read_text() == "run\n"


async def test_the_policy_is_asked(broker: Any, dial: Any, stub_kubectl: Any, execute: Any) -> None:
    """A denied command is Rejected with a structured error and never runs."""
    kubectl = stub_kubectl("echo run >>$LOG")
    async with dial(kubectl):
        connection = await broker.connection()
        await connection.welcome()
        await connection.send(execute("delete", "pods", "--all"))
        rejected = (await connection.expect("rejected")).rejected
        assert (rejected.error.reason, rejected.error.executed) == (Reason.POLICY_DENIED, NO)
        assert rejected.error.metadata["rule"] == "verb"
    assert not kubectl.with_name("log").exists()


async def test_overload_is_refused(broker: Any, dial: Any, stub_kubectl: Any, execute: Any) -> None:
    """One runs, four wait, the sixth is told to come back; nothing that was accepted is lost."""
    async with dial(stub_kubectl("sleep 0.2"), "--max-concurrency", "1"):
        connection = await broker.connection()
        await connection.welcome()
        frames = [execute() for _ in range(6)]
        await connection.send(*frames)
        finished, rejected = set(), []
        while len(finished) < 5:
            frame = await connection.frame()
            if frame.HasField("finished"):
                finished.add(frame.finished.command_id)
            if frame.HasField("rejected"):
                rejected.append(frame.rejected)
        assert [r.command_id for r in rejected] == [frames[5].execute.command_id]
        assert rejected[0].error.reason == Reason.CLUSTER_BUSY
        assert rejected[0].error.retry_after_s > 0


async def test_at_the_deadline_the_group_is_killed(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any, pass_time: Any
) -> None:
    """Also a process that ignores TERM and has children; the caller gets the output so far."""
    kubectl = stub_kubectl("trap '' TERM; echo so far; (trap '' TERM; sleep 60) & touch $LOG; sleep 60")
    async with dial(kubectl):
        connection = await broker.connection()
        await connection.welcome()
        frame = execute()
        await connection.send(frame)
        await until(kubectl.with_name("log").exists)
        pass_time(frame.execute.timeout_s)
        finished, stdout, _ = await connection.result(frame.execute.command_id)
        assert (finished.outcome, stdout) == (command_pb2.OUTCOME_TIMED_OUT, b"so far\n")
        assert (finished.error.reason, finished.error.executed) == (Reason.COMMAND_TIMEOUT, YES)
        assert finished.timings.run_s < 30


async def test_cancel_reaches_the_process(broker: Any, dial: Any, stub_kubectl: Any, execute: Any) -> None:
    """Running: killed. Waiting: never started."""
    async with dial(stub_kubectl("sleep 60"), "--max-concurrency", "1"):
        connection = await broker.connection()
        await connection.welcome()
        running, waiting = execute(), execute()
        await connection.send(running, waiting)
        await connection.expect("accepted")
        await connection.expect("accepted")
        await connection.expect("started")
        await connection.send(cancel(waiting.execute.command_id), cancel(running.execute.command_id))
        unstarted, _, _ = await connection.result(waiting.execute.command_id)
        killed, _, _ = await connection.result(running.execute.command_id)
        assert unstarted.outcome == killed.outcome == command_pb2.OUTCOME_CANCELLED
        assert (unstarted.error.executed, killed.error.executed) == (NO, YES)


async def test_kubectl_that_has_vanished(broker: Any, dial: Any, stub_kubectl: Any, execute: Any) -> None:
    """The command ends as refused, not executed; the line stays."""
    kubectl = stub_kubectl("exit")
    async with dial(kubectl):
        connection = await broker.connection()
        await connection.welcome()
        kubectl.unlink()
        frame = execute()
        await connection.send(frame)
        finished, _, _ = await connection.result(frame.execute.command_id)
        assert finished.outcome == command_pb2.OUTCOME_REJECTED
        assert (finished.error.reason, finished.error.executed) == (Reason.EXECUTOR_FAILED, NO)


async def test_a_flood_is_cut_to_the_cap(broker: Any, dial: Any, stub_kubectl: Any, execute: Any) -> None:
    """64 MiB from one command: the cap arrives in bounded frames, and exact counts of the rest."""
    async with dial(stub_kubectl("yes | head -c 67108864")):
        connection = await broker.connection()
        await connection.welcome()
        frame = execute(max_bytes=300_000)
        await connection.send(frame)
        finished, stdout, _ = await connection.result(frame.execute.command_id)
        assert len(stdout) == 300_000
        assert finished.stdout_summary.total_bytes == 64 << 20
        assert finished.stdout_summary.cut_bytes == (64 << 20) - 300_000


async def test_a_result_is_handed_over_again_until_it_is_acknowledged(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any
) -> None:
    """The connection breaks before ResultAck: the next Hello lists the result and it follows Welcome."""
    kubectl = stub_kubectl("echo run >>$LOG; echo out")
    async with dial(kubectl):
        connection = await broker.connection()
        await connection.welcome()
        frame = execute()
        command_id = frame.execute.command_id
        await connection.send(frame)
        for _ in range(2):
            finished, stdout, _ = await connection.result(command_id)
            assert (finished.exit_code, stdout) == (0, b"out\n")
            connection.end()
            connection = await broker.connection()
            hello = await connection.welcome(verdict=KEEP)
            assert list(hello.unacked_ids) == [command_id]
        await connection.result(command_id)
        await connection.send(ack(command_id), execute("version", command_id=(marker := ids.new_id())))
        await connection.result(marker)
        await connection.send(ack(marker), wire.BrokerFrame(go_away=wire.GoAway(drain_deadline_s=5.0)))
        await connection.until_closed()
        connection.end()
        assert not (await (await broker.connection()).welcome()).unacked_ids
    assert kubectl.with_name("log").read_text() == "run\nrun\n"  # one for each id


async def test_a_command_runs_on_while_the_connection_is_away(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any, open_gate: Any
) -> None:
    """Listed as in flight, kept, and its result arrives on the new connection."""
    async with dial(stub_kubectl("gate end; echo out")):
        connection = await broker.connection()
        await connection.welcome()
        frame = execute()
        await connection.send(frame)
        await connection.expect("accepted")
        connection.end()
        connection = await broker.connection()
        hello = await connection.welcome(verdict=KEEP)
        assert list(hello.in_flight_ids) == [frame.execute.command_id]
        open_gate("end")
        _, stdout, _ = await connection.result(frame.execute.command_id)
        assert stdout == b"out\n"


async def test_what_nobody_waits_for_is_killed(broker: Any, dial: Any, stub_kubectl: Any, execute: Any) -> None:
    """Verdict DROP: the process ends, no Finished comes, and its place is free."""
    async with dial(stub_kubectl('[ "$1" = get ] && sleep 60\necho quick'), "--max-concurrency", "1"):
        connection = await broker.connection()
        await connection.welcome()
        await connection.send(execute("get", "pods"))
        await connection.expect("accepted")
        await connection.expect("started")
        connection.end()
        connection = await broker.connection()
        await connection.welcome(verdict=DROP)
        frame = execute("version")
        await connection.send(frame)
        for kind in ("accepted", "started", "output", "finished"):
            await connection.expect(kind)


async def test_what_is_stored_is_not_sent_again(broker: Any, dial: Any, stub_kubectl: Any, execute: Any) -> None:
    async with dial(stub_kubectl("echo out")):
        connection = await broker.connection()
        await connection.welcome()
        frame = execute()
        await connection.send(frame)
        await connection.result(frame.execute.command_id)
        connection.end()
        connection = await broker.connection()
        await connection.welcome(verdict=STORED)
        await connection.send(execute("version"))
        await connection.expect("accepted")  # and not what was before


async def test_a_frozen_broker_is_noticed(broker: Any, dial: Any, stub_kubectl: Any) -> None:
    """A broker that says nothing for the agreed time is left, although its socket is open."""
    async with dial(stub_kubectl("exit")) as link:
        frozen = await broker.connection()
        await frozen.welcome(heartbeat_interval_s=0.1, heartbeat_timeout_s=0.3)
        again = await broker.connection()
        await again.welcome()
        await again.expect("heartbeat")
        assert link.connected


async def test_go_away_waits_for_what_runs(broker: Any, dial: Any, stub_kubectl: Any, execute: Any) -> None:
    """The result still goes over the old connection; after its ResultAck the executor closes and dials again."""
    async with dial(stub_kubectl("sleep 0.3; echo out")):
        connection = await broker.connection()
        await connection.welcome()
        frame = execute()
        away = wire.GoAway(reason="stopping", reconnect_after_s=0.05, drain_deadline_s=10.0)
        await connection.send(frame, wire.BrokerFrame(go_away=away))
        _, stdout, _ = await connection.result(frame.execute.command_id)
        assert stdout == b"out\n"
        await connection.send(ack(frame.execute.command_id))
        await connection.until_closed()
        connection.end()
        await (await broker.connection()).welcome()


async def test_go_away_has_a_deadline(broker: Any, dial: Any, stub_kubectl: Any, execute: Any) -> None:
    """What runs longer than that is handed over on the next connection."""
    async with dial(stub_kubectl("sleep 0.6; echo out")):
        connection = await broker.connection()
        await connection.welcome()
        frame = execute()
        await connection.send(frame, wire.BrokerFrame(go_away=wire.GoAway(drain_deadline_s=0.1)))
        await connection.until_closed()
        connection.end()
        connection = await broker.connection()
        await connection.welcome(verdict=KEEP)
        _, stdout, _ = await connection.result(frame.execute.command_id)
        assert stdout == b"out\n"


async def test_unknown_and_strange_frames_cost_nothing(broker: Any, dial: Any, stub_kubectl: Any, execute: Any) -> None:
    """A frame of a newer contract, frames about unknown commands, a second Welcome: the line stays, and the first are
    counted."""
    with capture_logs() as lines:
        await _be_strange(broker, dial(stub_kubectl("echo out")), execute)
    assert [line["unknown_frames"] for line in lines if line["event"] == "connection.closed"] == [2]


async def _be_strange(broker: Any, dialing: Any, execute: Any) -> None:
    async with dialing:
        connection = await broker.connection()
        await connection.welcome()
        frame = execute()
        await connection.send(
            wire.BrokerFrame.FromString(b"\xfa\x3e\x02hi"),  # field 1007
            wire.BrokerFrame(),
            cancel("nobody"),
            ack("nobody"),
            wire.BrokerFrame(credit=wire.Credit(bytes=1)),
            wire.BrokerFrame(activity=wire.Activity(active_for_s=60.0)),
            wire.BrokerFrame(heartbeat_ack=wire.HeartbeatAck(seq=99)),
            wire.BrokerFrame(welcome=wire.Welcome()),
            frame,
        )
        _, stdout, _ = await connection.result(frame.execute.command_id)
        assert stdout == b"out\n"


@pytest.mark.parametrize("chosen", [1, 2])
async def test_the_broker_chooses_among_the_versions_that_are_spoken(
    broker: Any, dial: Any, stub_kubectl: Any, monkeypatch: pytest.MonkeyPatch, chosen: int
) -> None:
    """Hello says the lowest in the field that 0.1.0 knows, and the highest; what was chosen is in the log."""
    monkeypatch.setattr(versions, "SPOKEN", versions.Spoken(1, 2))
    with capture_logs() as lines:
        async with dial(stub_kubectl("exit")):
            connection = await broker.connection()
            hello = (await connection.expect("hello")).hello
            assert (hello.protocol_version, hello.max_protocol_version) == (1, 2)
            await connection.send(wire.BrokerFrame(welcome=wire.Welcome(protocol_version=chosen)))
            await connection.expect("heartbeat")
    assert [line["protocol"] for line in lines if line["event"] == "connection.opened"] == [chosen]


async def test_a_verdict_of_a_newer_contract_keeps_the_command(
    broker: Any, dial: Any, stub_kubectl: Any, execute: Any
) -> None:
    """What it asks for is not known here; the result is handed over, which is never wrong."""
    async with dial(stub_kubectl("sleep 0.3; echo out")):
        connection = await broker.connection()
        await connection.welcome()
        frame = execute()
        await connection.send(frame)
        await connection.expect("accepted")
        connection.end()
        connection = await broker.connection()
        await connection.welcome(verdict=99)
        _, stdout, _ = await connection.result(frame.execute.command_id)
        assert stdout == b"out\n"


async def test_a_welcome_of_nonsense_is_survived(broker: Any, dial: Any, stub_kubectl: Any, execute: Any) -> None:
    """Durations that are no numbers or endless are replaced by the defaults."""
    async with dial(stub_kubectl("echo out")):
        connection = await broker.connection()
        await connection.expect("hello")
        welcome = wire.Welcome(protocol_version=1, heartbeat_interval_s=float("nan"), heartbeat_timeout_s=float("inf"))
        welcome.reconnect.min_s = float("inf")
        welcome.limits.max_frame_bytes = 1 << 63
        frame = execute(timeout_s=float("inf"))
        await connection.send(wire.BrokerFrame(welcome=welcome), frame)
        _, stdout, _ = await connection.result(frame.execute.command_id)
        assert stdout == b"out\n"
