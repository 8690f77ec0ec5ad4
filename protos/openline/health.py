"""What an orchestrator asks a process, in plaintext since its probes speak no TLS: `GET /healthz`, whether it can be of
use now, and `GET /livez`, whether it answers at all.

Who restarts a process for its /healthz restarts it because somebody else is away.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from openline.page import Page, serve_pages
from openline.settings import Address

OK = Page(b'{"status":"ok"}')


def serve_health(address: Address, *, healthy: Callable[[], bool], otherwise: str) -> AbstractAsyncContextManager[int]:
    """Answers while the block runs; gives the port. `otherwise` is what /healthz says with 503.

    Raises OSError if the address cannot be had.
    """
    unhealthy = Page(b'{"status":"%b"}' % otherwise.encode(), b"503 Service Unavailable")
    return serve_pages(address, {b"/healthz": lambda: OK if healthy() else unhealthy, b"/livez": lambda: OK})
