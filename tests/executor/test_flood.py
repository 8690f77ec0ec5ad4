"""A flood from one command: what it may cost the executor and the others. Bounds and order; `e2e/flood.py` measures."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = str(Path(sys.executable).with_name("openline-executor"))
KUBECTL = """case "$1" in
version) echo '{"clientVersion":{"gitVersion":"v1.99.0"}}' ;;
logs) exec head -c "$2" /dev/zero ;;
*) echo quick ;;
esac"""
MIB = 1 << 20
QUICK = 20


def memory_mib(pid: int, name: str) -> float:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status[name].split()[0]) / 1024


@pytest.mark.parametrize(("live", "flood_mib"), [(True, 192), (False, 256)], ids=["live", "cut"])
async def test_a_flood_is_bounded_and_others_overtake_it(
    broker: Any, stub_kubectl: Any, execute: Any, live: bool, flood_mib: int
) -> None:
    """Every byte is counted, live ones arrive, other commands come and go meanwhile, and memory stays."""
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *("--broker", broker.address, "--cluster-id", "local", "--token", "the-token-of-local", "--log-level", "error"),
        *("--kubectl", str(stub_kubectl(KUBECTL))),
    )
    try:
        connection = await broker.connection()
        await connection.welcome()
        warm = execute()
        await connection.send(warm)
        await connection.result(warm.execute.command_id)
        before = memory_mib(process.pid, "VmRSS")

        flood = execute("logs", str(flood_mib * MIB), live=live, timeout_s=100.0)
        quick = [execute() for _ in range(QUICK)]
        await connection.send(flood, quick[0])
        over: list[str] = []
        arrived = 0
        while flood.execute.command_id not in over:
            frame = await connection.frame()
            match frame.WhichOneof("frame"):
                case "output":
                    await connection.grant(frame.output)
                    if frame.output.command_id == flood.execute.command_id:
                        arrived += len(frame.output.data)
                case "finished":
                    over.append(frame.finished.command_id)
                    finished = frame.finished
                    if len(over) < QUICK and finished.command_id != flood.execute.command_id:
                        await connection.send(quick[len(over)])
        assert over[-1] == flood.execute.command_id
        assert len(over) > (QUICK if live else 3)
        assert finished.stdout_summary.total_bytes == flood_mib * MIB
        assert arrived == (flood_mib * MIB if live else MIB)
        assert finished.stdout_summary.cut_bytes == flood_mib * MIB - arrived
        assert memory_mib(process.pid, "VmHWM") - before < 32
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
