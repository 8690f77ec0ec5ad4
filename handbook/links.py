"""The links of a Markdown text, and the names of its headings, as both GitHub and the site understand them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

FENCE = re.compile(r"^( *)(`{3,}|~{3,})[^\n]*\n.*?^ *\2[`~]* *$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\[\]]*)\]\((?P<target>[^()\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Link:
    """One link or picture: `[text](path#anchor)`, and where in the text it stands."""

    start: int
    end: int
    text: str
    target: str
    is_image: bool

    @property
    def path(self) -> str:
        """Empty for a place on the same page."""
        return self.target.partition("#")[0]

    @property
    def anchor(self) -> str:
        return self.target.partition("#")[2]

    @property
    def leaves(self) -> bool:
        """Whether it is to another site, which nobody here can look at."""
        return re.match(r"[a-z][a-z+.-]*:", self.target) is not None


def links(text: str) -> Iterator[Link]:
    """Each link that is not in code, in the order of the text."""
    for found in LINK.finditer(_without_code(text)):
        start, end = found.span("text")
        yield Link(found.start(), found.end(), text[start:end], found["target"], bool(found["image"]))


def anchors(text: str) -> set[str]:
    """What a link to this text may name. A heading that is there twice can be named once: the two sides disagree."""
    return {slug(text[found.start(1) : found.end(1)]) for found in HEADING.finditer(_blank(text, FENCE))}


def slug(heading: str) -> str:
    """A heading as links name it: lower case, without marks, spaces as hyphens."""
    plain = re.sub(r"\[([^\[\]]*)\]\([^()]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


def _without_code(text: str) -> str:
    for pattern in (FENCE, COMMENT, CODE):
        text = _blank(text, pattern)
    return text


def _blank(text: str, pattern: re.Pattern[str]) -> str:
    """The same text, of the same length, without what fits the pattern."""
    return pattern.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
