"""A live process: told of as it comes, held up and let go, on both event loops."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from executor.actions import Ended
from executor.kubectl import Kubectl
from executor.report import STDERR, STDOUT, Source
from executor.runner import READ_BYTES, Run

OnLoop = Callable[[Coroutine[Any, Any, Any]], Any]
PIPE_BYTES = 64 << 10


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def on_loop(request: pytest.FixtureRequest) -> OnLoop:
    def run(scenario: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(scenario)

    return run


class Reader:
    """Takes what a live shell script writes."""

    def __init__(self, home: Path, script: str) -> None:
        self.pieces: list[tuple[Source, bytes]] = []
        self.came = asyncio.Event()
        kubectl = Kubectl(path=Path("/bin/sh"), home=home)
        self.run = Run(kubectl, ["-c", script], max_bytes=0, wrote=self.wrote)

    def wrote(self, source: Source, data: bytes) -> None:
        self.pieces.append((source, data))
        self.came.set()

    def text(self, source: Source = STDOUT) -> bytes:
        return b"".join(data for told, data in self.pieces if told == source)

    async def end(self) -> Ended:
        async with asyncio.timeout(60):
            end = await self.run.run()
        assert isinstance(end, Ended)
        return end


def test_output_is_told_while_the_process_runs(on_loop: OnLoop, tmp_path: Path) -> None:
    """The first line is there although the process goes on; nothing of it is kept, and the counts are exact."""

    async def scenario() -> None:
        reader = Reader(tmp_path, "echo one; sleep 60")
        task = asyncio.create_task(reader.end())
        await asyncio.wait_for(reader.came.wait(), 10)
        assert reader.text() == b"one\n"
        assert not task.done()
        reader.run.kill()
        end = await task
        assert (end.stdout.total_bytes, end.stdout.total_lines, end.stdout.cut_bytes) == (4, 1, 0)
        assert end.stdout.data == b""

    on_loop(scenario())


def test_both_sources_arrive_whole_and_apart(on_loop: OnLoop, tmp_path: Path) -> None:
    async def scenario() -> None:
        reader = Reader(tmp_path, "yes 0123456 | head -c 300000; echo err >&2; printf unfinished")
        end = await reader.end()
        assert reader.text() == b"0123456\n" * 37_500 + b"unfinished"
        assert reader.text(STDERR) == b"err\n"
        assert (end.stdout.total_bytes, end.stdout.total_lines) == (300_010, 37_501)
        assert max(len(data) for _, data in reader.pieces) <= READ_BYTES

    on_loop(scenario())


def test_a_held_up_process_waits_and_then_goes_on(on_loop: OnLoop, tmp_path: Path) -> None:
    """It fills its pipe and stops there, for as long as it takes; afterwards nothing is missing."""

    async def scenario() -> None:
        lines = "head -c 100000 /dev/zero | tr '\\0' '\\n'"
        reader = Reader(tmp_path, f"for n in 1 2 3 4 5; do {lines}; echo $n >>{tmp_path}/past; done")
        task = asyncio.create_task(reader.end())
        await asyncio.wait_for(reader.came.wait(), 10)
        reader.run.hold()
        await asyncio.sleep(0.3)
        held_at = len(reader.text())
        await asyncio.sleep(0.2)
        assert len(reader.text()) == held_at
        assert not task.done()
        reader.run.resume()
        end = await task
        assert len(reader.text()) == end.stdout.total_bytes == 500_000

    on_loop(scenario())


def test_the_end_of_a_held_up_process_brings_the_rest(on_loop: OnLoop, tmp_path: Path) -> None:
    """What is in the pipe when it exits is read, at once and although nobody has let it go."""

    async def scenario() -> None:
        reader = Reader(tmp_path, f"echo first; sleep 0.3; head -c {PIPE_BYTES} /dev/zero; echo err >&2")
        task = asyncio.create_task(reader.end())
        await asyncio.wait_for(reader.came.wait(), 10)
        reader.run.hold()
        end = await task
        assert len(reader.text()) == end.stdout.total_bytes == PIPE_BYTES + 6
        assert reader.text(STDERR) == b"err\n"
        assert end.exit_code == 0

    on_loop(scenario())


def test_a_held_up_process_can_be_killed(on_loop: OnLoop, tmp_path: Path) -> None:
    """The output so far is told, which is bounded, however much it would have written; and it ends soon."""

    async def scenario() -> None:
        reader = Reader(tmp_path, "trap '' TERM; while :; do echo so far; done")
        task = asyncio.create_task(reader.end())
        await asyncio.wait_for(reader.came.wait(), 10)
        reader.run.hold()
        await asyncio.sleep(0.2)
        before = len(reader.text())
        reader.run.kill()
        end = await task
        assert before < len(reader.text()) == end.stdout.total_bytes <= before + 8 * PIPE_BYTES
        assert reader.text().startswith(b"so far\n")

    on_loop(scenario())


def test_a_child_that_floods_after_the_end_is_bounded(on_loop: OnLoop, tmp_path: Path) -> None:
    """Held up, the leader gone, a grandchild still writing: killed after a moment, and little of it is read."""

    async def scenario() -> None:
        reader = Reader(tmp_path, "yes & echo done")
        task = asyncio.create_task(reader.end())
        await asyncio.wait_for(reader.came.wait(), 10)
        reader.run.hold()
        await asyncio.sleep(0.1)
        before = len(reader.text())
        await task
        assert len(reader.text()) <= before + 8 * PIPE_BYTES

    on_loop(scenario())
