"""Sequence diagrams: the part of Mermaid that is drawn, and what is refused."""

import re
from xml.etree import ElementTree

import pytest
from pymdownx.superfences import SuperFencesException

from handbook.sequences import CHARACTER, Message, NotASequence, Note, draw, fence, read

SOURCE = """
sequenceDiagram
    accTitle: Who asks <whom>
    participant A as agent
    participant G as gateway
    participant B as broker & all
    A->>G: a rather long question, longer than the distance of two lines
    G->>G: thinks
    G-xB: lost
    Note over G,B: nobody<br/>hears
    B-->>A: answer
    Note over B: done
"""


def drawn() -> ElementTree.Element:
    return ElementTree.fromstring(draw(read(SOURCE)))[0]  # noqa: S314  (what we have drawn ourselves)


def test_a_diagram_is_read() -> None:
    diagram = read(SOURCE)
    assert diagram.title == "Who asks <whom>"
    assert diagram.names == ("agent", "gateway", "broker & all")
    assert diagram.steps[1:4] == (
        Message(1, 1, "->>", ("thinks",)),
        Message(1, 2, "-x", ("lost",)),
        Note(1, 2, ("nobody", "hears")),
    )


def test_a_diagram_is_svg_with_its_title_and_every_word() -> None:
    svg = drawn()
    assert svg.tag == "svg"
    assert svg.findtext("title") == "Who asks <whom>"
    words = [text.text for text in svg.findall("text")]
    assert words == [
        "agent", "gateway", "broker & all", "a rather long question, longer than the distance of two lines",
        "thinks", "lost", "nobody", "hears", "answer", "done",
    ]  # fmt: skip
    kinds = [line.get("class") for line in svg.iter() if line.get("class") in ("asked", "answered", "lost")]
    assert sorted(map(str, kinds)) == ["answered", "asked", "asked", "lost", "lost"]


def test_nothing_is_outside_of_the_picture_and_words_have_room() -> None:
    """Lines are as far from each other as the words between them are long."""
    svg = drawn()
    width, height = float(svg.attrib["width"]), float(svg.attrib["height"])
    for text in svg.findall("text"):
        x, y, long = float(text.attrib["x"]), float(text.attrib["y"]), len(text.text or "") * CHARACTER
        start = x if text.get("text-anchor") == "start" else x - long / 2
        assert 0 <= start <= start + long <= width
        assert 0 < y < height
    lives = [float(line.attrib["x1"]) for line in svg.findall("line") if line.get("class") == "life"]
    assert lives == sorted(lives)
    assert lives[1] - lives[0] > len("a rather long question, longer than the distance of two lines") * CHARACTER


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("sequenceDiagram", "flowchart LR"), "begins with"),
        (("A->>G:", "A->>X:"), "no participant is called 'X'"),
        (("A->>G:", "A~>G:"), "not understood: 'A~>G: a rather"),
        (("thinks", "thinks; and asks"), "mean something else"),
        (("accTitle: Who asks <whom>", ""), "has an accTitle"),
    ],
)
def test_what_is_not_drawn_here_is_refused(change: tuple[str, str], why: str) -> None:
    with pytest.raises(NotASequence, match=re.escape(why)):
        read(SOURCE.replace(*change))


def test_a_diagram_that_cannot_be_drawn_ends_the_build() -> None:
    """SuperFences would make code of anything else that is raised."""
    with pytest.raises(SuperFencesException, match="begins with"):
        fence("flowchart LR", "mermaid", "sequence", {}, None)
