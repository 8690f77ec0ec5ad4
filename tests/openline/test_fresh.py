"""What is made of files, made again when they change."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from openline import fresh
from openline.fresh import Fresh


class Maker:
    """Makes a list of what is in the files; `while_making` happens in between."""

    def __init__(self, *files: Path) -> None:
        self.files = files
        self.times = 0
        self.while_making: Any = lambda: None

    def __call__(self) -> list[str]:
        self.times += 1
        first = self.files[0].read_text()
        self.while_making()
        return [first, *(file.read_text() for file in self.files[1:])]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    structlog.reset_defaults()
    both = tmp_path / "a", tmp_path / "b"
    for file in both:
        file.write_text("old")
    return both


def put(file: Path, text: str) -> None:
    beside = file.with_suffix(".new")
    beside.write_text(text)
    os.replace(beside, file)


def test_it_is_made_once_for_each_state(files: tuple[Path, Path]) -> None:
    """The same object is given as long as nothing changes."""
    make = Maker(*files)
    it = Fresh(files, make, use="test")
    before = it.current()
    assert it.current() is before
    assert make.times == 1
    with capture_logs() as lines:
        put(files[1], "new")
        assert it.current() == ["old", "new"]
        assert it.current() is it.current() is not before
    assert make.times == 2
    assert [(line["event"], line["use"], line["log_level"]) for line in lines] == [
        ("certificates.taken", "test", "info")
    ]


def test_what_cannot_be_made_at_first_goes_through(files: tuple[Path, Path]) -> None:
    files[0].unlink()
    with pytest.raises(FileNotFoundError):
        Fresh(files, Maker(*files), use="test")


def test_what_cannot_be_made_later_is_refused_once(files: tuple[Path, Path]) -> None:
    """Until it changes again; what there was stays."""
    make = Maker(*files)
    it = Fresh(files, make, use="test")
    before = it.current()
    with capture_logs() as lines:
        files[0].unlink()
        assert it.current() is it.current() is before
        put(files[0], "new")
        assert it.current() == ["new", "old"]
    assert [line["event"] for line in lines] == ["certificates.refused", "certificates.taken"]
    assert str(files[0]) in lines[0]["why"]
    assert make.times == 3


def test_what_is_written_while_it_is_read_is_read_again(files: tuple[Path, Path]) -> None:
    """It may be of two states a part each, so nobody is given it."""
    make = Maker(*files)
    it = Fresh(files, make, use="test")
    before = it.current()
    put(files[0], "new")
    make.while_making = lambda: put(files[1], "new too")
    assert it.current() is before
    make.while_making = lambda: None
    assert it.current() == ["new", "new too"]


def test_what_is_written_while_it_is_read_first_is_read_again(files: tuple[Path, Path]) -> None:
    make = Maker(*files)
    make.while_making = lambda: put(files[0], "new")
    it = Fresh(files, make, use="test")
    make.while_making = lambda: None
    assert it.current() == ["new", "old"]


def test_threads_may_ask(files: tuple[Path, Path]) -> None:
    """It is made once, and whoever asks meanwhile waits for that."""
    make = Maker(*files)
    it = Fresh(files, make, use="test")
    asking, go_on = threading.Event(), threading.Event()

    def hold_up() -> None:
        asking.set()
        assert go_on.wait(10)

    make.while_making = hold_up
    put(files[0], "new")
    given: list[list[str]] = []
    threads = [threading.Thread(target=lambda: given.append(it.current())) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert asking.wait(10)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert given == [["new", "old"]] * 4
    assert make.times == 2


async def test_a_change_is_told_without_anybody_asking(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh, "LOOK_EVERY_S", 0.01)
    it = Fresh(files, Maker(*files), use="test")
    with capture_logs() as lines:
        watching = asyncio.create_task(it.watch())
        put(files[0], "new")
        async with asyncio.timeout(10):
            while not lines:
                await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert [line["event"] for line in lines] == ["certificates.taken"]
