"""Results on disk."""

import asyncio
import os
import stat
import threading
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from executor.report import STDERR, STDOUT, Report
from executor.spool import FORMAT, Spool, pack, unpack
from openline.v1 import executor_service_pb2 as wire


def result(command_id: str, *pieces: bytes) -> Report:
    report = Report(command_id)
    report.resume(0, credit_bytes=0, frame_bytes=10)
    for index, piece in enumerate(pieces):
        report.write(STDERR if index % 2 else STDOUT, piece)
    report.close(wire.Finished(command_id=command_id, exit_code=3), 0.0)
    return report


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.result*"))


@pytest.fixture(autouse=True)
def fresh_logs() -> None:
    """Lines can be captured, whatever other tests have set up."""
    structlog.reset_defaults()


async def filled(directory: Path, *command_ids: str) -> None:
    async with Spool(directory) as spool:
        for command_id in command_ids:
            spool.store(result(command_id, b"out"), executed=True)


async def left(directory: Path) -> list[str]:
    async with Spool(directory) as spool:
        return [report.command_id for report, _ in spool.read()]


@given(pieces=st.lists(st.binary(max_size=30), max_size=5), executed=st.booleans())
def test_a_result_comes_back_as_it_was(pieces: list[bytes], executed: bool) -> None:
    """The same frames under the same seqs, and the same Finished."""
    before = result("a", *pieces)
    after, ran = unpack(pack(before, executed=executed))
    assert list(after.frames()) == list(before.frames())
    assert (after.command_id, after.finished, ran) == ("a", before.finished, executed)


def test_what_has_arrived_of_a_live_command_is_not_stored() -> None:
    """The rest keeps its seqs."""
    before = Report("a", live=True)
    before.resume(0, credit_bytes=100, frame_bytes=10)
    before.write(STDOUT, bytes(35))
    while before.take(100):
        pass
    before.grant(20)
    before.close(wire.Finished(command_id="a"), 0.0)
    after, _ = unpack(pack(before, executed=True))
    assert [frame.seq for frame in after.frames()] == [2, 3]
    assert after.resume(3, credit_bytes=100, frame_bytes=10)


@given(content=st.binary(max_size=100))
def test_garbage_is_no_result(content: bytes) -> None:
    for garbage in (content, FORMAT + content, pack(result("a"), executed=True)[:-1]):
        with pytest.raises(ValueError, match="result"):
            unpack(garbage)


async def test_results_outlive_the_process_until_they_are_erased(tmp_path: Path) -> None:
    """The next one finds them, oldest first; what was erased is gone."""
    await filled(tmp_path, "a", "b")
    async with Spool(tmp_path) as spool:
        found = dict((report.command_id, executed) for report, executed in spool.read())
        assert found == {"a": True, "b": True}
        spool.erase("a")
        spool.erase("unknown")
    assert await left(tmp_path) == ["b"]


async def test_files_are_for_this_user_only(tmp_path: Path) -> None:
    """Output may hold what others must not see; and an id that a caller chose is not a path."""
    directory = tmp_path / "new" / "spool"
    await filled(directory, "../../../etc/passwd")
    (file,) = files(directory)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert await left(directory) == ["../../../etc/passwd"]


async def test_garbage_is_removed_and_foreign_files_are_left_alone(tmp_path: Path) -> None:
    """Cut, empty, forged, renamed or unfinished: a warning each, and nobody is kept from starting."""
    await filled(tmp_path, "good")
    (good,) = files(tmp_path)
    (tmp_path / "empty.result").touch()
    (tmp_path / "cut.result").write_bytes(good.read_bytes()[:-5])
    (tmp_path / "renamed.result").write_bytes(good.read_bytes())
    (tmp_path / "half.result.tmp").write_bytes(b"half")
    (tmp_path / "directory.result").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    with capture_logs() as lines:
        assert await left(tmp_path) == ["good"]
    assert {line["file"] for line in lines if line["event"] == "spool.garbage"} >= {"empty.result", "cut.result"}
    assert set(os.listdir(tmp_path)) == {"lock", "notes.txt", "directory.result", good.name}


async def test_only_so_many_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest; older ones than would be kept in memory are removed."""
    monkeypatch.setattr("executor.spool.MAX_RESULTS", 2)
    await filled(tmp_path, "a", "b", "c")
    for age, name in enumerate("cba"):
        (path,) = [path for path in files(tmp_path) if unpack(path.read_bytes())[0].command_id == name]
        os.utime(path, (1000 - age, 1000 - age))
    assert await left(tmp_path) == ["b", "c"]
    assert len(files(tmp_path)) == 2


async def test_one_executor_alone_has_the_directory(tmp_path: Path) -> None:
    async with Spool(tmp_path):
        with pytest.raises(OSError, match="another executor"):
            async with Spool(tmp_path):
                pass


async def test_a_result_that_was_acknowledged_first_is_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual case: ResultAck comes while other files are being written."""
    gate, begun = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    written: list[str] = []

    def write(path: Path, content: bytes) -> None:
        loop.call_soon_threadsafe(begun.set)
        gate.wait(10)
        written.append(unpack(content)[0].command_id)

    monkeypatch.setattr("executor.spool._write", write)
    async with Spool(tmp_path) as spool:
        spool.store(result("first"), executed=True)
        await begun.wait()
        spool.store(result("second"), executed=True)
        spool.erase("second")
        spool.erase("first")  # being written: removed afterwards
        assert "pending=1" in repr(spool)
        gate.set()
    assert written == ["first"]


async def test_a_disk_that_does_not_take_it_costs_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line when it begins to fail; what comes when there is room again is written."""
    real = os.fsync
    broken = True

    def fsync(file: int) -> None:
        if broken:
            raise OSError(28, "No space left on device")
        real(file)

    monkeypatch.setattr("executor.spool.os.fsync", fsync)
    with capture_logs() as lines:
        await filled(tmp_path, "a", "b")
        assert files(tmp_path) == []
        broken = False
        await filled(tmp_path, "c")
    assert [line["event"] for line in lines] == ["spool.failed"]
    assert await left(tmp_path) == ["c"]


async def test_writing_does_not_hold_up_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a slow disk takes its time, everything else goes on."""
    real = os.fsync
    slow = threading.Event()

    def fsync(file: int) -> None:
        slow.wait(10)
        real(file)

    monkeypatch.setattr("executor.spool.os.fsync", fsync)
    # The real disk may be slow as well.
    monkeypatch.setattr("executor.spool.FLUSH_S", 60.0)
    async with Spool(tmp_path) as spool:
        spool.store(result("a", bytes(1 << 20)), executed=True)
        turns = 0
        while turns < 100:
            await asyncio.sleep(0)
            turns += 1
        assert not any(name.endswith(".result") for name in os.listdir(tmp_path))
        slow.set()
    assert await left(tmp_path) == ["a"]
