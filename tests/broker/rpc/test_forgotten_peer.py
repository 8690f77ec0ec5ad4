"""A replica that is frozen for so long that Redis has it no more: it is forgotten while others still ask it."""

import asyncio
from time import monotonic

import pytest

from broker.core.directory import Directory
from broker.core.proof import Proof
from broker.rpc.peers import NotFound, Peers
from openline import ids
from openline.channels import Dialer
from openline.settings import Address
from openline.tls import TlsFiles
from openline.v1.cluster_service_pb2 import Replica


async def test_a_peer_that_is_forgotten_while_it_is_asked_has_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks goes on; it is not taken for somebody who was told to stop."""
    monkeypatch.setattr("broker.rpc.peers.FIND_TIMEOUT_S", 60.0)

    async def never_answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closed = asyncio.get_running_loop().create_future()
        answering.append(closed)
        try:
            await forgotten.wait()
        finally:
            writer.close()
            closed.set_result(None)

    forgotten = asyncio.Event()
    answering: list[asyncio.Future[None]] = []
    peers = Peers("r1", Proof("r1"), Directory("r1"), Dialer(TlsFiles()))
    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as server, peers.kept():
        address = Address(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await peers.know([Replica(replica_id="r2", address=address)])
        asked = asyncio.create_task(peers.find(ids.new_id()))
        await asyncio.sleep(0.1)
        assert not asked.done()
        await peers.know([])
        found = await asked
        forgotten.set()
        await asyncio.gather(*answering)
        assert isinstance(found, NotFound)
        assert set(found.answered) == {"r1"}


async def test_what_was_forgotten_for_long_is_not_asked_for_any_more() -> None:
    """Also while Redis is away, when nobody says which replicas there are: no kill switch is incomplete for ever."""

    async def take(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    peers = Peers("r1", Proof("r1"), Directory("r1"), Dialer(TlsFiles()))
    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        address = Address(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        peers._vanished[address] = monotonic() + 60
        assert await peers.forgotten() == {address}
        peers._vanished[address] = monotonic() - 1
        assert await peers.forgotten() == set()
