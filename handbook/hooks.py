"""What MkDocs is told while it builds: pages of the repository that are not in `docs/`, and links between the two.

A link from a page to another page is one on the site, wherever in the repository they are. What else is in the
repository has no page: there the words stay, without a link. What is nowhere is left to MkDocs, which fails.
"""

import os.path
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from handbook.links import Link, links

ROOT = Path(__file__).parent.parent
# Pages whose place in the repository is where people look for them, and as what they are on the site.
ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "deploy/README.md": "deploy.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for origin, page in ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / origin)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return with_links_of_the_site(markdown, page.file.src_uri)


def with_links_of_the_site(markdown: str, page: str) -> str:
    """The page with each link that leaves `docs/`, or comes from outside of it, as it is on the site."""
    origin = next((path for path, name in ELSEWHERE.items() if name == page), f"docs/{page}")
    parts: list[str] = []
    done = 0
    for link in links(markdown):
        if link.leaves or not link.path:
            continue
        parts += [markdown[done : link.start], _on_the_site(link, origin=origin, page=page, written=markdown)]
        done = link.end
    return "".join([*parts, markdown[done:]])


def _on_the_site(link: Link, *, origin: str, page: str, written: str) -> str:
    path = os.path.normpath(os.path.join(os.path.dirname(origin), link.path))
    if path.startswith("docs/"):
        target = path.removeprefix("docs/")
    elif path in ELSEWHERE:
        target = ELSEWHERE[path]
    elif not path.startswith("..") and (ROOT / path).exists():
        return link.text
    else:
        return written[link.start : link.end]
    target = os.path.relpath(target, os.path.dirname(page) or ".")
    mark = f"#{link.anchor}" if link.anchor else ""
    return f"{'!' if link.is_image else ''}[{link.text}]({target}{mark})"
