"""Metrics as Prometheus reads them: what a program has counted is turned into text when somebody asks for it.

prometheus_client's own counters are not used, since a command has many of them: its histogram takes a lock and costs
six times ours.
"""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from openline.metrics import Metric
from openline.tally import Histogram

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# The values of one metric, each with those of its labels, in the metric's order.
Reading = tuple[Metric, Iterable[tuple[tuple[str, ...], float | Histogram]]]


def single(value: float | Histogram) -> list[tuple[tuple[str, ...], float | Histogram]]:
    """The values of a metric without labels."""
    return [((), value)]


def yes_no(said: bool) -> str:
    """The value of a label."""
    return "yes" if said else "no"


class Exposition:
    """All metrics of a program; `read` gives their values now."""

    def __init__(self, read: Callable[[], Iterable[Reading]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Readings(read))
        # Memory, CPU and file descriptors, which Linux tells.
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Of `CONTENT_TYPE`."""
        return generate_latest(self._registry)


class _Readings(Collector):
    def __init__(self, read: Callable[[], Iterable[Reading]]) -> None:
        self._read = read

    def describe(self) -> Iterator[Family]:
        """Nothing: a registry that is told nothing does not read them only to be told the names."""
        return iter(())

    def collect(self) -> Iterator[Family]:
        for metric, values in self._read():
            yield _family(metric, values)


def _family(metric: Metric, values: Iterable[tuple[tuple[str, ...], float | Histogram]]) -> Family:
    if metric.kind == "histogram":
        histograms = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, value in values:
            if isinstance(value, Histogram):
                histograms.add_metric(labels, list(value.buckets()), value.total)
        return histograms
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    numbers = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in values:
        if not isinstance(value, Histogram):
            numbers.add_metric(labels, value)
    return numbers
