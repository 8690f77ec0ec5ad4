"""The frames that tell a broker how a command ended."""

from executor import results
from executor.actions import Ended, NotStarted
from executor.life import Command
from executor.report import STDERR, STDOUT, Report
from openline.capture import Kept
from openline.policy import Allowed, Policy
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire


def command() -> Command:
    execute = wire.Execute(command_id="a")
    return Command(execute, Report("a"), received_at=1.0, deadline=9.0, placed_at=2.0, executed=True)


def test_finished_says_what_was_cut_and_where_the_time_went() -> None:
    stdout = Kept(b"ab", total_bytes=10, total_lines=4, cut_bytes=8, cut_lines=3)
    frame = results.finished(command(), Ended(0, stdout, Kept(), run_s=1.5, finished_at=1_700_000_000.25), 4.5)
    assert frame.stdout_summary == command_pb2.OutputSummary(total_bytes=10, total_lines=4, cut_bytes=8, cut_lines=3)
    assert (frame.timings.queue_s, frame.timings.run_s) == (1.0, 1.5)
    assert frame.finished_at.ToMilliseconds() == 1_700_000_000_250


def test_finished_says_what_the_policy_has_bounded() -> None:
    asked = command()
    asked.allowed = Allowed(("logs", "x", "--tail=7"), Policy(), bounded=("--tail=7",))
    frame = results.finished(asked, Ended(0, Kept(), Kept(), run_s=1.5, finished_at=1.0), 4.5)
    assert frame.bounded == ["--tail=7"]
    assert not results.finished(asked, NotStarted("gone"), 4.5).bounded


def test_the_bytes_of_a_result_count_its_output() -> None:
    small, big = command(), command()
    big.report.write(STDOUT, b"x" * 5000)
    big.report.write(STDERR, b"y" * 100)
    assert results.result_bytes(big) - results.result_bytes(small) == 5100
