"""What admins do, each of it in the audit trail, done or refused; and what their requests and answers look like."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from broker.audit import Audit
from broker.core.access import rule
from broker.core.credentials import Caller, Credentials
from broker.core.patterns import Patterns
from broker.rpc.callers import known
from broker.rpc.service import shown
from openline import errors
from openline.lookups import CORRELATION_ID
from openline.reasons import Reason

MAX_REASON_CHARACTERS = 200
MAX_TTL_S = 10 * 365 * 24 * 3600.0
# What fits into a header and into every tool: of Base64's alphabet for URLs, and long enough not to be guessed.
CHOSEN = re.compile(r"[A-Za-z0-9_-]{32,128}")
CHOSEN_MEANS = "must be 32..128 of [A-Za-z0-9_-]"

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(slots=True)
class Action:
    """What an admin does, and what the audit trail will say of it."""

    caller: Caller
    detail: str


class Audited:
    def __init__(self, credentials: Credentials, audit: Audit) -> None:
        self._credentials = credentials
        self._audit = audit

    @contextlib.contextmanager
    def __call__(self, context: Context, name: str, *, cluster_id: str = "", detail: str = "") -> Iterator[Action]:
        """What is done within goes into the audit trail, under the name of its method in snake case.

        Raises UNAUTHENTICATED, SCOPE_MISSING.
        """
        caller = known(self._credentials, context)
        action = Action(caller, detail)
        correlation_id = shown(context, CORRELATION_ID) or ""
        tell = partial(self._audit.acted, name, caller, cluster_id=cluster_id, correlation_id=correlation_id)
        try:
            rule(f"AdminService.{name.title().replace('_', '')}").check(caller)
            yield action
        except errors.OpenlineError as refusal:
            tell(detail=action.detail, error=refusal.error)
            raise
        except BaseException:
            # Whoever gives up the call must not have done it unseen: what goes to Redis may have arrived.
            tell(detail=f"{action.detail} (broken off: may have been done)".lstrip())
            raise
        tell(detail=action.detail)


def instant(at: float | None) -> Timestamp | None:
    """Seconds since 1970, as an answer has them."""
    if at is None:
        return None
    stamp = Timestamp()
    stamp.FromMilliseconds(round(at * 1000))
    return stamp


def check(*fields: tuple[str, object, str]) -> None:
    """Raises INVALID_COMMAND unless every field (its name, whether it is good, what it must be) is good."""
    wrong: Sequence[tuple[str, str]] = [(name, description) for name, good, description in fields if not good]
    if wrong:
        raise errors.OpenlineError(errors.error(Reason.INVALID_COMMAND, "the request is not valid", violations=wrong))


def check_reason(reason: str) -> tuple[str, object, str]:
    good = len(reason) <= MAX_REASON_CHARACTERS and reason.isprintable()
    return "reason", good, f"must have at most {MAX_REASON_CHARACTERS} characters, all of them printable"


def check_patterns(texts: Sequence[str], *, usual: Patterns) -> tuple[Patterns, tuple[str, object, str]]:
    """The patterns, the usual ones if there are none or they are wrong, and their field."""
    try:
        return Patterns.of(texts) if texts else usual, ("clusters", True, "")
    except ValueError as mistake:
        return usual, ("clusters", False, str(mistake))


def check_ttl(ttl_s: float) -> tuple[str, object, str]:
    # Written so that NaN is refused as well.
    return "ttl_s", 0 <= ttl_s <= MAX_TTL_S, f"must be 0..{MAX_TTL_S:.0f}"
