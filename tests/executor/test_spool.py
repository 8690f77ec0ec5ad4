"""Results on disk."""

import asyncio
import os
import stat
import threading
from hashlib import sha256
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from executor.actions import Result
from executor.report import STDERR, STDOUT, Report
from executor.spool import FORMAT, FORMAT_1, Spool, pack, unpack
from openline.v1 import executor_service_pb2 as wire


def kept(report: Report, *, executed: bool = True) -> Result:
    execute = wire.Execute(command_id=report.command_id, argv=["get", "pods"], timeout_s=7.0, seal=b"sealed")
    return Result(execute, report, executed)


def result(command_id: str, *pieces: bytes, executed: bool = True) -> Result:
    report = Report(command_id)
    report.resume(0, credit_bytes=0, frame_bytes=10)
    for index, piece in enumerate(pieces):
        report.write(STDERR if index % 2 else STDOUT, piece)
    report.close(wire.Finished(command_id=command_id, exit_code=3), 0.0)
    return kept(report, executed=executed)


def of_format_1(kept: Result) -> bytes:
    """A file as the version before wrote it: the frames alone."""
    body = pack(kept)[len(FORMAT) + 32 :]
    message = wire.ConnectRequest.FromString(body)
    del message.frames[0]
    body = message.SerializeToString()
    return FORMAT_1 + sha256(body).digest() + body


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.result*"))


@pytest.fixture(autouse=True)
def fresh_logs() -> None:
    """Lines can be captured, whatever other tests have set up."""
    structlog.reset_defaults()


async def filled(directory: Path, *command_ids: str) -> None:
    async with Spool(directory) as spool:
        for command_id in command_ids:
            spool.store(result(command_id, b"out"))


async def left(directory: Path) -> list[str]:
    async with Spool(directory) as spool:
        return [result.command_id for result in spool.read()]


@given(pieces=st.lists(st.binary(max_size=30), max_size=5), executed=st.booleans())
def test_a_result_comes_back_as_it_was(pieces: list[bytes], executed: bool) -> None:
    """The same frames under the same seqs, the same Finished, and the Execute with its seal."""
    before = result("a", *pieces, executed=executed)
    after = unpack(pack(before))
    assert list(after.report.frames()) == list(before.report.frames())
    assert (after.report.command_id, after.report.finished) == ("a", before.report.finished)
    assert (after.execute, after.executed) == (before.execute, executed)


@given(pieces=st.lists(st.binary(max_size=30), max_size=5), executed=st.booleans())
def test_a_result_of_the_version_before_is_read_without_its_execute(pieces: list[bytes], executed: bool) -> None:
    """It can be handed over to a broker that knows the command, as before."""
    before = result("a", *pieces, executed=executed)
    after = unpack(of_format_1(before))
    assert list(after.report.frames()) == list(before.report.frames())
    assert (after.report.finished, after.executed) == (before.report.finished, executed)
    assert after.execute == wire.Execute(command_id="a")


def test_what_has_arrived_of_a_live_command_is_not_stored() -> None:
    """The rest keeps its seqs."""
    before = Report("a", live=True)
    before.resume(0, credit_bytes=100, frame_bytes=10)
    before.write(STDOUT, bytes(35))
    while before.take(100):
        pass
    before.grant(20)
    before.close(wire.Finished(command_id="a"), 0.0)
    for content in (pack(kept(before)), of_format_1(kept(before))):
        after = unpack(content).report
        assert after.first_seq == 2
        assert [frame.seq for frame in after.frames()] == [2, 3]
        assert after.resume(3, credit_bytes=100, frame_bytes=10)


def test_where_output_that_has_all_arrived_ends_is_stored() -> None:
    """No frame is left to tell it; a replica that adopts the command must not wait for what is gone."""
    before = Report("a", live=True)
    before.resume(0, credit_bytes=100, frame_bytes=10)
    before.write(STDOUT, bytes(35))
    while before.take(100):
        pass
    before.grant(35)
    before.close(wire.Finished(command_id="a"), 0.0)
    assert unpack(pack(kept(before))).report.first_seq == 4


@given(content=st.binary(max_size=100))
def test_garbage_is_no_result(content: bytes) -> None:
    for body in (content, wire.ConnectRequest(frames=[wire.ExecutorFrame()] * 3).SerializeToString()):
        signed = sha256(body).digest() + body
        for garbage in (body, FORMAT + body, FORMAT + signed, FORMAT_1 + signed, pack(result("a"))[:-1]):
            with pytest.raises(ValueError, match=r"result|frames"):
                unpack(garbage)


def test_an_execute_of_another_command_is_no_result() -> None:
    """A seal would make a broker believe in it."""
    mixed = Result(wire.Execute(command_id="b", argv=["get"]), result("a").report, True)
    with pytest.raises(ValueError, match="result"):
        unpack(pack(mixed))


async def test_results_outlive_the_process_until_they_are_erased(tmp_path: Path) -> None:
    """The next one finds them, oldest first; what was erased is gone."""
    await filled(tmp_path, "a", "b")
    async with Spool(tmp_path) as spool:
        found = {result.command_id: result.executed for result in spool.read()}
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
        (path,) = [path for path in files(tmp_path) if unpack(path.read_bytes()).command_id == name]
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
        written.append(unpack(content).command_id)

    monkeypatch.setattr("executor.spool._write", write)
    async with Spool(tmp_path) as spool:
        spool.store(result("first"))
        await begun.wait()
        spool.store(result("second"))
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
        spool.store(result("a", bytes(1 << 20)))
        turns = 0
        while turns < 100:
            await asyncio.sleep(0)
            turns += 1
        assert not any(name.endswith(".result") for name in os.listdir(tmp_path))
        slow.set()
    assert await left(tmp_path) == ["a"]
