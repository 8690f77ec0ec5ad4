"""The table of metrics, and the page that shows it."""

from pathlib import Path

import pytest

from openline import metrics
from openline.metrics import BROKER, GATEWAY, Metric
from openline.tally import SECONDS, Histogram

ALL = (*BROKER, *GATEWAY)


def row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"


def test_the_page_shows_the_table() -> None:
    """docs/operating.md has a row for each metric, in their order, and no other."""
    page = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("| `openline_")] == [row(each) for each in ALL]


def test_every_metric_of_the_module_is_in_a_table() -> None:
    assert {each for each in vars(metrics).values() if isinstance(each, Metric)} == set(ALL)
    assert len({each.name for each in ALL}) == len(ALL)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_names_say_the_program_and_the_unit(metric: Metric) -> None:
    assert metric.name.startswith(f"openline_{'broker' if metric in BROKER else 'gateway'}_")
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.kind != "histogram" or metric.name.endswith("_seconds")
    assert metric.help.endswith(".")
    assert len(metric.help) > 20


def test_a_histogram_counts_what_is_not_above_each_bound() -> None:
    """A value that is a bound counts there, as Prometheus has it (`le`)."""
    histogram = Histogram((0.1, 1.0))
    for value in (0.0, 0.1, 0.5, 1.0, 7.0):
        histogram.observe(value)
    assert list(histogram.buckets()) == [("0.1", 2), ("1.0", 4), ("+Inf", 5)]
    assert histogram.total == pytest.approx(8.6)
    assert len(list(Histogram().buckets())) == len(SECONDS) + 1
