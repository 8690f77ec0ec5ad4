"""The frames that tell a broker how a command ended."""

from executor import results
from executor.actions import Ended
from executor.life import Command
from executor.output import Kept
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire


def command(end: Ended | None) -> Command:
    execute = wire.Execute(command_id="a")
    return Command(execute, received_at=1.0, deadline=9.0, placed_at=2.0, ended_at=4.0, executed=True, end=end)


def test_bytes_that_are_not_text_arrive_unharmed() -> None:
    """stdout and stderr apart, each in order, counted from 0 over both, then Finished."""
    data = bytes(range(256)) * 10
    end = Ended(0, Kept(data, total_bytes=2560), Kept(b"\xff", total_bytes=1), run_s=1.0, finished_at=0.0)
    *output, last = results.result_frames(command(end), 5.0, frame_bytes=1000)
    assert [frame.output.seq for frame in output] == [0, 1, 2, 3]
    out, err = command_pb2.OUTPUT_SOURCE_STDOUT, command_pb2.OUTPUT_SOURCE_STDERR
    assert b"".join(frame.output.data for frame in output if frame.output.source == out) == data
    assert [frame.output.data for frame in output if frame.output.source == err] == [b"\xff"]
    assert last.HasField("finished")


def test_finished_says_what_was_cut_and_where_the_time_went() -> None:
    stdout = Kept(b"ab", total_bytes=10, total_lines=4, cut_bytes=8, cut_lines=3)
    frame = results.finished(command(Ended(0, stdout, Kept(), run_s=1.5, finished_at=1_700_000_000.25)), 4.5)
    assert frame.stdout_summary == command_pb2.OutputSummary(total_bytes=10, total_lines=4, cut_bytes=8, cut_lines=3)
    assert (frame.timings.queue_s, frame.timings.run_s, frame.timings.return_s) == (1.0, 1.5, 0.5)
    assert frame.finished_at.ToMilliseconds() == 1_700_000_000_250


def test_the_bytes_of_a_result_count_its_output() -> None:
    big = Ended(0, Kept(b"x" * 5000), Kept(b"y" * 100), run_s=0.0, finished_at=0.0)
    assert results.result_bytes(command(big)) - results.result_bytes(command(None)) == 5100
