"""The measurement of starting processes: that it measures every way, and leaves nothing behind."""

import os

from loadtest.spawn import WAYS, measure


def test_every_way_starts_every_process_and_leaves_nothing() -> None:
    """Times that make sense, no child and no descriptor left."""
    measure(["/bin/true"], count=1)  # libuv keeps a pipe from its first process on
    descriptors = len(os.listdir("/proc/self/fd"))
    costs = measure(["/bin/true"], count=3)
    assert [cost.way for cost in costs] == list(WAYS)
    assert all(0 < cost.start_p50_ms <= cost.start_p99_ms < 10_000 for cost in costs)
    assert all(0 < cost.loop_p50_ms <= cost.loop_p99_ms for cost in costs)
    assert len(os.listdir("/proc/self/fd")) == descriptors
