"""Rates and percentiles from totals, as `openline-broker top` has them; e2e holds the page's own against these."""

import itertools
import math

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from broker.rates import Durations, History
from openline.tally import SECONDS, Histogram
from openline.v1 import overview_pb2 as pb
from openline.v1.cluster_service_pb2 import Replica


def overview(*replicas: tuple[str, int, dict[tuple[str, str], int], list[float]]) -> pb.Overview:
    """Of each replica: id, start, ends, and the durations of all its commands."""
    made = pb.Overview(is_whole=True)
    for replica_id, started, ends, durations in replicas:
        histogram = Histogram()
        for duration in durations:
            histogram.observe(duration)
        figures = pb.Figures(
            ends=[pb.EndCount(outcome=outcome, reason=reason, count=n) for (outcome, reason), n in ends.items()],
            total=pb.Durations(bounds_s=histogram.bounds, counts=histogram.counts, sum_s=histogram.total),
        )
        record = Replica(replica_id=replica_id, started_at=Timestamp(seconds=started))
        made.replicas.append(pb.ReplicaOverview(replica=record, reachable=True, figures=figures))
    return made


OK, BUSY = ("exited", ""), ("refused", "CLUSTER_BUSY")


def test_a_rate_is_the_difference_of_two_looks() -> None:
    """Of all replicas together; one look alone tells nothing."""
    history = History()
    history.take(overview(("a", 1, {OK: 1000}, []), ("b", 1, {OK: 5}, [])), seconds=0)
    assert history.over(60).per_second is None
    history.take(overview(("a", 1, {OK: 1010}, []), ("b", 1, {OK: 10, BUSY: 5}, [])), seconds=2)
    step = history.over(60)
    assert step.per_second == 10
    assert (step.ends[OK], step.ends[BUSY], step.error_share) == (15, 5, 0.25)


def test_a_look_that_was_missed_costs_nothing() -> None:
    """A replica that did not answer is counted when it does again."""
    history = History()
    history.take(overview(("a", 1, {OK: 1}, [])), seconds=0)
    history.take(overview(), seconds=1)
    history.take(overview(("a", 1, {OK: 9}, [])), seconds=1)
    assert (history.over(60).ends[OK], history.over(60).per_second) == (8, 4)


def test_a_replica_that_is_gone_for_good_is_forgotten() -> None:
    """With each restart there is one more that never comes back. One that does so later is one that was just seen."""
    history = History()
    history.take(overview(("a", 1, {OK: 1}, []), ("gone", 1, {OK: 5}, [])), seconds=0)
    for away_s, says, counted in ((250, 8, 3), (350, 20, 0)):
        for _ in range(away_s):
            history.take(overview(("a", 1, {OK: 1}, [])), seconds=1)
        history.take(overview(("a", 1, {OK: 1}, []), ("gone", 1, {OK: says}, [])), seconds=1)
        assert history.over(60).ends[OK] == counted


def test_a_replica_that_was_restarted_begins_anew() -> None:
    """It has counted less than before, and nothing is taken away for that."""
    history = History()
    history.take(overview(("a", 1, {OK: 100}, [])), seconds=0)
    history.take(overview(("a", 2, {OK: 3}, [])), seconds=1)
    history.take(overview(("a", 2, {OK: 7}, [])), seconds=1)
    assert history.over(60).ends[OK] == 4


def test_a_replica_that_comes_has_counted_before() -> None:
    """What it did until now is not of this second."""
    history = History()
    history.take(overview(("a", 1, {OK: 1}, [])), seconds=0)
    history.take(overview(("a", 1, {OK: 2}, []), ("b", 1, {OK: 90_000}, [])), seconds=1)
    assert history.over(60).ends[OK] == 1


def test_no_more_is_kept_than_is_asked_for() -> None:
    history = History(kept_s=60)
    for count in range(1000):
        history.take(overview(("a", 1, {OK: 2 * count}, [])), seconds=1)
    assert history.over(10**9).seconds == 60
    assert (history.over(5).ends[OK], history.over(5).per_second) == (10, 2)


def test_cancelled_is_no_error() -> None:
    history = History()
    history.take(overview(("a", 1, {OK: 0}, [])), seconds=0)
    history.take(overview(("a", 1, {("cancelled", "CANCELLED"): 5, ("lost", "EXECUTOR_LOST"): 5}, [])), seconds=1)
    assert history.over(60).error_share == 0.5


def percentile(durations: list[float], share: float) -> float | None:
    history = History()
    history.take(overview(("a", 1, {}, [])), seconds=0)
    history.take(overview(("a", 1, {}, durations)), seconds=1)
    return history.over(60).total.percentile(share)


def test_percentiles_of_nothing_and_of_what_is_beyond_all_bounds() -> None:
    assert percentile([], 0.5) is None
    assert percentile([1e6], 0.5) == SECONDS[-1]
    assert Durations().percentile(0.5) is None


@given(st.lists(st.floats(0.0001, 299), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_percentile_is_in_the_bucket_of_the_value_it_stands_for(durations: list[float], share: float) -> None:
    """As near as the bounds tell, and never beyond them."""
    found = percentile(durations, share)
    exact = sorted(durations)[max(0, math.ceil(round(share * len(durations), 9)) - 1)]
    bounds = [0.0, *SECONDS]
    [(lower, upper)] = [(a, b) for a, b in itertools.pairwise(bounds) if a < exact <= b]
    assert found is not None
    assert lower <= found <= upper + 1e-9


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_percentiles_of_replicas_with_other_bounds_are_those_of_all(share: float) -> None:
    """As while one version takes the place of another."""
    one, other = Durations(), Durations()
    one.count(pb.Durations(), pb.Durations(bounds_s=[1, 2, 4], counts=[10, 10, 10, 0]))
    other.count(pb.Durations(), pb.Durations(bounds_s=[1, 3], counts=[10, 10, 0]))
    one.add(other)
    found = one.percentile(share)
    assert found is not None
    assert 1 < found <= 4
