"""The real kubectl against the real server: one for the whole session, because nothing can be written to it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import pytest_asyncio

from demo.kubectl import kubectl_path
from demo.kubernetes.server import ApiServer, serve

KUBECTL_S = 20.0


Kubectl = Callable[..., Coroutine[None, None, CompletedProcess[str]]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ApiServer]:
    async with serve(directory=tmp_path_factory.mktemp("kubernetes")) as server:
        yield server


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def kubectl(server: ApiServer, home: Path) -> Kubectl:
    """Runs kubectl as the executor would, or with `admin=True` as the admin; it inherits no environment."""

    async def run(*args: str, admin: bool = False) -> CompletedProcess[str]:
        config = server.admin_kubeconfig if admin else server.kubeconfig
        process = await asyncio.create_subprocess_exec(
            str(kubectl_path()),
            *args,
            env={"HOME": str(home), "KUBECONFIG": str(config), "TZ": "UTC"},
            cwd=home,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(KUBECTL_S):
                stdout, stderr = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return CompletedProcess(args, process.returncode, stdout.decode(), stderr.decode())

    return run
