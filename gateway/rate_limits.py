"""Quotas as HTTP headers: RateLimit-Policy and RateLimit, in the form of draft-ietf-httpapi-ratelimit-headers-10."""

import math
import re
from collections.abc import Mapping, Sequence

from openline.v1.command_service_pb2 import QuotaState

# For the documentation of routes.
RATE_LIMIT_HEADERS = {
    "RateLimit-Policy": {
        "description": 'The key\'s quotas: `"commands";q=600;w=60` is 600 commands in 60 seconds, '
        '`"in-flight";q=20;qu="concurrent-requests"` 20 at one time. Only where there is one.',
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": 'What is left: `"commands";r=42;t=13` is 42, and all of them again in 13 seconds.',
        "schema": {"type": "string"},
    },
}

_NAME = re.compile(r"[a-z-]{1,40}")


def rate_limit_headers(quotas: Sequence[QuotaState]) -> dict[str, str]:
    """Nothing where no quota applies."""
    if not quotas:
        return {}
    return {
        "RateLimit-Policy": ", ".join(map(_policy, quotas)),
        "RateLimit": ", ".join(map(_left, quotas)),
    }


def headers_of_error(metadata: Mapping[str, str]) -> dict[str, str]:
    """What a QUOTA_EXCEEDED says of its quota; nothing where that is malformed: it may be anybody's word."""
    try:
        state = QuotaState(
            name=metadata["quota"],
            limit=int(metadata["limit"]),
            remaining=int(metadata["remaining"]),
            window_s=float(metadata["window_s"]),
            reset_s=float(metadata["reset_s"]),
        )
    except (KeyError, ValueError):
        return {}
    finite = math.isfinite(state.window_s) and math.isfinite(state.reset_s)
    return rate_limit_headers([state]) if finite and _NAME.fullmatch(state.name) else {}


def _policy(state: QuotaState) -> str:
    unit = f";w={state.window_s:.0f}" if state.window_s else ';qu="concurrent-requests"'
    return f'"{state.name}";q={state.limit}{unit}'


def _left(state: QuotaState) -> str:
    reset = f";t={math.ceil(state.reset_s)}" if state.window_s else ""
    return f'"{state.name}";r={state.remaining}{reset}'
