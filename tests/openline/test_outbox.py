"""The batching rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openline.outbox import (
    LINGER_S,
    MAX_BATCH_BYTES,
    MAX_BATCH_FRAMES,
    MAX_WAITING_BYTES,
    MAX_WAITING_CONTROL_FRAMES,
    Outbox,
    Overflow,
)


class Frame(bytes):
    """A frame of a known size."""

    def ByteSize(self) -> int:  # noqa: N802
        return len(self)


def test_an_idle_stream_sends_at_once() -> None:
    """Latency at low load does not pay for batching."""
    outbox: Outbox[Frame] = Outbox()
    outbox.put(Frame(b"x"))
    assert outbox.hold_s(100.0) == 0.0


def test_what_collects_behind_an_unanswered_message_leaves_together() -> None:
    """One message is unanswered at a time; the next leaves with the peer's next one, or after the linger."""
    outbox: Outbox[Frame] = Outbox()
    outbox.put(Frame(b"a"))
    assert outbox.take(100.0) == [b"a"]
    outbox.put(Frame(b"b"))
    outbox.put(Frame(b"c"))
    assert outbox.hold_s(100.0) == pytest.approx(LINGER_S)
    assert outbox.hold_s(100.0 + 2 * LINGER_S) == 0.0
    outbox.answered(100.0001)
    assert outbox.hold_s(100.0001) == 0.0
    assert outbox.take(100.0001) == [b"b", b"c"]


def test_control_frames_overtake_output() -> None:
    """A cancel or a heartbeat does not wait behind a flood; each kind keeps its own order."""
    outbox: Outbox[Frame] = Outbox()
    for name in (b"o1", b"o2"):
        outbox.put(Frame(name), output=True)
    for name in (b"c1", b"c2"):
        outbox.put(Frame(name))
    assert outbox.take(0.0) == [b"c1", b"c2", b"o1", b"o2"]


def test_a_message_is_bounded_in_bytes_and_frames() -> None:
    """A message over gRPC's limit would kill the stream; a single large frame still goes."""
    outbox: Outbox[Frame] = Outbox()
    for _ in range(3):
        outbox.put(Frame(b"x" * (MAX_BATCH_BYTES // 2)), output=True)
    assert len(outbox.take(0.0)) == 2
    assert len(outbox.take(0.0)) == 1
    outbox.put(Frame(b"x" * (MAX_BATCH_BYTES * 2)))
    assert len(outbox.take(0.0)) == 1
    for _ in range(MAX_BATCH_FRAMES + 1):
        outbox.put(Frame(b"x"))
    assert len(outbox.take(0.0)) == MAX_BATCH_FRAMES


def test_a_peer_that_does_not_read_costs_bounded_memory() -> None:
    """Beyond the bound the stream is given up."""
    outbox: Outbox[Frame] = Outbox()
    outbox.put(Frame(b"x" * (MAX_WAITING_BYTES - 1)), output=True)
    with pytest.raises(Overflow):
        outbox.put(Frame(b"xx"))
    assert len(outbox) == 1


def test_frames_of_a_few_bytes_cost_bounded_memory() -> None:
    """Each takes far more than its size; but output, which is sent against credit, is counted by that alone."""
    outbox: Outbox[Frame] = Outbox()
    for _ in range(MAX_WAITING_CONTROL_FRAMES):
        outbox.put(Frame(b"x"))
    with pytest.raises(Overflow, match="frames wait"):
        outbox.put(Frame(b"x"))
    outbox.put(Frame(b"x"), output=True)


@given(st.lists(st.tuples(st.integers(0, MAX_BATCH_BYTES), st.booleans()), max_size=60))
def test_every_frame_leaves_once_and_in_order(puts: list[tuple[int, bool]]) -> None:
    """Nothing is lost, repeated or reordered within its kind, whatever the sizes."""
    outbox: Outbox[Frame] = Outbox()
    expected: dict[bool, list[Frame]] = {True: [], False: []}
    for size, output in puts:
        frame = Frame(b"x" * size)
        outbox.put(frame, output=output)
        expected[output].append(frame)
    left: list[Frame] = []
    while len(outbox):
        batch = outbox.take(0.0)
        assert batch
        assert len(batch) == 1 or sum(map(len, batch)) <= MAX_BATCH_BYTES
        left += batch
    assert list(map(id, left)) == list(map(id, expected[False] + expected[True]))
    assert outbox.waiting_bytes == 0
