"""A small HTTP answer for whoever watches this process: 200 while the line to a broker stands, 503 otherwise."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from openline.page import Page, serve_page
from openline.settings import Address

OK = Page(b'{"status":"ok"}')
NOT_CONNECTED = Page(b'{"status":"not connected"}', b"503 Service Unavailable")


def serve_health(address: Address, *, healthy: Callable[[], bool]) -> AbstractAsyncContextManager[int]:
    """Answers `GET /healthz` on the address while the block runs; gives the port. Raises OSError if it is taken."""
    return serve_page(address, b"/healthz", lambda: OK if healthy() else NOT_CONNECTED)
