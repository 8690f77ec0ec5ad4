"""Figures: what counts, and what they are made into."""

import pytest

from loadtest.figures import OK, Figures
from loadtest.processes import used_us
from loadtest.report import Measured, Report
from loadtest.timeline import MAX_SLOTS, Timeline


def test_only_what_ended_well_has_a_latency() -> None:
    """A refusal is quick, and would make the others look better; it is counted by its reason."""
    figures = Figures(seconds=2.0)
    figures.record(OK, latency_s=0.010, at_s=0.1)
    figures.record(OK, latency_s=0.010, at_s=0.2)
    figures.record("CLUSTER_OFFLINE", latency_s=0.000_001, at_s=0.3)
    told = figures.as_json()
    assert (told["count"], told["ends"], told["rate"]) == (3, {OK: 2, "CLUSTER_OFFLINE": 1}, 1.0)
    assert told["latency_ms"] == {"p50": 10.0, "p90": 10.0, "p99": 10.0, "max": 10.0}
    assert sum(rate * 0.25 for _, rate in told["throughput"]) == 2


def test_nothing_measured_is_said_as_nothing() -> None:
    """JSON has no NaN."""
    assert Figures().as_json()["latency_ms"] == {"p50": None, "p90": None, "p99": None, "max": None}


def test_turns_add_up() -> None:
    """Their counts, their times, and so the rate."""
    turns = [Figures(seconds=1.0), Figures(seconds=3.0)]
    for turn, count in zip(turns, (1, 7), strict=True):
        for _ in range(count):
            turn.record(OK, latency_s=0.001, at_s=0.5)
    together = Figures()
    for turn in turns:
        together.merge(turn)
    assert (together.count, together.rate) == (8, 2.0)


@pytest.mark.parametrize(
    ("ends", "allowed", "is_good"),
    [
        pytest.param([OK], [], True, id="all well"),
        pytest.param([], [], False, id="nothing"),
        pytest.param([OK, "EXECUTOR_LOST"], [], False, id="lost"),
        pytest.param([OK, "EXECUTOR_LOST"], ["EXECUTOR_LOST"], True, id="lost, as may be"),
        pytest.param(["EXECUTOR_LOST"], ["EXECUTOR_LOST"], False, id="nothing else than lost"),
    ],
)
def test_a_report_is_good_when_all_ended_as_expected(ends: list[str], allowed: list[str], is_good: bool) -> None:
    """This is what the exit code says."""
    measured = Measured("pipe", 1, allowed=frozenset(allowed))
    for end in ends:
        measured.figures.record(end, latency_s=0.001, at_s=0.0)
    assert Report("dispatch", {}, measured=[measured]).is_good is is_good


def test_a_report_with_a_failure_is_not_good() -> None:
    """Though every command ended well."""
    assert not Report("storm", {}, failures=["only 3 of 4 executors were back"]).is_good


def test_cpu_is_for_each_command() -> None:
    """In microseconds, of those processes that used any."""
    before = {"broker": 1.0, "valkey": 2.0}
    assert used_us(before, {"broker": 1.5, "valkey": 2.0}, 1000) == {"broker": 500.0}
    assert used_us(before, before, 0) == {}


def test_a_timeline_becomes_coarser_and_loses_nothing() -> None:
    """A run of a week has no more slots than one of a minute."""
    timeline = Timeline()
    for second in range(0, 7 * 24 * 3600, 60):
        timeline.record(float(second))
    assert len(timeline.counts) <= MAX_SLOTS
    assert sum(timeline.counts) == 7 * 24 * 60


def test_the_slot_that_is_not_over_has_no_rate() -> None:
    """It would look like a drop at the end."""
    timeline = Timeline()
    for at_s in (0.1, 0.2, 0.3, 0.55):
        timeline.record(at_s)
    assert timeline.rates(0.6) == [(0.0, 8.0), (0.25, 4.0)]
    assert timeline.rates(0.2) == [(0.0, 20.0)]
