"""Whether a key is one, where a request could be answered without any broker."""

from gateway.callers import Caller
from gateway.stubs import Stubs
from openline.errors import OpenlineError
from openline.reasons import Reason


async def refuse_wrong_key(stubs: Stubs, caller: Caller) -> None:
    """Raises UNAUTHENTICATED. Of what nobody says in time nothing is known, and what can be had without is given."""
    try:
        await stubs.check_key(caller)
    except OpenlineError as failure:
        if failure.reason is Reason.UNAUTHENTICATED:
            raise
