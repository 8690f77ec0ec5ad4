"""Every link in a Markdown file of the repository leads somewhere, with its anchor. No other machine is asked."""

from pathlib import Path

import pytest

from handbook.links import Link, anchors, links, slug

ROOT = Path(__file__).parents[2]
# Not what an installation or a build has left in the tree.
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in ("site", "build", "dist") for part in page.relative_to(ROOT).parts)
)


def wrong(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere."""
    return [link.target for link in links(text) if not link.leaves and not _leads(page, text, link)]


def _leads(page: Path, text: str, link: Link) -> bool:
    there = (page.parent / link.path).resolve() if link.path else page
    if there != page and not (there.is_relative_to(ROOT) and there.exists()):
        return False
    if not link.anchor:
        return True
    return there.suffix == ".md" and link.anchor in anchors(text if there == page else there.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert wrong(page, page.read_text()) == []


def test_there_are_links_to_look_at() -> None:
    """Of all pages, those of `docs/` and those beside it."""
    assert {"README.md", "SECURITY.md", "docs/security.md", "deploy/README.md"} <= {
        page.relative_to(ROOT).as_posix() for page in PAGES
    }
    assert sum(len(list(links(page.read_text()))) for page in PAGES) > 100


def test_a_link_that_leads_nowhere_is_found() -> None:
    """A file that is not there, a heading that is not there, a place outside of the repository."""
    page = ROOT / "docs" / "page.md"
    text = "# A page\n\n[a](missing.md) [b](errors.md#no-such) [c](#a-page) [d](#b-page) [e](../../etc) ![f](no.svg)"
    assert wrong(page, text) == ["missing.md", "errors.md#no-such", "#b-page", "../../etc", "no.svg"]


def test_links_in_code_are_none() -> None:
    fences = "```\n[e](f.md)\n```\n\n  ~~~\n  [g](h.md)\n  ~~~\n"
    text = f"`[a](b.md)` and ``[c](`d`)``\n\n{fences}\n<!-- [i](j.md) -->\n[k `l`](m.md)"
    assert [(link.text, link.target) for link in links(text)] == [("k `l`", "m.md")]


def test_headings_are_named_as_on_github() -> None:
    assert [
        slug(heading) for heading in ("What may run: the policy", "`rollout status` watches", "A / B", "A [b](c.md)")
    ] == [
        "what-may-run-the-policy",
        "rollout-status-watches",
        "a--b",
        "a-b",
    ]


def test_a_heading_in_code_is_none() -> None:
    assert anchors("# One\n\n```\n# Two\n```\n\n## Three `four`\n") == {"one", "three-four"}
