"""What the executor remembers of commands that have ended."""

import pytest

from executor.life import Command, State
from executor.memory import Memory
from executor.report import STDOUT, Report
from openline.reasons import YES
from openline.v1 import executor_service_pb2 as wire


def finished(command_id: str, *, output_bytes: int = 0) -> Command:
    report = Report(command_id)
    report.write(STDOUT, b"x" * output_bytes)
    execute = wire.Execute(command_id=command_id)
    return Command(execute, report, received_at=0.0, deadline=1.0, state=State.FINISHED, executed=True)


def ids(commands: list[Command]) -> list[str]:
    return [command.command_id for command in commands]


def test_too_many_results_push_out_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is gone; its id is still known, so that the command is not run again."""
    monkeypatch.setattr("executor.memory.MAX_RESULTS", 2)
    memory = Memory()
    assert [ids(memory.keep(finished(command_id))) for command_id in ("a", "b", "c")] == [[], [], ["a"]]
    assert [command.command_id for command in memory.unacked] == ["b", "c"]
    assert memory.finished("a") is None
    assert memory.executed("a") == YES


def test_too_many_bytes_push_out_the_oldest_but_never_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executor.memory.MAX_RESULTS_BYTES", 10_000)
    memory = Memory()
    memory.keep(finished("a", output_bytes=4_000))
    memory.keep(finished("b", output_bytes=3_000))
    assert ids(memory.keep(finished("c", output_bytes=20_000))) == ["a", "b"]
    assert memory.finished("c") is not None
    memory.settle("c")
    assert memory.keep(finished("d", output_bytes=4_000)) == memory.keep(finished("e", output_bytes=3_000)) == []


def test_ids_are_forgotten_last_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number is bounded too."""
    monkeypatch.setattr("executor.memory.MAX_IDS", 2)
    memory = Memory()
    for command_id in ("a", "b", "c"):
        memory.keep(finished(command_id))
        memory.settle(command_id)
    assert [memory.executed(command_id) for command_id in ("a", "b", "c")] == [None, YES, YES]
