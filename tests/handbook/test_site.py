"""The site: built as `make docs` builds it, whole, and with nothing on it that is fetched from elsewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from handbook.hooks import ELSEWHERE, with_links_of_the_site

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(config), "--site-dir", str(site)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    there = tmp_path_factory.mktemp("site")
    run = build(ROOT / "mkdocs.yml", there)
    assert run.returncode == 0, run.stderr
    return there


class Fetched(HTMLParser):
    """What a browser fetches by itself to show a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.addresses.append(given.get("src") or "")
        elif tag == "link" and given.get("rel") != "canonical":
            self.addresses.append(given.get("href") or "")


class Counted(HTMLParser):
    """How many of each element there are."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.n: dict[str, int] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.n[tag] = self.n.get(tag, 0) + 1


def test_every_page_is_there(site: Path) -> None:
    """Also those whose place is elsewhere in the repository."""
    names = [page.relative_to(ROOT / "docs").as_posix() for page in DOCS] + list(ELSEWHERE.values())
    assert [name for name in names if not (site / name.replace(".md", ".html")).is_file()] == []


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """Neither scripts nor fonts nor pictures; style sheets fetch nothing at all but what is in them."""
    pages = list(site.rglob("*.html"))
    fetched = {(page.name, address) for page in pages for address in Fetched(page.read_text()).addresses}
    assert {(name, address) for name, address in fetched if re.match("[a-z]+:|//", address)} == set()
    assert any(address.endswith(".css") for _, address in fetched)
    urls = {url for sheet in site.rglob("*.css") for url in re.findall(r"url\(([^)]*)\)", sheet.read_text())}
    assert {url for url in urls if re.match(r"""["']?(https?:|//)""", url)} == set()


def test_no_element_makes_the_theme_fetch_mermaid(site: Path) -> None:
    """The theme's script fetches it for elements of this class; our diagrams are pictures already."""
    assert [page.name for page in site.rglob("*.html") if re.search(r'class="[^"]*\bmermaid\b', page.read_text())] == []
    assert (site / "routing.html").read_text().count('<div class="sequence"><svg role="img"') == 5


@pytest.mark.parametrize("page", [*DOCS, *map(ROOT.joinpath, ELSEWHERE)], ids=lambda page: page.name)
def test_a_page_is_read_alike_on_github_and_on_the_site(site: Path, page: Path) -> None:
    """Lists and code that one of the two would run together with the text before them are as many on both."""
    text = page.read_text()
    name = ELSEWHERE.get(
        page.relative_to(ROOT).as_posix(), page.relative_to(ROOT / "docs").as_posix() if page in DOCS else ""
    )
    github = Counted(MarkdownIt("commonmark").enable("table").render(text)).n
    article = (site / name.replace(".md", ".html")).read_text().partition("<article")[2].partition("</article>")[0]
    ours = Counted(article).n
    ours["pre"] = ours.get("pre", 0) + article.count('<div class="sequence">')
    elements = ("h1", "h2", "h3", "ul", "ol", "li", "table", "tr", "pre", "blockquote")
    assert {each: ours.get(each, 0) for each in elements} == {each: github.get(each, 0) for each in elements}


def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path) -> None:
    """And so does an anchor, a page that is in no menu, and a diagram that cannot be drawn."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("# One\n\n[a](missing.md) [b](two.md#nowhere) [c](#nowhere)\n")
    (docs / "two.md").write_text("# Two\n")
    (docs / "three.md").write_text("# Three\n")
    (docs / "site.css").write_text("")
    config = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[0]
    config = (
        re.sub(r"hooks: .*\n", "", config)
        .replace("assets/site.css", "site.css")
        .replace("  favicon: assets/favicon.svg\n", "")
    )
    (tmp_path / "mkdocs.yml").write_text(config + "\nnav: [index.md, two.md]\n")
    run = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert run.returncode == 1
    for complaint in ("'missing.md'", "'two.md#nowhere'", "'#nowhere'", "three.md"):
        assert complaint in run.stderr
    (docs / "index.md").write_text("# One\n\n```mermaid\nflowchart LR\n```\n")
    run = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert run.returncode == 1
    assert "a diagram begins with 'sequenceDiagram'" in run.stderr


def test_links_between_pages_and_the_repository_are_those_of_the_site() -> None:
    """Pages are linked wherever they are, what has no page keeps its words, and what is nowhere is left to MkDocs."""
    assert (
        with_links_of_the_site(
            "[a](../docs/rest.md#lists) [b](kubernetes/executor/) [c](../SECURITY.md) [d](nowhere.yaml) `[e](x)`",
            "deploy.md",
        )
        == "[a](rest.md#lists) b [c](reporting.md) [d](nowhere.yaml) `[e](x)`"
    )
    assert with_links_of_the_site(
        "[a](rest.md) [b](../deploy/README.md) ![c](pictures/x.png) [d](#here)", "operating.md"
    ) == ("[a](rest.md) [b](deploy.md) ![c](pictures/x.png) [d](#here)")
