"""--token-file, looked at again and again: a new token is shown to the broker on the connection that stands.

So a token is replaced without a gap: the old one may be revoked once the new one was shown. Every new connection reads
the file for itself.
"""

import asyncio
from collections.abc import Callable

import structlog

from executor.settings import ExecutorSettings

# A change is taken over at the second look after it. A look at a file takes microseconds.
LOOK_EVERY_S = 1.0

log = structlog.get_logger()


async def watch_token(settings: ExecutorSettings, show: Callable[[str], None]) -> None:
    """Calls `show` with what the file says, again and again, until it is cancelled by its owner.

    Not before it has stayed the same for two looks: it may be half written. What cannot be a token is logged once, and
    changes nothing.
    """
    seen: str | None = None
    failure = ""
    while settings.token_file is not None:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            token = settings.read_token()
        except (OSError, ValueError) as problem:
            if failure != (failure := str(problem)):
                log.warning("token.unusable", why=failure)
            continue
        failure = ""
        if token and token == seen:
            show(token)
        seen = token
