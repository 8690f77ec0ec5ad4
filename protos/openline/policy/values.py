"""What a flag's value must look like, and what bounds it."""

import math
import re

from openline.policy.denial import Refused, Rule, nearest, shown
from openline.policy.policy import Output
from openline.policy.tables import (
    BOOL,
    CLAMPS,
    MAX_CHUNK,
    MAX_LOG_REQUESTS,
    OUTPUT,
    PATH,
    VERBS,
    Clamp,
    Kind,
)
from openline.policy.templates import check_path, check_template

# What kubectl has to start, and to say how it ended, before it is killed at the deadline.
END_S = 1.0

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_PART = re.compile(r"([0-9.]+)(ms|s|m|h)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def check_value(verb: str, name: str, kind: Kind, value: str) -> str:
    """The value in the one way it is written from here on; raises Refused for one that is not of this kind."""
    if kind.shape.fullmatch(value) is None:
        raise Refused(Rule.VALUE, f"--{name} may not be {shown(value)}", allowed=kind.expected)
    if kind is BOOL:
        return "true" if value in _TRUE else "false"
    if kind is OUTPUT:
        return _check_output(verb, value)
    if kind is PATH:
        check_path(value)
    return value


def clamp(name: str, value: str, *, output: Output, streamed: bool, remaining_s: float) -> str:
    """The value, or the most that is allowed where it is more, or stands for no bound at all.

    How much a streamed log is, its reader decides: it flows as fast as it is read, until the deadline.
    """
    match CLAMPS.get(name):
        case Clamp.REMAINING:
            most_s = max(1, math.ceil(remaining_s))
            return value if 0 < _seconds(value) <= most_s else f"{most_s}s"
        case Clamp.WAITING:
            most_s = max(1, math.floor(remaining_s - END_S))
            return value if 0 < _seconds(value) <= most_s else f"{most_s}s"
        case Clamp.LOG_LINES if not streamed:
            return value if 0 <= int(value) <= output.max_log_lines else str(output.max_log_lines)
        case Clamp.LOG_BYTES if not streamed:
            return _at_most(value, output.max_log_bytes)
        case Clamp.CHUNK:
            return _at_most(value, MAX_CHUNK)
        case Clamp.REQUESTS:
            return _at_most(value, MAX_LOG_REQUESTS)
    return value


def _check_output(verb: str, value: str) -> str:
    allowed = VERBS[verb].outputs
    # kubectl takes its plain formats in any case.
    if value.lower() in allowed and not value.endswith("="):
        return value.lower()
    form = value.partition("=")[0]
    if f"{form}=" in allowed and "=" in value:
        check_template(value)
        return value
    guess = nearest(form, [each.removesuffix("=") for each in allowed])
    formats = " ".join(f"{each}…" if each.endswith("=") else each for each in allowed)
    message = f"the output format {shown(form)} is not allowed for {verb}"
    # With a template, whose own format was meant, there is its `=`.
    raise Refused(Rule.OUTPUT, message, allowed=formats, nearest=f"{guess}=…" if f"{guess}=" in allowed else guess)


def _at_most(value: str, most: int) -> str:
    return value if 0 < int(value) <= most else str(most)


def _seconds(duration: str) -> float:
    """`90`, `90s` or `1m30s` in seconds."""
    if duration.isdigit():
        return float(duration)
    return sum(float(count) * _UNIT_S[unit] for count, unit in _PART.findall(duration))
