"""The spool across processes: a real executor that is killed and started again."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from openline.v1 import executor_service_pb2 as wire
from tests.programs import PATIENCE_S, until

PROGRAM = str(Path(sys.executable).with_name("openline-executor"))
KUBECTL = """if [ "$1" = version ]; then echo '{"clientVersion":{"gitVersion":"v1.99.0"}}'; exit 0; fi
echo run >>$LOG; head -c 200000 /dev/zero; echo err >&2; exit 3"""


async def start(broker: Any, kubectl: Path, spool: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        PROGRAM,
        *("--broker", broker.address, "--cluster-id", "local", "--token", "the-token-of-local", "--log-format", "json"),
        *("--kubectl", str(kubectl), "--spool-dir", str(spool)),
        stderr=asyncio.subprocess.PIPE,
    )


def results_in(directory: Path) -> int:
    return len(list(directory.glob("*.result")))


async def stopped(process: asyncio.subprocess.Process, how: signal.Signals) -> str:
    process.send_signal(how)
    async with asyncio.timeout(PATIENCE_S):
        _, log = await process.communicate()
    return log.decode()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_restart_hands_the_result_over(
    broker: Any, stub_kubectl: Any, execute: Any, tmp_path: Path, how: signal.Signals
) -> None:
    """Killed or stopped before ResultAck: the next instance lists the result, sends it, and erases it when told.

    It also shows the Execute with its seal, so that a replica which has never heard of the command takes it.
    """
    kubectl, spool = stub_kubectl(KUBECTL), tmp_path / "spool"
    process = await start(broker, kubectl, spool)
    connection = await broker.connection()
    first = await connection.welcome()
    frame = execute()
    frame.execute.seal = b"sealed"
    command_id = frame.execute.command_id
    await connection.send(frame)
    before = await connection.result(command_id)
    await until(lambda: results_in(spool) == 1)
    await stopped(process, how)
    connection.end()

    process = await start(broker, kubectl, spool)
    connection = await broker.connection()
    again = await connection.welcome(verdict=wire.VERDICT_ACTION_KEEP)
    assert again.instance_id != first.instance_id
    assert list(again.unacked_ids) == [command_id]
    [held] = again.held
    assert 0 < held.execute.timeout_s <= 1.0
    held.execute.timeout_s = frame.execute.timeout_s
    assert held.execute == frame.execute
    after = await connection.result(command_id)
    assert after[1:] == before[1:] == (bytes(200_000), b"err\n")
    assert after[0].exit_code == 3
    assert after[0].stdout_summary == before[0].stdout_summary
    await connection.send(wire.BrokerFrame(result_ack=wire.ResultAck(command_id=command_id)))
    await until(lambda: results_in(spool) == 0)
    await stopped(process, signal.SIGTERM)
    assert kubectl.with_name("log").read_text() == "run\n"


async def test_what_nobody_wants_any_more_is_erased(
    broker: Any, stub_kubectl: Any, execute: Any, tmp_path: Path
) -> None:
    """Verdict DROP for a result of an earlier process."""
    kubectl, spool = stub_kubectl(KUBECTL), tmp_path / "spool"
    process = await start(broker, kubectl, spool)
    connection = await broker.connection()
    await connection.welcome()
    frame = execute()
    await connection.send(frame)
    await connection.result(frame.execute.command_id)
    await until(lambda: results_in(spool) == 1)
    await stopped(process, signal.SIGKILL)
    connection.end()
    process = await start(broker, kubectl, spool)
    await (await broker.connection()).welcome(verdict=wire.VERDICT_ACTION_DROP)
    await until(lambda: results_in(spool) == 0)
    await stopped(process, signal.SIGTERM)


async def test_a_spool_that_cannot_be_had_is_one_line(broker: Any, stub_kubectl: Any, tmp_path: Path) -> None:
    """Another executor has it, or it is no directory."""
    kubectl = stub_kubectl(KUBECTL)
    process = await start(broker, kubectl, tmp_path / "spool")
    await (await broker.connection()).welcome()
    (tmp_path / "file").touch()
    for directory in (tmp_path / "spool", tmp_path / "file"):
        other = await start(broker, kubectl, directory)
        async with asyncio.timeout(PATIENCE_S):
            _, log = await other.communicate()
        assert other.returncode == 1
        assert log.startswith(b"openline-executor: --spool-dir: ")
        assert log.count(b"\n") == 1
    await stopped(process, signal.SIGTERM)
