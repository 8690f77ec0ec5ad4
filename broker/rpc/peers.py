"""The other replicas: a pipe to each that is known, kept open, and who of them knows a command."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from time import monotonic

import structlog

from broker.core import whereabouts
from broker.core.directory import Directory
from broker.core.proof import METADATA_KEY, Proof
from broker.rpc.finding import FIND_TIMEOUT_S, Found, NotFound, Wanted, answers, is_gone
from broker.rpc.peer import A, Method, Peer, Q
from openline.calls import broker_unavailable
from openline.channels import Dialer, FreshChannel
from openline.errors import OpenlineError
from openline.limits import MAX_TIMEOUT_S, MAX_WAIT_FOR_CLUSTER_S, RECONNECT_MIN_S
from openline.pipe import Pipe
from openline.reasons import NO
from openline.settings import Address
from openline.v1 import cluster_service_pb2, command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1.command_service_pb2_grpc import CommandServiceStub

CommandEvents = AsyncGenerator[command_pb2.CommandEvent, None]

# So many look-ups at one time: a replica that was killed may have had thousands of commands.
MAX_FINDING = 64
CANCEL_TIMEOUT_S = 5.0
# No command lives longer.
LONGEST_WATCH_S = MAX_TIMEOUT_S + MAX_WAIT_FOR_CLUSTER_S + 60.0
RECONNECT_MAX_S = 2.0
# So long after a pipe has broken, its replica counts as one that was there a moment ago.
HEALTHY_AFTER_S = 10.0
# A replica that went without a word is remembered for so long: it may have had a command in its queue.
VANISHED_S = 120.0
# More replicas than anybody runs: what Redis says is believed within bounds.
MAX_PEERS = 256

log = structlog.get_logger()


class Peers:
    """Known by what Redis says of replicas. `news` is called when one was reached or lost."""

    def __init__(self, replica_id: str, proof: Proof, directory: Directory, dialer: Dialer) -> None:
        self._replica_id = replica_id
        self._proof = proof
        self._directory = directory
        self._dialer = dialer
        self._peers: dict[str, Peer] = {}
        self._finding = asyncio.Semaphore(MAX_FINDING)
        # When this process began.
        self.began_us = time.time_ns() // 1000
        # Where replicas were that Redis has forgotten, and until when that is remembered: one may be frozen, and go on.
        self._vanished: dict[Address, float] = {}
        # Set and replaced whenever a pipe has opened.
        self._opened = asyncio.Event()
        self.news: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<Peers {' '.join(f'{peer.replica_id}={peer.pipe!r}' for peer in self._peers.values())}>"

    @property
    def reachable(self) -> list[str]:
        """The replicas that answer now."""
        return [peer.replica_id for peer in self._peers.values() if peer.open_pipe is not None]

    @property
    def known(self) -> list[str]:
        """The replicas that there are, whether they answer or not."""
        return list(self._peers)

    async def forgotten(self) -> set[str]:
        """Where replicas still listen that Redis has forgotten a while ago."""
        # With Redis away nobody else looks whether it was too long ago.
        now = monotonic()
        addresses = [address for address, until in self._vanished.items() if until > now]
        are_gone = await asyncio.gather(*map(is_gone, addresses))
        return {address for address, gone in zip(addresses, are_gone, strict=True) if not gone}

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Pipes are kept open inside of this."""
        try:
            yield
        finally:
            gone, self._peers = list(self._peers.values()), {}
            await asyncio.gather(*(peer.close() for peer in gone))

    async def know(self, replicas: Sequence[cluster_service_pb2.Replica]) -> None:
        """These replicas there are; pipes to others are closed."""
        wanted = {each.replica_id: Address(each.address) for each in replicas if each.replica_id != self._replica_id}
        # One that answers is there, whatever a Redis says that has just come back empty.
        gone = [
            peer
            for peer in self._peers.values()
            if wanted.get(peer.replica_id, peer.address if peer.pipe is not None else "") != peer.address
        ]
        now = monotonic()
        self._vanished = {address: until for address, until in self._vanished.items() if until > now}
        for peer in gone:
            del self._peers[peer.replica_id]
            if not peer.has_left and peer.replica_id not in wanted:
                self._vanished[peer.address] = now + VANISHED_S
        for replica_id in sorted(wanted.keys() - self._peers.keys())[: MAX_PEERS - len(self._peers)]:
            address = wanted[replica_id]
            peer = Peer(replica_id, address, FreshChannel(address, self._dialer))
            self._peers[replica_id] = peer
            if self._dialer.files is None and not address.is_loopback:
                log.warning("plaintext.allowed", peer=replica_id, address=address)
            peer.keeper = asyncio.create_task(self._keep_open(peer), name=f"peer {replica_id}")
            self._vanished.pop(peer.address, None)
        self._directory.forget_replicas(self._peers)
        await asyncio.gather(*(peer.close() for peer in gone))

    async def pipe(self, replica_id: str, *, timeout_s: float) -> Pipe:
        """An open pipe to this replica. Raises BROKER_UNAVAILABLE when there is none in time."""
        until = monotonic() + timeout_s
        while True:
            peer = self._peers.get(replica_id)
            if peer is not None and (pipe := peer.open_pipe) is not None:
                return pipe
            left_s = until - monotonic()
            if left_s <= 0:
                raise broker_unavailable(f"replica {replica_id} is out of reach", executed=NO)
            try:
                async with asyncio.timeout(left_s):
                    await self._opened.wait()
            except TimeoutError:
                continue

    async def find(self, command_id: str, *, wanted: Wanted = lambda _command: True) -> Found | NotFound:
        """Asks all of them at once whether they know a command; one that is not wanted is as good as none."""
        peers = list(self._peers.values())
        async with self._finding:
            said = await answers({peer.replica_id: self._ask(peer, command_id) for peer in peers}, wanted)
        answered = {self._replica_id: self.began_us}
        silent = set()
        for replica_id, answer in said.items():
            if isinstance(answer, command_pb2.Command):
                if wanted(answer):
                    return Found(replica_id, answer)
            elif whereabouts.has_it_not(answer, asker=self._replica_id, answerer=replica_id):
                answered[replica_id] = whereabouts.began_us(answer)
            else:
                silent.add(replica_id)
        addresses = {peer.address: peer.replica_id for peer in peers if peer.replica_id in silent}
        for address in [*addresses, *self._vanished]:
            if await is_gone(address):
                silent.discard(addresses.get(address, ""))
                self._vanished.pop(address, None)
            elif address in self._vanished:
                silent.add(address)
        return NotFound(answered, frozenset(silent))

    async def get(self, replica_id: str, request: pb.GetCommandRequest, *, timeout_s: float) -> command_pb2.Command:
        """GetCommand of that replica. Raises OpenlineError."""
        return (
            await self.ask(
                replica_id, lambda channel: CommandServiceStub(channel).GetCommand, request, timeout_s=timeout_s
            )
        ).command

    async def ask(self, replica_id: str, method: Method[Q, A], request: Q, *, timeout_s: float) -> A:
        """A unary method of that replica, under this one's proof. Raises OpenlineError."""
        peer = self._peers.get(replica_id)
        if peer is None:
            raise broker_unavailable(f"replica {replica_id} is out of reach", executed=NO)
        return await peer.ask(method, request, metadata=self._metadata(peer), timeout_s=timeout_s)

    async def watch(self, replica_id: str, command_id: str, *, from_seq: int) -> CommandEvents:
        """The events of a command that this replica has. Raises OpenlineError."""
        pipe = await self.pipe(replica_id, timeout_s=FIND_TIMEOUT_S)
        request = pb.WatchCommandRequest(command_id=command_id, from_seq=from_seq)
        forwarded = pb.Forwarded(origin_replica_id=self._replica_id)
        async with aclosing(pipe.watch(request, api_key="", timeout_s=LONGEST_WATCH_S, forwarded=forwarded)) as events:
            async for event in events:
                yield event

    async def cancel(self, replica_id: str, command_id: str, *, why: str) -> command_pb2.CommandState.ValueType:
        """Asks that replica to stop a command that it has; the state it was in. Raises OpenlineError."""
        pipe = await self.pipe(replica_id, timeout_s=FIND_TIMEOUT_S)
        request = pb.CancelCommandRequest(command_id=command_id, why=why)
        forwarded = pb.Forwarded(origin_replica_id=self._replica_id)
        return (await pipe.cancel(request, api_key="", timeout_s=CANCEL_TIMEOUT_S, forwarded=forwarded)).state

    async def _ask(self, peer: Peer, command_id: str) -> command_pb2.Command | command_pb2.Error:
        """The command, or what the peer says instead."""
        try:
            request = pb.GetCommandRequest(command_id=command_id)
            return await self.get(peer.replica_id, request, timeout_s=FIND_TIMEOUT_S)
        except OpenlineError as failure:
            return failure.error

    def _metadata(self, peer: Peer) -> tuple[tuple[str, str], ...]:
        return ((METADATA_KEY, self._proof.show(peer.replica_id, clock_s=time.time())),)

    async def _keep_open(self, peer: Peer) -> None:
        """Opens the pipe, runs it to its end, waits, and again, until the peer is not known any more."""
        bound_s = RECONNECT_MIN_S
        while True:
            metadata = self._metadata(peer)
            check = partial(self._check_welcome, metadata[0][1])
            client = f"openline-broker {self._replica_id}"
            try:
                channel = peer.way.renew()
                pipe = await Pipe.open(channel, client=client, metadata=metadata, check_welcome=check)
            except OpenlineError as failure:
                say = log.warning if bound_s == RECONNECT_MIN_S else log.debug
                say("peer.refused", peer=peer.replica_id, address=peer.address, why=failure.error.message)
            else:
                opened_at = monotonic()
                await self._carry(peer, pipe)
                if monotonic() - opened_at > HEALTHY_AFTER_S:
                    bound_s = RECONNECT_MIN_S
            self._directory.unreachable(peer.replica_id, now=monotonic())
            self.news()
            await asyncio.sleep(random.uniform(0, bound_s))  # noqa: S311  (jitter)
            bound_s = min(RECONNECT_MAX_S, 2 * bound_s)

    async def _carry(self, peer: Peer, pipe: Pipe) -> None:
        """Offers an open pipe to the commands until it ends."""
        log.info("peer.reached", peer=peer.replica_id, address=peer.address, protocol=pipe.agreed.version)
        why = "the peer ended it"
        peer.pipe = pipe
        peer.has_left = False
        self._directory.reached(peer.replica_id)
        self._opened.set()
        self._opened = asyncio.Event()
        self.news()
        try:
            await pipe.run()
        except OpenlineError as broken:
            why = broken.error.message
        finally:
            peer.pipe = None
            peer.has_left = pipe.reconnect_after_s is not None
        log.info("peer.lost", peer=peer.replica_id, address=peer.address, why=why)

    def _check_welcome(self, shown: str, welcome: pb.PipeWelcome) -> None:
        """Raises BROKER_UNAVAILABLE unless it is a replica of this installation that answers."""
        if not self._proof.is_answer(shown, welcome.peer_proof):
            raise broker_unavailable("whoever answers there has not the peer secret", executed=NO)
