"""The files of the live page: what is sent, what the page may do, and that all of it is in the wheel."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest

from gateway.live_page import POLICY, TYPES, read_files

ROOT = Path(__file__).parents[2]
FILES = sorted(read_files())


@pytest.mark.asyncio(loop_scope="session")
async def test_the_page_needs_no_key_and_may_do_little(api: httpx.AsyncClient) -> None:
    """It asks for one itself, and for nothing of anybody else's."""
    answer = await api.get("/ui", headers={"X-API-Key": ""})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"] == POLICY
    policy = dict(each.partition(" ")[::2] for each in POLICY.split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "img", "connect")} == {"'self'"}
    assert (policy["require-trusted-types-for"], policy["trusted-types"]) == ("'script'", "'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("name", [name for name in FILES if name != "index.html"])
async def test_a_file(api: httpx.AsyncClient, name: str) -> None:
    """With its very type, and not sent again to whoever has it."""
    answer = await api.get(f"/ui/{name}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, TYPES[name.rpartition(".")[2]])
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.content == (ROOT / "gateway" / "ui" / name).read_bytes()
    etag = answer.headers["etag"]
    for known in (etag, f"W/{etag}", f'"another", {etag}', "*"):
        again = await api.get(f"/ui/{name}", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (await api.get(f"/ui/{name}", headers={"If-None-Match": '"another"'})).status_code == 200
    head = await api.head(f"/ui/{name}")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(answer.content)))


@pytest.mark.parametrize(
    "path", ["/ui/index.html", "/ui/none.js", "/ui/..%2fapp.py", "/ui/../app.py", "/ui/%2e%2e/app.py", "/ui/app.js/x"]
)
@pytest.mark.asyncio(loop_scope="session")
async def test_what_is_no_file_of_it(api: httpx.AsyncClient, path: str) -> None:
    assert (await api.get(path)).status_code == 404


@pytest.mark.asyncio(loop_scope="session")
async def test_the_page_is_found_with_a_slash_as_well(api: httpx.AsyncClient) -> None:
    """Behind a prefix, too: it is told where from where it is."""
    answer = await api.get("/ui/")
    assert (answer.status_code, answer.headers["location"]) == (308, "../ui")


def test_nothing_is_written_into_the_page_that_the_policy_would_refuse() -> None:
    """No script and no style but in files, no listener in an attribute, and nothing from elsewhere."""
    page = read_files()["index.html"].content.decode()
    assert re.findall(r"<script(?![^>]* src=)[^>]*>", page) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=", page) == []
    named = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert {name.removeprefix("ui/") for name in named} <= set(FILES)
    for name, file in read_files().items():
        text = file.content.decode()
        assert "://" not in text.replace("http://www.w3.org/2000/svg", ""), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )


def test_every_file_is_used() -> None:
    """By the page, or by another file that is."""
    files = {name: file.content.decode() for name, file in read_files().items()}
    used, looked_at = {"index.html"}, set[str]()
    while todo := used - looked_at:
        for name in todo:
            looked_at.add(name)
            used |= {other for other in files if f'/{other}"' in files[name]}
    assert used == files.keys()


def test_no_file_is_long() -> None:
    """As with modules: over 250 lines it holds two ideas."""
    assert {name for name, file in read_files().items() if file.content.count(b"\n") > 250} == set()


def test_the_wheel_has_every_file(tmp_path: Path) -> None:
    """As it is built from this tree, with what is installed here."""
    build = "import sys, hatchling.build as b; print(b.build_wheel(sys.argv[1]))"
    run = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert run.returncode == 0, run.stderr
    [wheel] = tmp_path.glob("*.whl")
    packed = zipfile.ZipFile(wheel).namelist()
    assert {f"gateway/ui/{name}" for name in FILES} <= set(packed)
