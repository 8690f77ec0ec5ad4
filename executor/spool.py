"""Results on disk until they are acknowledged, so that another process of this executor can hand them over.

One file a command: a line that names the format, a SHA-256, the Execute as Hello brings it and the very frames that
tell of the result. A file is written beside its place, synced and renamed, so that it is there whole or not at all. All
writing and removing is done by one task in a thread, a file at a time; whatever goes wrong there is logged and costs
only the file.
"""

import asyncio
import errno
import fcntl
import os
from collections import OrderedDict
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from google.protobuf.message import DecodeError

from executor import results
from executor.actions import Result
from executor.memory import MAX_RESULTS
from executor.report import Report
from openline import ids
from openline.capture import MOST_OUTPUT_BYTES
from openline.v1 import executor_service_pb2 as wire

FORMAT = b"openline-result 2\n"
# Without the Execute: its result can be handed over only to a replica that knows the command.
FORMAT_1 = b"openline-result 1\n"
SUFFIX = ".result"
UNFINISHED_SUFFIX = ".result.tmp"
LOCK = "lock"
# The largest output that is kept of a command, in the smallest frames that are likely.
MAX_FILE_BYTES = 4 * MOST_OUTPUT_BYTES
# What is not on disk so long after the end was asked for stays behind.
FLUSH_S = 3.0

log = structlog.get_logger()


class Spool:
    """The directory of one executor: an async context manager that owns it, and the task that writes to it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock: int | None = None
        # What is to be done for each id, in order: its result, or None to remove its file.
        self._pending: OrderedDict[str, Result | None] = OrderedDict()
        self._on_disk: set[str] = set()
        self._wanted = asyncio.Event()
        self._closing = False
        self._failure = ""  # the last one logged
        self._writing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Spool {self._directory} files={len(self._on_disk)} pending={len(self._pending)}>"

    async def __aenter__(self) -> Self:
        """Takes the directory. Raises OSError if it cannot be written to or another process has it."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._directory / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            os.close(lock)
            raise OSError(problem.errno, "another executor uses this directory") from problem
        self._lock = lock
        self._writing = asyncio.create_task(self._write_all(), name="spool")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finishes what is pending, within bounds, and gives the directory back."""
        self._closing = True
        self._wanted.set()
        try:
            if self._writing is not None:
                await asyncio.wait_for(self._writing, FLUSH_S)
        except TimeoutError:
            log.warning("spool.abandoned", results=len(self._pending))
        finally:
            if self._lock is not None:
                os.close(self._lock)

    def store(self, result: Result) -> None:
        """Writes a result, soon; replaces one under the same id. Its report must not change but by what arrives."""
        self._want(result.command_id, result)

    def erase(self, command_id: str) -> None:
        """Removes a result, soon. One that has not been written yet never is."""
        if self._pending.pop(command_id, None) is None and command_id not in self._on_disk:
            return
        if command_id in self._on_disk:
            self._want(command_id, None)

    def read(self) -> Iterator[Result]:
        """The results that are there, oldest first. Blocks; before the first `store`.

        Garbage under our names is removed; what has another name is left alone.
        """
        found = sorted(self._directory.glob(f"*{SUFFIX}"), key=_changed_at)
        for path in [*self._directory.glob(f"*{UNFINISHED_SUFFIX}"), *found[:-MAX_RESULTS]]:
            path.unlink(missing_ok=True)
        for path in found[-MAX_RESULTS:]:
            try:
                result = unpack(_read(path))
                if path.name != _name(result.command_id):
                    raise ValueError("the file has another command's name")
            except (OSError, ValueError) as problem:
                log.warning("spool.garbage", file=path.name, why=str(problem))
                if path.is_file():
                    path.unlink(missing_ok=True)
                continue
            self._on_disk.add(result.command_id)
            yield result

    def _want(self, command_id: str, what: Result | None) -> None:
        self._pending[command_id] = what
        self._wanted.set()

    async def _write_all(self) -> None:
        while self._pending or not self._closing:
            if not self._pending:
                self._wanted.clear()
                await self._wanted.wait()
                continue
            command_id, what = self._pending.popitem(last=False)
            path = self._directory / _name(command_id)
            try:
                if what is None:
                    self._on_disk.discard(command_id)
                    await asyncio.to_thread(path.unlink, missing_ok=True)
                else:
                    self._on_disk.add(command_id)
                    # A copy, since the report goes on to change here; packing a megabyte takes milliseconds.
                    await asyncio.to_thread(_put, path, replace(what, report=deepcopy(what.report)))
            except OSError as problem:
                self._report(problem)
            else:
                self._failure = ""

    def _report(self, problem: OSError) -> None:
        """One line whenever the reason changes: a full disk fails for every result."""
        failure = errno.errorcode.get(problem.errno or 0, str(problem))
        if failure != self._failure:
            self._failure = failure
            log.warning("spool.failed", directory=str(self._directory), why=problem.strerror or str(problem))


def pack(result: Result) -> bytes:
    """A file's content: the frames that tell a broker of this result."""
    report = result.report
    if report.finished is None:
        raise AssertionError(f"{report!r} is not finished")
    held = wire.HeldCommand(execute=result.execute, first_seq=report.first_seq)
    frames = [wire.ExecutorFrame(hello=wire.Hello(held=[held])), results.accepted(report.command_id)]
    if result.executed:
        frames.append(results.started(report.command_id))
    frames += [wire.ExecutorFrame(output=output) for output in report.frames()]
    frames.append(wire.ExecutorFrame(finished=report.finished))
    body = wire.ConnectRequest(frames=frames).SerializeToString()
    return FORMAT + sha256(body).digest() + body


