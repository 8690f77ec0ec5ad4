"""The embedded Valkey: a real process, which leaves with the broker however that ends."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from broker.store.client import open_redis
from broker.store.embedded import EmbeddedFailed, embedded_valkey

PATIENCE_S = 20.0


async def process_id(url: str) -> int:
    redis = open_redis(url)
    try:
        info: dict[str, Any] = await redis.info("server")
        return int(info["process_id"])
    finally:
        await redis.aclose()


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until_dead(pid: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while is_alive(pid):
            await asyncio.sleep(0.02)


async def test_it_is_reached_through_a_socket_only() -> None:
    """It listens on no port, and only its owner can open the socket."""
    async with embedded_valkey(None) as url:
        assert os.stat(url.removeprefix("unix://")).st_mode & 0o077 == 0
        redis = open_redis(url)
        assert (await redis.config_get("port"))["port"] == "0"
        await redis.aclose()


async def test_what_it_keeps_is_for_its_owner_only(tmp_path: Path) -> None:
    """Results are in clear, and so is what replicas know each other by. Also in a directory that others may enter."""
    made, given = tmp_path / "made", tmp_path / "given"
    given.mkdir()
    given.chmod(0o755)
    for directory in (made, given):
        async with embedded_valkey(directory) as url:
            redis = open_redis(url)
            await redis.set("result", "of somebody")
            await redis.aclose()
        kept = [path for path in directory.rglob("*") if path.name != "lock"]
        assert [path for path in kept if path.suffix == ".aof"]
        assert [path for path in kept if path.stat().st_mode & 0o077] == []
    assert made.stat().st_mode & 0o077 == 0


async def test_no_python_runs_between_fork_and_exec(tmp_path: Path) -> None:
    """Once a garbage collection there had a channel of gRPC's to end, which waited for a thread of the parent alone."""
    told = tmp_path / "told"
    # It cannot be taken back, and does no harm.
    os.register_at_fork(after_in_child=lambda: told.parent.exists() and told.touch())
    async with embedded_valkey(None):
        assert not told.exists()


async def test_it_leaves_no_process_and_no_file() -> None:
    async with embedded_valkey(None) as url:
        pid = await process_id(url)
        assert is_alive(pid)
    assert not is_alive(pid)
    assert not Path(url.removeprefix("unix://")).parent.exists()


async def test_without_a_directory_it_keeps_nothing() -> None:
    for _ in range(2):
        async with embedded_valkey(None) as url:
            redis = open_redis(url)
            assert await redis.dbsize() == 0
            await redis.set("key", "value")
            await redis.aclose()


async def test_with_a_directory_it_keeps_its_data(tmp_path: Path) -> None:
    """Also under a path that is too long for a socket, and that does not exist yet."""
    data_dir = tmp_path / ("long" * 40) / "data"
    for kept in (None, b"value"):
        async with embedded_valkey(data_dir) as url:
            redis = open_redis(url)
            assert await redis.get("key") == kept
            await redis.set("key", "value")
            await redis.aclose()
    assert (data_dir / "valkey.log").is_file()


async def test_the_directory_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--data-dir data` is what a person types."""
    monkeypatch.chdir(tmp_path)
    async with embedded_valkey(Path("data")) as url:
        assert is_alive(await process_id(url))
    assert (tmp_path / "data" / "valkey.log").is_file()


async def test_two_brokers_cannot_have_the_same_directory(tmp_path: Path) -> None:
    """Two Valkeys that append to the same file would ruin it: the second one says so at once."""
    async with embedded_valkey(tmp_path) as url:
        with pytest.raises(EmbeddedFailed, match=str(tmp_path)):
            async with embedded_valkey(tmp_path):
                pass
        assert is_alive(await process_id(url))
    async with embedded_valkey(tmp_path):
        pass


async def test_one_that_does_not_start_says_so_at_once(tmp_path: Path) -> None:
    """With its own last words, since its log may be gone."""
    (tmp_path / "appendonlydir").write_text("not a directory")
    with pytest.raises(EmbeddedFailed, match=r"did not start: .*appendonlydir"):
        async with embedded_valkey(tmp_path):
            pass


async def test_it_dies_with_its_parent() -> None:
    """kill -9 leaves no time to clean up: the broken lifeline stops it."""
    program = """
import asyncio, uvloop
from broker.store.client import open_redis
from broker.store.embedded import embedded_valkey
async def main():
    async with embedded_valkey(None) as url:
        print((await open_redis(url).info("server"))["process_id"], flush=True)
        await asyncio.sleep(60)
uvloop.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        line = await parent.stdout.readline()
        while not line.strip().isdigit():  # log lines come first
            assert line, "the parent died"
            line = await parent.stdout.readline()
    pid = int(line)
    assert is_alive(pid)
    parent.kill()
    # To the end of the pipe as well: a loop cannot be closed with a pipe that is open.
    await parent.stdout.read()
    await parent.wait()
    await until_dead(pid)
