"""Whether a key is one, where a request could be answered without any broker."""

from dataclasses import replace
from time import monotonic

from gateway.callers import Caller
from gateway.stubs import Stubs
from openline.errors import OpenlineError
from openline.reasons import Reason

# Whole seconds. A wrong key is told after half of one, and later where many are shown at one time.
CHECK_S = 2


async def refuse_wrong_key(stubs: Stubs, caller: Caller) -> None:
    """Raises UNAUTHENTICATED. Of what nobody says in time nothing is known, and what can be had without is given."""
    wait_s = min(CHECK_S, caller.wait_s or CHECK_S)
    try:
        await stubs.check_key(replace(caller, wait_s=wait_s, asked_at=monotonic()))
    except OpenlineError as failure:
        if failure.reason is Reason.UNAUTHENTICATED:
            raise
