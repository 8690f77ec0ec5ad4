"""Ratios: medians of rounds, and the guard against those that are committed."""

import json
import math
from pathlib import Path

import pytest

from loadtest.compare.command import GROUPS
from loadtest.compare.contenders import Turn
from loadtest.compare.ratios import IDLE, KEYS, RATIOS, read_committed, worse


def turns(*p50_ms: float, **cpu_us: float) -> list[Turn]:
    return [Turn(each, 1000 / each, cpu_us) for each in p50_ms]


def test_the_median_is_of_the_ratios_of_each_round() -> None:
    """Not the ratio of medians: a round in which the machine was slow slows both."""
    rounds = {"pipe_c1": turns(1.0, 10.0, 3.0), "nats_c1": turns(1.0, 5.0, 1.0)}
    assert RATIOS["pipe_c1_p50_over_nats"].of(rounds) == 2.0


def test_cpu_is_of_one_process_on_each_side() -> None:
    """The gateway's over that of the bare server."""
    rounds = {"rest_c16": turns(1.0, gateway=300.0, broker=900.0), "bare_uvicorn_c16": turns(1.0, bare=100.0)}
    assert RATIOS["rest_cpu_over_bare_uvicorn"].of(rounds) == 3.0


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param({}, id="nobody"),
        pytest.param({"pipe_c1": turns(1.0)}, id="one of them"),
        pytest.param({"pipe_c1": turns(math.nan), "nats_c1": turns(1.0)}, id="no answers"),
    ],
)
def test_without_both_there_is_no_ratio(rounds: dict[str, list[Turn]]) -> None:
    """It is None, which is shown as not measured."""
    assert RATIOS["pipe_c1_p50_over_nats"].of(rounds) is None


@pytest.mark.parametrize("key", RATIOS)
def test_both_sides_are_measured_in_one_group(key: str) -> None:
    """Else they would not take turns."""
    assert [group for group in GROUPS if {RATIOS[key].over, RATIOS[key].under} <= set(group.names)]


def test_worse_is_more_time_or_less_throughput() -> None:
    """By more than is allowed; what was not measured is not worse."""
    committed = {"pipe_c1_p50_over_nats": 1.0, "pipe_c64_rate_over_nats": 1.0, IDLE: 40.0}

    def found(p50: float | None, rate: float, kib: float) -> list[str]:
        now = {"pipe_c1_p50_over_nats": p50, "pipe_c64_rate_over_nats": rate, IDLE: kib}
        return list(worse(now, committed, tolerance=0.3))

    assert found(1.29, 0.71, 51.0) == []
    assert found(0.1, 9.0, 1.0) == []
    assert found(1.31, 0.69, 53.0) == list(committed)
    assert found(None, 1.0, 40.0) == []


def test_what_is_committed_can_be_read() -> None:
    """`make bench` needs it, and it names every ratio."""
    assert set(read_committed(Path(__file__).parents[2] / "loadtest" / "committed.json")) == set(KEYS)


@pytest.mark.parametrize("text", ["", "[]", '{"ratios": 1}', '{"ratios": {"idle_stream_kib": "x"}}'])
def test_a_file_without_ratios_is_refused(tmp_path: Path, text: str) -> None:
    """In one sentence that names it."""
    file = tmp_path / "committed.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"there are no ratios in .*committed\.json"):
        read_committed(file)


def test_what_could_not_be_measured_is_not_committed(tmp_path: Path) -> None:
    """A file from a machine without NATS can be used."""
    file = tmp_path / "committed.json"
    file.write_text(json.dumps({"ratios": {"pipe_c1_p50_over_nats": None, IDLE: 40, "other": 1}}))
    assert read_committed(file) == {IDLE: 40.0}
