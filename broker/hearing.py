"""Hears who is connected to the other replicas, and which replicas there are; the directory is made of it.

What changes is published and heard at once. Everything is read anew every few seconds, since news can be missed.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import aclosing, suppress
from time import monotonic

from broker.core.connections import Connections
from broker.core.directory import Directory
from broker.core.proof import Proof
from broker.presence import Presence
from broker.replicated import FIRST_LOOK_S
from broker.rpc.peers import Peers
from broker.store.news import Change
from broker.store.presence import PresenceRecords
from openline.errors import OpenlineError
from openline.ids import new_id
from openline.v1 import cluster_service_pb2

# To find that Redis has come back empty, and which replicas there are.
LOOK_EVERY_S = 1.0
# To find what was missed, and how loaded executors are.
READ_EVERY_S = 10.0
# A Redis that comes back, maybe empty, is told all again within this; whoever it lacks until then may be there.
TOLD_AGAIN_S = 2 * LOOK_EVERY_S + 1.0


class Hearing:
    """`news` is called with a cluster of which the directory may say something new."""

    def __init__(
        self,
        connections: Connections,
        directory: Directory,
        records: PresenceRecords,
        presence: Presence,
        peers: Peers,
        proof: Proof,
        *,
        clusters: Callable[[], Collection[str]],
        agrees_on_secret: bool,
    ) -> None:
        self._connections = connections
        self._directory = directory
        self._records = records
        self._presence = presence
        self._peers = peers
        self._proof = proof
        self._clusters = clusters
        self._agrees_on_secret = agrees_on_secret
        # What Redis had the last time; another one is another Redis, or an empty one.
        self._mark = ""
        self._whole_at = 0.0
        self._read_now = asyncio.Event()
        # The other replicas, as they were read last.
        self.replicas: list[cluster_service_pb2.Replica] = []
        self.news: Callable[[str], None] = lambda _cluster_id: None

    @property
    def is_whole(self) -> bool:
        """Whether whoever Redis lacks is gone."""
        return monotonic() > self._whole_at

    def not_in_redis(self, cluster_id: str) -> list[cluster_service_pb2.ConnectedExecutor]:
        """Who is connected to other replicas while Redis may lack them, as far as it is known here."""
        return [] if self.is_whole else self._directory.reachable(cluster_id)

    def read_again(self) -> None:
        """Redis is back: what it says may have changed meanwhile."""
        self._read_now.set()

    async def begin(self) -> None:
        """Agrees on the secret, if Redis answers: before an executor comes with what another replica has sent it."""
        if not self._agrees_on_secret:
            return
        with suppress(OpenlineError, TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_S):
                await self._meet()

    async def run(self) -> None:
        """Until it is cancelled by its owner."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_forever(), name="presence-read")
            tasks.create_task(self._listen_forever(), name="presence-listen")

    async def _read_forever(self) -> None:
        read_at = monotonic()
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._read_now.wait()
                    read_at = monotonic()
            except TimeoutError:
                pass
            self._read_now.clear()
            try:
                await self._look()
                if monotonic() >= read_at:
                    await self._read()
                    read_at = monotonic() + (READ_EVERY_S if self.is_whole else TOLD_AGAIN_S)
            except OpenlineError:  # what is known stays
                self._whole_at = monotonic() + TOLD_AGAIN_S

    async def _look(self) -> None:
        mark = await self._meet()
        if mark != self._mark:
            self._mark = mark
            self._whole_at = monotonic() + TOLD_AGAIN_S
            self._presence.write_again()
        known = await self._records.read_replicas()
        self.replicas = [each for each in known if each.replica_id != self._presence.replica_id]
        await self._peers.know(self.replicas)

    async def _meet(self) -> str:
        """The mark that Redis has."""
        # A new one, which an empty Redis takes: with the one before it would look as if nothing had been lost.
        proposal = self._proof.secret if self._agrees_on_secret else None
        mark, secret = await self._records.meet(new_id(), proposal)
        if self._agrees_on_secret:
            self._proof.agree(secret)
        return mark

    async def _read(self) -> None:
        cluster_ids = sorted(self._clusters())
        present = dict(zip(cluster_ids, await self._records.read(cluster_ids), strict=True))
        self._directory.refresh(present, now=monotonic(), is_whole=self.is_whole)
        for cluster_id, executors in present.items():
            for executor in executors:
                self._look_for_newer(cluster_id, executor)
        self.news_of_all()

    async def _listen_forever(self) -> None:
        async with aclosing(self._records.subscribe()) as changes:
            async for change in changes:
                if change is None:
                    self._read_now.set()
                else:
                    self._heard(change)

    def _heard(self, change: Change) -> None:
        cluster_id, executor, now = change.cluster_id, change.executor, monotonic()
        if change.present:
            self._directory.learn(cluster_id, executor, now=now)
            self._look_for_newer(cluster_id, executor)
        else:
            self._directory.unlearn(cluster_id, executor.executor_id, epoch=executor.epoch, now=now)
        self.news(cluster_id)

    def news_of_all(self) -> None:
        """For every cluster of which something may wait here."""
        for cluster_id in sorted(self._clusters()):
            self.news(cluster_id)

    def _look_for_newer(self, cluster_id: str, executor: cluster_service_pb2.ConnectedExecutor) -> None:
        """An executor that is connected elsewhere has left this replica, whatever its socket here says."""
        connection = self._connections.of_executor(cluster_id, executor.executor_id)
        is_elsewhere = executor.replica_id != self._presence.replica_id and not executor.moving
        if connection is not None and is_elsewhere and executor.epoch > connection.epoch:
            self._presence.superseded(connection)
