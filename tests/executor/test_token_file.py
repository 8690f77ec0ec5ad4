"""--token-file: what is new in it is shown on the open connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from executor import token_file
from executor.settings import load_settings
from executor.token_file import watch_token

PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_file, "LOOK_EVERY_S", 0.02)
    structlog.reset_defaults()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("the-first-token\n")
    return path


def replace(file: Path, text: str) -> None:
    """As Kubernetes and careful people do: at once, and as another file."""
    other = file.with_suffix(".new")
    other.write_text(text)
    other.rename(file)


def remove(file: Path) -> None:
    file.unlink()


def settings_of(file: Path, kubectl: Path) -> Any:
    return load_settings(["--cluster-id", "local", "--token-file", str(file), "--kubectl", str(kubectl)])


@asynccontextmanager
async def watching(link: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(watch_token(link._settings, link.show_token))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.005)


async def test_a_new_token_is_shown_on_the_open_connection(
    broker: Any, dial: Any, stub_kubectl: Any, file: Path, execute: Any
) -> None:
    """Once, while a command runs on it; the next connection begins with it."""
    with capture_logs() as lines:
        async with dial(stub_kubectl("echo $3"), "--token-file", str(file)) as link, watching(link):
            connection = await broker.connection()
            await connection.welcome()
            assert connection.metadata["authorization"] == "Bearer the-first-token"
            replace(file, "the-second-token\n")
            assert (await connection.expect("credential")).credential.token == "the-second-token"
            frame = execute()
            await connection.send(frame)
            await connection.expect("accepted")
            finished, _, _ = await connection.result(frame.execute.command_id)
            assert finished.exit_code == 0
            connection.end()
            again = await broker.connection()
            await again.welcome()
            assert again.metadata["authorization"] == "Bearer the-second-token"
    assert [line["event"] for line in lines].count("token.shown") == 1
    assert "the-second-token" not in str(lines)


async def test_a_change_between_two_connections_needs_no_frame(
    broker: Any, dial: Any, stub_kubectl: Any, file: Path
) -> None:
    """It is what the next one is opened with."""
    async with dial(stub_kubectl("exit"), "--token-file", str(file)) as link, watching(link):
        silent = await broker.connection()
        replace(file, "the-second-token")
        await silent.expect("hello")
        silent.end()
        connection = await broker.connection()
        assert connection.metadata["authorization"] == "Bearer the-second-token"
        await connection.welcome()
        assert (await connection.frame()).WhichOneof("frame") == "heartbeat"


async def test_a_change_during_the_handshake_is_shown_after_it(
    broker: Any, dial: Any, stub_kubectl: Any, file: Path
) -> None:
    """The connection was opened with the old one, which is about to be revoked."""
    async with dial(stub_kubectl("exit"), "--token-file", str(file)) as link:
        connection = await broker.connection()
        replace(file, "the-second-token")
        async with watching(link):
            link.show_token("the-second-token")  # before Welcome: there is nobody to be shown it yet
            await connection.welcome()
            assert (await connection.expect("credential")).credential.token == "the-second-token"


async def test_what_cannot_be_a_token_changes_nothing(stub_kubectl: Any, file: Path) -> None:
    """A wrong file and a missing one: each is said once, without what is in it; the next good one is shown."""
    shown: list[str] = []
    with capture_logs() as lines:
        task = asyncio.create_task(watch_token(settings_of(file, stub_kubectl("exit")), shown.append))
        await until(lambda: shown)
        replace(file, "two secrets")
        await until(lambda: len(lines) == 1)
        remove(file)
        await until(lambda: len(lines) == 2)
        replace(file, "the-second-token")
        await until(lambda: shown[-1] == "the-second-token")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert set(shown) == {"the-first-token", "the-second-token"}
    assert [(line["event"], line["log_level"]) for line in lines] == [("token.unusable", "warning")] * 2
    assert "secrets" not in str(lines)


async def test_a_file_that_is_still_written_is_not_taken(
    stub_kubectl: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is new must stay the same for two looks."""
    monkeypatch.setattr(token_file, "LOOK_EVERY_S", 0)
    texts = iter(["the-first-token", "the-sec", "the-second-token", "the-second-token"])
    shown: list[str] = []
    ended = asyncio.Event()

    class Settings:
        token_file = file

        def read_token(self) -> str:
            if (text := next(texts, None)) is None:
                ended.set()
                self.token_file = None  # type: ignore[assignment]
                return "the-end"
            return text

    await watch_token(Settings(), shown.append)  # type: ignore[arg-type]
    assert ended.is_set()
    assert shown == ["the-second-token"]


async def test_a_token_of_the_flag_is_not_watched(stub_kubectl: Any) -> None:
    settings = load_settings(["--cluster-id", "local", "--token", "t", "--kubectl", str(stub_kubectl("exit"))])
    await watch_token(settings, lambda token: pytest.fail(token))
