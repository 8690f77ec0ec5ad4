"""The measurement of starting processes: that it measures every way, and leaves nothing behind."""

import json
import os
from pathlib import Path

from loadtest.spawn import WAYS, as_json, measure


def test_every_way_starts_every_process_and_leaves_nothing() -> None:
    """As many starts as asked for in each way, times that make sense, no child and no descriptor left."""
    measure(["/bin/true"], count=1, progressed=lambda: None)  # libuv keeps a pipe from its first process on
    descriptors = len(os.listdir("/proc/self/fd"))
    done = 0

    def count() -> None:
        nonlocal done
        done += 1

    costs = measure(["/bin/true"], count=3, progressed=count)
    assert done == 3 * len(WAYS)
    assert [cost.way for cost in costs] == list(WAYS)
    assert all(0 < cost.start_p50_ms <= cost.start_p99_ms < 10_000 for cost in costs)
    assert all(0 < cost.loop_p50_ms <= cost.loop_p99_ms for cost in costs)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    text = json.dumps(as_json(costs))
    assert json.loads(text)["machine"]["processors"] == os.cpu_count()
    assert Path("/bin/true").name in text