def unpack(content: bytes) -> Result:
    """A result. Raises ValueError for what `pack` has not made, now or before it kept the Execute."""
    body = content[len(FORMAT) + 32 :]
    whole = content[len(FORMAT) : len(FORMAT) + 32] == sha256(body).digest()
    if not whole or not content.startswith((FORMAT, FORMAT_1)):
        raise ValueError("not a whole result")
    try:
        frames = list(wire.ConnectRequest.FromString(body).frames)
    except DecodeError:
        raise ValueError("not frames") from None
    outputs = [frame.output for frame in frames if frame.HasField("output")]
    held = wire.HeldCommand(first_seq=outputs[0].seq if outputs else 0)
    if content.startswith(FORMAT):
        held = frames.pop(0).hello.held[0] if frames and frames[0].hello.held else held
    elif frames:
        held.execute.command_id = frames[0].accepted.command_id
    command_id = held.execute.command_id
    told = ids.is_token(command_id) and len(frames) > 1 and frames[0].accepted.command_id == command_id
    if not told or not frames[-1].HasField("finished"):
        raise ValueError("not a result")
    report = Report(command_id, first_seq=held.first_seq)
    for seq, output in enumerate(outputs, start=report.first_seq):
        if output.seq != seq:
            raise ValueError("a frame is missing")
        report.put(output)
    # Copies, since a part of a message keeps the whole of it in memory.
    report.close(deepcopy(frames[-1].finished), 0.0)
    return Result(deepcopy(held.execute), report, any(frame.HasField("started") for frame in frames))


def _name(command_id: str) -> str:
    """A caller may choose the id, so it cannot be a file's name."""
    return sha256(command_id.encode()).hexdigest() + SUFFIX


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _read(path: Path) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise ValueError("not a file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError("too large")
    return path.read_bytes()


def _put(path: Path, result: Result) -> None:
    _write(path, pack(result))


def _write(path: Path, content: bytes) -> None:
    """Puts a file in its place, whole and on disk, for this user only."""
    unfinished = path.with_name(path.name.removesuffix(SUFFIX) + UNFINISHED_SUFFIX)
    try:
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(file, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
