"""The stage: programs that are started, killed and started again."""

import subprocess
import sys

from loadtest.stage import new_token, open_stage

BESIDE_GRPC = """
from loadtest.stage import open_stage

import asyncio
import grpc

async def main():
    async with open_stage() as stage, grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        channel.get_state(try_to_connect=True)
        for number in range(50):
            started = await stage.start(f"true-{number}", "/bin/true")
            async with asyncio.timeout(10):
                print(await started.process.wait())

asyncio.run(main())
"""


def test_programs_start_beside_grpc() -> None:
    """With gRPC's fork handlers on, some of them would end at once with a signal.

    In a process of its own, as a load test is: here gRPC was imported before anybody could tell it.
    """
    ran = subprocess.run([sys.executable, "-c", BESIDE_GRPC], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, set(ran.stdout.split())) == (0, {"0"}), ran.stderr


async def test_what_is_killed_is_counted_from_its_next_start_on() -> None:
    """The log of both is one file, and what was said before is not true any more."""
    async with open_stage() as stage:
        token = new_token()
        broker = await stage.broker("broker", await stage.valkey(), ["one"], token)
        await stage.executors("executors", [broker], ["one"], token, each=3)
        assert stage.connected("executors") == 3
        await stage.kill("executors")
        await stage.kill("broker")
        await stage.restart("executors")
        assert stage.connected("executors") == 0
        await stage.restart("broker")
        await stage.until("3 executors", lambda: stage.connected("executors") == 3)
