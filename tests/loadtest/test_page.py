"""The page and its pictures."""

import xml.etree.ElementTree as ET

import pytest

from loadtest import pictures
from loadtest.figures import OK
from loadtest.histogram import Histogram
from loadtest.page import page
from loadtest.report import Fact, Measured, Report

SVG_WIDTH = pictures.WIDTH


def drawn(*seconds: float) -> ET.Element:
    histogram = Histogram()
    for each in seconds:
        histogram.record(each)
    return ET.fromstring(pictures.histogram(histogram.bars(), {"p50": histogram.percentile_s(50)}))  # noqa: S314  (our own picture)


@pytest.mark.parametrize("seconds", [(0.001,), (1e-9, 1e6), (0.0005, 0.0006, 0.01), (0.1, 0.1, 0.1)])
def test_every_bar_is_inside_of_the_picture(seconds: tuple[float, ...]) -> None:
    """Whatever was measured."""
    picture = drawn(*seconds)
    bars = picture.findall("rect")
    assert 1 <= len(bars) <= len(set(seconds))
    for bar in bars:
        left, top, width, height = (float(bar.attrib[name]) for name in ("x", "y", "width", "height"))
        assert pictures.LEFT - 1 <= left < left + width <= SVG_WIDTH
        assert pictures.TOP - 1 <= top < top + height <= pictures.BASE + 0.2


def test_the_axis_has_few_marks() -> None:
    """Fine ones for a narrow range, powers of ten for a wide one; the name of the other axis is among them."""
    for seconds in ((0.001, 0.004), (0.001, 0.5), (1e-6, 100.0)):
        labels = [text.text for text in drawn(*seconds).findall("text[@text-anchor='middle']")]
        assert 2 <= len(labels) <= 12


@pytest.mark.parametrize("rates", [[(0.0, 5.0)], [(0.0, 0.0)], [(0.0, 1e6), (0.25, 0.0), (0.5, 3.0)]])
def test_throughput_can_be_drawn(rates: list[tuple[float, float]]) -> None:
    """Also a single value, and nothing at all."""
    curve = ET.fromstring(pictures.throughput(rates)).find("polyline")  # noqa: S314  (our own picture)
    assert curve is not None
    assert len(curve.attrib["points"].split()) == 2 * len(rates)


def test_the_page_needs_nothing_else() -> None:
    """No script, nothing that is loaded, nothing unescaped; both colour schemes."""
    measured = Measured("<pipe>", 64, cpu_us={"broker": 11.0})
    measured.figures.record(OK, latency_s=0.001, at_s=0.1)
    measured.figures.record("CLUSTER_OFFLINE", latency_s=0.001, at_s=0.1)
    measured.figures.seconds = 1.0
    report = Report(
        "dispatch", {}, measured=[measured], facts=[Fact("memory", 1.5, "MiB")], ratios={"idle_stream_kib": None},
        notes=["<b>note</b>"],
    )  # fmt: skip
    text = page(report)
    assert "prefers-color-scheme: dark" in text
    assert text.count("<svg") == 2
    assert "not measured" in text
    assert not [word for word in ("<script", "http:", "https:", "src=", "url(", "<pipe>", "<b>") if word in text]


def test_a_page_of_nothing_is_a_page() -> None:
    """As after Ctrl-C at once."""
    assert page(Report("mixed", {})).endswith("</html>\n")
