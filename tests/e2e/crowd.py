"""Many executors in one process, each of a cluster of its own: the real link and the real core, /bin/true as kubectl.

`python tests/e2e/crowd.py --broker HOST:PORT,… --first 0 --count 1000` holds `crowd-0` to `crowd-999`, and prints how
many of them are connected, ten times a second.
"""

import argparse
import asyncio
import logging
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
import uvloop
from pydantic import SecretStr

from executor.commands import Commands
from executor.core import Core
from executor.kubectl import Kubectl
from executor.link import Link
from executor.pace import Pace
from executor.policy import PolicyInForce
from executor.settings import ExecutorSettings
from openline import ids, limits
from openline.policy import Policy
from openline.policy.wire import capabilities_of
from openline.settings import Address
from openline.v1 import executor_service_pb2 as wire

# As pods do that are started by hand or by a rollout.
BETWEEN_STARTS_S = 0.003


async def main(brokers: list[str], first: int, count: int) -> None:
    async with AsyncExitStack() as stages:
        home = Path(stages.enter_context(tempfile.TemporaryDirectory()))
        kubectl = Kubectl(path=Path("/bin/true"), home=home, kubeconfig=None)
        crowd: list[Link] = []
        tasks = await stages.enter_async_context(asyncio.TaskGroup())
        tasks.create_task(tell(crowd))
        for number in range(first, first + count):
            cluster_id = f"crowd-{number}"
            settings = ExecutorSettings(
                broker=tuple(map(Address, brokers)), cluster_id=cluster_id, executor_id="only",
                token=SecretStr(f"token-of-{cluster_id}"), kubectl=Path("/bin/true"),
            )  # fmt: skip
            who = wire.Hello(
                protocol_version=limits.PROTOCOL_VERSION,
                cluster_id=cluster_id,
                executor_id="only",
                instance_id=ids.new_id(),
                capabilities=capabilities_of(Policy()),
                max_concurrency=8,
            )
            core = Core(max_concurrency=8, judge=PolicyInForce().judge)
            commands = await stages.enter_async_context(Commands(core, kubectl))
            crowd.append(Link(settings, who, commands, pace=Pace()))
            tasks.create_task(crowd[-1].run())
            await asyncio.sleep(BETWEEN_STARTS_S)
        await asyncio.Event().wait()  # until it is killed


async def tell(crowd: list[Link]) -> None:
    while True:
        print(sum(link.connected for link in crowd), flush=True)  # noqa: T201
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    uvloop.run(main(given.broker.split(","), given.first, given.count))
