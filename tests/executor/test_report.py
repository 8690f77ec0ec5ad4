"""What one command still has to tell the broker."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.report import MOST_LIVE_BYTES, STDERR, STDOUT, Report
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

PLENTY = 1 << 40
FINISHED = wire.Finished(command_id="a")


def written(*pieces: bytes, live: bool = True, credit_bytes: int = PLENTY, frame_bytes: int = 100) -> Report:
    """A report on a new connection; pieces are stdout and stderr in turn."""
    report = Report("a", live=live)
    assert report.resume(0, credit_bytes=credit_bytes, frame_bytes=frame_bytes)
    for index, piece in enumerate(pieces):
        report.write(STDERR if index % 2 else STDOUT, piece)
    return report


def sent(report: Report, room_bytes: int = PLENTY) -> list[command_pb2.Output]:
    frames = []
    while (frame := report.take(room_bytes)) is not None:
        frames.append(frame)
    return frames


def text(frames: list[command_pb2.Output]) -> list[tuple[int, bytes]]:
    return [(frame.seq, frame.data) for frame in frames]


def test_seq_counts_over_both_sources_in_the_order_of_writing() -> None:
    frames = sent(written(b"a", b"b", b"c"))
    assert [(f.seq, f.source, f.data) for f in frames] == [(0, STDOUT, b"a"), (1, STDERR, b"b"), (2, STDOUT, b"c")]


def test_what_waits_leaves_as_one_frame_up_to_the_limit() -> None:
    """Pieces of one source that could not be sent at once need not be frames of their own."""
    report = written(b"x" * 60, b"", b"y" * 60)
    assert text(sent(report)) == [(0, b"x" * 60 + b"y" * 40), (1, b"y" * 20)]


def test_a_frame_needs_credit_and_a_small_one_does_not_wait_for_more() -> None:
    report = written(b"x" * 50, credit_bytes=30)
    assert text(sent(report, 10)) == [(0, b"x" * 10), (1, b"x" * 10), (2, b"x" * 10)]
    report.grant(5)
    assert text(sent(report)) == [(3, b"x" * 5)]
    assert report.waiting_bytes == 15


def test_credit_of_a_live_command_means_arrival() -> None:
    """A frame is dropped when all of it has arrived; credit beyond what was sent is not arrival of what comes later."""
    report = written(b"x" * 10)
    sent(report)
    report.grant(9)
    assert report.first_seq == 0
    report.grant(100)
    assert (report.first_seq, report.kept_bytes) == (1, 0)
    report.write(STDOUT, b"y" * 10)
    sent(report)
    assert report.first_seq == 1


def test_what_is_not_live_is_kept_whole() -> None:
    report = written(b"x" * 250, live=False)
    first = sent(report)
    report.grant(1000)
    assert report.resume(0, credit_bytes=PLENTY, frame_bytes=100)
    assert sent(report) == first


def test_a_reconnect_goes_on_where_the_broker_is() -> None:
    """Earlier frames are dropped, later ones come again, byte for byte the same under the same seq."""
    report = written(b"x" * 250, credit_bytes=130)
    before = sent(report)
    assert text(before) == [(0, b"x" * 100), (1, b"x" * 30)]
    assert report.resume(1, credit_bytes=PLENTY, frame_bytes=100)
    after = sent(report)
    assert after[0] == before[1]
    assert text(after[1:]) == [(2, b"x" * 100), (3, b"x" * 20)]
    assert report.first_seq == 1


@pytest.mark.parametrize("next_seq", [0, 5])
def test_what_is_not_there_cannot_be_resumed(next_seq: int) -> None:
    """Neither dropped frames nor ones that never were; and asking changes nothing."""
    report = written(b"x" * 250)
    sent(report)
    report.grant(100)
    assert not report.resume(next_seq, credit_bytes=7, frame_bytes=7)
    assert (report.next_seq, report.first_seq) == (3, 1)


def test_a_severed_report_has_nothing_but_its_end() -> None:
    """It sends no output any more, and says that none of it is known to be there."""
    report = written(b"x" * 250)
    report.sever()
    report.write(STDOUT, b"more")
    assert sent(report) == []
    summary = command_pb2.OutputSummary(total_bytes=254, total_lines=2)
    report.close(wire.Finished(stdout_summary=summary), 1.0)
    ending = report.ending(1.0)
    assert ending is not None
    assert (ending.stdout_summary.cut_bytes, ending.stdout_summary.cut_lines) == (254, 2)


def test_finished_comes_after_all_output_and_once_a_connection() -> None:
    report = written(b"x" * 50, credit_bytes=20)
    assert report.ending(1.0) is None
    report.close(FINISHED, 1.0)
    sent(report)
    assert report.ending(2.0) is None
    report.grant(100)
    sent(report)
    ending = report.ending(3.5)
    assert ending is not None
    assert ending.timings.return_s == 2.5
    assert report.ending(4.0) is None
    assert report.resume(2, credit_bytes=1, frame_bytes=100)
    assert report.ending(5.0) is not None


def test_a_broker_that_takes_smaller_frames_gets_smaller_frames() -> None:
    report = written(b"x" * 100, b"y" * 100, live=False)
    assert len(sent(report)) == 2
    assert report.resume(1, credit_bytes=PLENTY, frame_bytes=60)
    frames = sent(report)
    assert [(f.seq, f.source, len(f.data)) for f in frames] == [(1, STDERR, 60), (2, STDERR, 40)]


def test_many_tiny_frames_cost_little() -> None:
    """A window full of frames of one byte, none of which is known to have arrived."""
    report = written()
    for _ in range(50_000):
        report.write(STDOUT, b"x")
        report.take(PLENTY)
    size = sum(sys.getsizeof(part) for part in (report._data, report._cut))
    assert size < 20 * 50_000


def test_no_credit_makes_it_keep_more_than_its_bound() -> None:
    """Beyond that the oldest is let go, so that a reconnect may find it missing."""
    report = written(frame_bytes=1 << 16)
    for _ in range(2 * MOST_LIVE_BYTES >> 16):
        report.write(STDOUT, bytes(1 << 16))
        sent(report)
    assert report.kept_bytes <= MOST_LIVE_BYTES
    assert not report.resume(0, credit_bytes=PLENTY, frame_bytes=1 << 16)


OPERATIONS = st.one_of(
    st.tuples(st.just("write"), st.binary(max_size=40), st.booleans()),
    st.tuples(st.just("take"), st.integers(0, 50), st.none()),
    st.tuples(st.just("grant"), st.integers(0, 50), st.none()),
    st.tuples(st.just("cut"), st.integers(0, 3), st.integers(1, 20)),
)


@given(live=st.booleans(), operations=st.lists(OPERATIONS, max_size=60))
def test_every_byte_arrives_once_and_in_order_whatever_breaks(
    live: bool, operations: list[tuple[str, bytes | int, bool | int | None]]
) -> None:
    """Writes, credit, and connections that lose the last frames: what the broker has is always a whole beginning."""
    report = Report("a", live=live)
    report.resume(0, credit_bytes=20, frame_bytes=16)
    source: list[tuple[int, bytes]] = []
    arrived: list[command_pb2.Output] = []
    on_the_way: list[command_pb2.Output] = []
    allowed = 20
    for name, value, more in operations:
        if name == "write" and isinstance(value, bytes):
            report.write(STDERR if more else STDOUT, value)
            source += [(STDERR if more else STDOUT, value[i : i + 1]) for i in range(len(value))]
        elif name == "take" and isinstance(value, int):
            if (frame := report.take(value)) is not None:
                on_the_way.append(frame)
                allowed -= len(frame.data)
                assert allowed >= 0
                assert len(frame.data) <= min(value, 16)
        elif name == "grant" and isinstance(value, int):
            # A broker gives credit for what it has: everything on the way arrives first.
            size = sum(len(frame.data) for frame in on_the_way)
            arrived, on_the_way = arrived + on_the_way, []
            report.grant(size)
            allowed += size
        elif name == "cut" and isinstance(value, int):
            arrived += on_the_way[:value]
            on_the_way = []
            assert report.resume(len(arrived), credit_bytes=20, frame_bytes=16)
            allowed = 20
    report.close(FINISHED, 0.0)
    report.grant(0)
    assert report.resume(len(arrived + on_the_way), credit_bytes=PLENTY, frame_bytes=16)
    arrived += on_the_way + sent(report)
    assert [frame.seq for frame in arrived] == list(range(len(arrived)))
    assert [(f.source, f.data[i : i + 1]) for f in arrived for i in range(len(f.data))] == source
