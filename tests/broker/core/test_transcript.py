"""What one command has written."""

import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.life import OutOfOrder
from broker.core.transcript import MAX_RECENT_BYTES, PIECE_BYTES, Transcript
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

STDOUT, STDERR = command_pb2.OUTPUT_SOURCE_STDOUT, command_pb2.OUTPUT_SOURCE_STDERR
FRAME = 64 << 10


def piece(seq: int, data: bytes, *, stderr: bool = False) -> command_pb2.Output:
    return command_pb2.Output(seq=seq, source=STDERR if stderr else STDOUT, data=data)


def filled(*data: bytes, max_bytes: int = 1 << 20, live: bool = False) -> Transcript:
    transcript = Transcript(max_bytes=max_bytes, live=live)
    for seq, one in enumerate(data):
        assert transcript.take(piece(seq, one))
    return transcript


@pytest.mark.parametrize("live", [False, True])
def test_pieces_come_in_order_and_once(live: bool) -> None:
    """One that was had before changes nothing, and one that is missing is noticed."""
    transcript = filled(b"a", b"b", live=live)
    assert not transcript.take(piece(1, b"again"))
    with pytest.raises(OutOfOrder, match="output 3 where 2 was due"):
        transcript.take(piece(3, b"d"))
    assert transcript.take(piece(2, b"c", stderr=True))
    assert [(one.seq, one.source, one.data) for one in transcript.since(1)] == [(1, STDOUT, b"b"), (2, STDERR, b"c")]
    stdout, stderr = transcript.kept()
    assert (stdout.data, stderr.data) == (b"ab", b"c")


def test_live_output_keeps_head_and_tail_for_the_result_and_the_newest_for_watchers() -> None:
    """Exact counts of what was cut; and exact counts of what a watcher cannot have any more."""
    data = [bytes([n % 251]) * FRAME for n in range(64)]  # 4 MiB
    transcript = filled(*data, max_bytes=1000, live=True)
    whole = b"".join(data)
    stdout, stderr = transcript.kept()
    assert stdout.data == whole[:500] + whole[-500:]
    assert (stdout.total_bytes, stdout.cut_bytes, stderr.total_bytes) == (len(whole), len(whole) - 1000, 0)
    recent = transcript.since(0)
    assert b"".join(one.data for one in recent) == whole[transcript.skipped_bytes :]
    assert [one.seq for one in recent] == list(range(transcript.first_seq, 64))
    assert MAX_RECENT_BYTES - FRAME - PIECE_BYTES <= sum(len(one.data) for one in recent) <= MAX_RECENT_BYTES


def test_a_single_piece_is_kept_however_large() -> None:
    """Somebody who is not behind at all is never shown a gap."""
    transcript = filled(b"x" * (2 * MAX_RECENT_BYTES), live=True)
    assert len(transcript.since(0)) == 1
    assert transcript.skipped_bytes == 0


def test_a_flood_of_small_pieces_costs_no_more_than_a_flood_of_large_ones() -> None:
    """Empty ones count as well: each costs something to keep."""
    transcript = Transcript(max_bytes=1000, live=True)
    tracemalloc.start()
    for seq in range(50_000):
        transcript.take(piece(seq, b"x" if seq % 2 else b""))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(transcript.since(0)) <= MAX_RECENT_BYTES // PIECE_BYTES
    assert peak < 2 * MAX_RECENT_BYTES


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


@pytest.mark.parametrize("live", [False, True])
def test_a_small_piece_does_not_keep_the_message_it_came_in(live: bool) -> None:
    """A quiet command's lines share messages with another one's flood: those must not stay in memory for them."""
    transcript = Transcript(max_bytes=1 << 20, live=live)
    flood = [wire.ExecutorFrame(output=command_pb2.Output(command_id="flood", data=b"x" * FRAME)) for _ in range(15)]
    before = resident_bytes()
    for seq in range(200):
        line = wire.ExecutorFrame(output=command_pb2.Output(command_id="quiet", seq=seq, data=b"a line\n"))
        message = wire.ConnectRequest(frames=[line, *flood]).SerializeToString()
        transcript.take(wire.ConnectRequest.FromString(message).frames[0].output)
    assert resident_bytes() - before < 60 << 20
    assert len(transcript.since(0)) == 200


@pytest.mark.parametrize("live", [False, True])
def test_how_many_bytes_came_before_a_seq(live: bool) -> None:
    """Known for what is here, for the very next piece and for the beginning."""
    transcript = filled(b"one", b"", b"three", live=live)
    assert [transcript.offset(seq) for seq in range(5)] == [0, 3, 3, 8, None]


def test_how_many_bytes_came_before_a_seq_that_is_gone() -> None:
    transcript = filled(*[b"x" * FRAME] * 20, live=True)
    assert transcript.first_seq > 2
    assert transcript.offset(0) == 0
    assert transcript.offset(1) is None
    assert transcript.offset(transcript.first_seq) == transcript.skipped_bytes == transcript.first_seq * FRAME
    assert transcript.offset(20) == 20 * FRAME
    assert transcript.offset(21) is None


def test_an_ordinary_commands_output_is_all_there() -> None:
    """Its executor has cut it; nothing is skipped, whatever the amount, up to the cap."""
    transcript = filled(*[b"x" * FRAME] * 32, max_bytes=4 << 20)
    assert (transcript.first_seq, transcript.skipped_bytes) == (0, 0)
    assert transcript.kept()[0].total_bytes == 2 << 20
    assert repr(transcript) == "<Transcript 0..32 bytes=2097152>"


@given(
    data=st.lists(st.tuples(st.booleans(), st.binary(max_size=40)), max_size=40),
    max_bytes=st.integers(1, 300),
    live=st.booleans(),
)
def test_what_is_kept_is_within_the_cap_and_counted(data: list[tuple[bool, bytes]], max_bytes: int, live: bool) -> None:
    """Both streams together, whatever the pieces."""
    transcript = Transcript(max_bytes=max_bytes, live=live)
    for seq, (stderr, one) in enumerate(data):
        transcript.take(piece(seq, one, stderr=stderr))
    kept: Any = transcript.kept()
    total = sum(len(one) for _, one in data)
    assert sum(len(one.data) for one in kept) == min(total, max_bytes)
    for wanted, one in zip((False, True), kept, strict=True):
        written = b"".join(part for stderr, part in data if stderr is wanted)
        if live:
            assert one.total_bytes == len(written) == len(one.data) + one.cut_bytes
            assert one.cut_lines == written.count(b"\n") - one.data.count(b"\n")
        else:
            assert written.startswith(one.data) or total > max_bytes
    seqs = [one.seq for one in transcript.since(0)]
    assert all(first < second for first, second in pairwise(seqs))
