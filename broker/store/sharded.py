"""A Redis Cluster: sends each command to the node that holds its key, and finds out when that has changed.

redis-py's own asyncio client of a cluster is not used. A pipeline of it returns a broken connection as if it were an
answer to the write, asks for the new map only if it may also repeat commands, and fails when its pool is empty.
"""

import asyncio
import random
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any

from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, ConnectionError, MovedError, RedisError, TimeoutError

from broker.store.secured import with_fresh_certificates
from broker.store.single import RedisCommand, connect, first, send_to
from broker.store.urls import Clustered

# How often a command is sent on to where a node says that its key is now. One hop is usual, two after a failover.
MAX_HOPS = 5
# How many nodes are asked where the slots are; the first answer will do, since a wrong one is found out.
MAX_ASKED = 4
# While a node is gone every call finds the map old: it is asked for no more often than this.
REFRESH_EVERY_S = 0.1
# What says that the map may be old.
LOST = (AskError, ClusterDownError, ConnectionError, TimeoutError, OSError)

Address = tuple[str, int]


class ShardedRedis:
    """A client for each node, and who holds which slot."""

    def __init__(self, target: Clustered) -> None:
        self._seeds = target.seeds
        self._options = with_fresh_certificates(target.options)
        self._nodes: dict[Address, Redis] = {}
        self._slots: dict[int, Address] = {}
        self._stale = True
        self._refreshed_at = float("-inf")
        self._refreshing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<ShardedRedis nodes={len(self._nodes)} stale={self._stale}>"

    async def send(self, commands: Iterable[RedisCommand]) -> list[Any]:
        """The answer to each command, an exception where there is none. Raises ConnectionError if no node is known.

        Commands with the same key are carried out in their order, unless the key is moving just now.
        """
        commands = list(commands)
        await self._refresh()
        answers: list[Any] = [ClusterDownError("no node holds the slot")] * len(commands)
        await self._deliver(commands, answers, [self._place(command) for command in commands])
        for _ in range(MAX_HOPS):
            on = [self._sent_on(answer) for answer in answers]
            if not any(on):
                break
            await self._deliver(commands, answers, on)
        if any(isinstance(answer, LOST) for answer in answers):
            self._stale = True
        return answers

    async def ping(self) -> None:
        """Raises RedisError when no node answers."""
        await (await self.node()).ping()

    async def node(self) -> Redis:
        """Some node, another one each time. Raises ConnectionError if none is known."""
        await self._refresh()
        return self._client(random.choice(list(set(self._slots.values()))))  # noqa: S311  (spreads the load)

    async def aclose(self) -> None:
        nodes, self._nodes, self._slots = list(self._nodes.values()), {}, {}
        self._stale = True
        self._refreshed_at = float("-inf")
        await asyncio.gather(*(node.aclose() for node in nodes))

    def _client(self, address: Address) -> Redis:
        if address not in self._nodes:
            host, port = address
            self._nodes[address] = connect(self._options | {"host": host, "port": port})
        return self._nodes[address]

    def _place(self, command: RedisCommand) -> tuple[Address, bool] | None:
        address = self._slots.get(key_slot(_key(command)))
        return None if address is None else (address, False)

    def _sent_on(self, answer: Any) -> tuple[Address, bool] | None:
        """Where a node says that the key is, and whether it is about to be there only."""
        if not isinstance(answer, AskError):  # MovedError is one
            return None
        address = (answer.host, int(answer.port))
        asking = not isinstance(answer, MovedError)
        if not asking:
            self._slots[answer.slot_id] = address
            self._stale = True  # it is not the only one that has moved
        return address, asking

    async def _deliver(
        self, commands: Sequence[RedisCommand], answers: list[Any], places: Sequence[tuple[Address, bool] | None]
    ) -> None:
        """Sends what has a place there, all at once, and puts in the answers."""
        parts: dict[tuple[Address, bool], list[int]] = {}
        for index, place in enumerate(places):
            if place is not None:
                parts.setdefault(place, []).append(index)
        await asyncio.gather(*(self._send_part(place, commands, answers, indexes) for place, indexes in parts.items()))

    async def _send_part(
        self, place: tuple[Address, bool], commands: Sequence[RedisCommand], answers: list[Any], indexes: Sequence[int]
    ) -> None:
        address, asking = place
        batch = [commands[index] for index in indexes]
        if asking:
            batch = [part for command in batch for part in (("ASKING",), command)]
        try:
            got = await send_to(self._client(address), batch)
        except (RedisError, OSError) as failure:
            # The other nodes' answers are still worth having.
            got = [failure] * len(batch)
        except asyncio.CancelledError:
            self._stale = True  # the caller's patience may have ended because this node is frozen
            raise
        for index, answer in zip(indexes, got[1::2] if asking else got, strict=True):
            if isinstance(answer, AskError) and not answer.host:
                answer.host = address[0]  # means: the same host, another port
            answers[index] = answer

    async def _refresh(self) -> None:
        """Finds out which node holds which slot, if that may have changed. Raises ConnectionError if nobody says."""
        if not self._is_due():
            return
        async with self._refreshing:
            if not self._is_due():
                return  # somebody else has found out meanwhile
            known = list(set(self._slots.values()) - set(self._seeds))
            asked = random.sample(known, min(len(known), MAX_ASKED)) + random.sample(
                self._seeds, min(len(self._seeds), MAX_ASKED)
            )
            found = await first([self._ask(address) for address in asked], enough=1)
            if not found:
                raise ConnectionError("no node of the Redis Cluster answers")
            self._slots = found[0]
            self._stale = False
            self._refreshed_at = monotonic()
            left = [address for address in self._nodes if address not in {*self._slots.values(), *self._seeds}]
            await asyncio.gather(*(self._nodes.pop(address).aclose() for address in left))

    def _is_due(self) -> bool:
        return self._stale and monotonic() >= self._refreshed_at + REFRESH_EVERY_S

    async def _ask(self, address: Address) -> dict[int, Address]:
        [ranges] = await send_to(self._client(address), [("CLUSTER", "SLOTS")])
        if isinstance(ranges, Exception):
            raise ranges
        slots: dict[int, Address] = {}
        for begin, end, (host, port, *_), *_replicas in ranges:
            # A node that does not know its own host is reached as it was.
            primary = (host.decode() if host else address[0], int(port))
            slots.update(dict.fromkeys(range(begin, min(end + 1, REDIS_CLUSTER_HASH_SLOTS)), primary))
        if not slots:
            raise ClusterDownError("it holds no slots")
        return slots


def _key(command: RedisCommand) -> bytes:
    """The key that a command is about: ours have one each, and no other command is sent here."""
    key = command[3 if command[0] == "EVAL" else 1]
    return key if isinstance(key, bytes) else str(key).encode()
