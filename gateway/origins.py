"""Whose page a request comes from: what is there for programs is not for web pages."""

from urllib.parse import urlsplit

from fastapi import HTTPException, Request

from openline.settings import is_loopback


def check_origin(http: Request) -> None:
    """Raises HTTPException for a request of a web page that is not this gateway's own."""
    if not _is_from_here(http):
        raise HTTPException(403, "Requests of web pages are not taken")


def _is_from_here(http: Request) -> bool:
    """Not of a page in somebody's browser, which may reach what that person reaches, such as a gateway on localhost.

    Browsers say whose page it is in each POST. A page of this gateway's own is one of this machine by its name as well:
    any other name may be made to lead here (DNS rebinding).
    """
    origin = http.headers.get("origin")
    if origin is None:
        return True
    try:
        asking = urlsplit(origin)
    except ValueError:
        return False
    return asking.netloc == http.headers.get("host") and is_loopback(asking.hostname or "")
