"""/ui: the live page. Files that are sent as they are, from memory: nothing is built, and nothing comes from elsewhere.

The page asks for a key itself; these files need none, and there is nothing in them but how it is drawn.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from fastapi import APIRouter, HTTPException, Request, Response

PAGE = "index.html"
TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# What the page may do: run these scripts, and ask this gateway. Text cannot become markup by any of them: there is no
# policy that makes trusted types, so whatever takes markup throws.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # A newer gateway has other files under the same names: each is asked for again, and sent again if it is another.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    media_type: str
    etag: str


def read_files() -> Mapping[str, File]:
    """All that there are, by name."""
    files = {}
    for path in (resources.files("gateway") / "ui").iterdir():
        content = path.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        files[path.name] = File(content, TYPES[path.name.rpartition(".")[2]], etag)
    return files


def live_page_routes() -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    files = read_files()

    @routes.get("/ui")
    async def page(request: Request) -> Response:
        """For an operator."""
        return _sent(files[PAGE], request)

    @routes.get("/ui/")
    async def elsewhere() -> Response:
        """What the page asks for is found from where it is; behind a prefix as well."""
        return Response(status_code=308, headers={"Location": "../ui"})

    @routes.get("/ui/{name}")
    async def file(name: str, request: Request) -> Response:
        if name == PAGE or (found := files.get(name)) is None:
            raise HTTPException(404)
        return _sent(found, request)

    return routes


def _sent(file: File, request: Request) -> Response:
    headers = {**HEADERS, "ETag": file.etag}
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if file.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
