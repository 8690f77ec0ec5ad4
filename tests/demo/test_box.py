"""The box while it opens."""

import asyncio
import socket
import sys
from pathlib import Path

import pytest

from demo import box
from demo.ports import held
from demo.programs import StartFailed
from tests.programs import Program, free_port


async def test_a_port_is_its_programs_alone() -> None:
    """From when it is chosen: nobody else is given it, and the program can listen there."""
    with held(0) as port:
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", port))
        with held(0) as another:
            assert another != port
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", port) as server:
            assert server.sockets[0].getsockname()[1] == port
            with pytest.raises(StartFailed, match=f"port {port} is in use"), held(port):
                pass


async def test_a_gateway_without_brokers_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers with a problem document, whose `status` is a number: not ready, and no reason to fall over."""
    monkeypatch.setattr(box, "READY_TIMEOUT_S", 3.0)
    address = f"127.0.0.1:{free_port()}"
    program, log = Path(sys.executable).parent / "openline-gateway", tmp_path / "gateway.log"
    gateway = Program("gateway", log, program, "--listen", address, "--broker", "127.0.0.1:9", address=address)
    try:
        await gateway.start()
        with pytest.raises(StartFailed, match="did not get ready"):
            await box._until_connected(f"http://{address}", "test-key", ["local"], [])
    finally:
        gateway.close()
