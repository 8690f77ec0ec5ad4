"""`Prefer` (RFC 7240): what a caller would like, as far as it is known here. Pure.

Of a preference that is given twice the first one counts, parameters are ignored, and what is not known, or not
well-formed, is as good as not said.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Nobody is kept longer than a long poll is.
MAX_WAIT_S = 60

# What is between commas, or between semicolons, where neither is quoted.
_PREFERENCE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
_PART = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*"?)+')
_SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Preferences:
    """What was said."""

    # 202 for what takes longer than `wait_s`.
    respond_async: bool = False
    wait_s: int | None = None
    # `handling=strict`: a timeout is an error.
    is_strict: bool = False


NONE = Preferences()


def read_preferences(values: Sequence[str]) -> Preferences:
    """From the header's values, of which there may be several."""
    said: dict[str, str] = {}
    for preference in _PREFERENCE.findall(",".join(values)):
        first = _PART.match(preference)
        name, _, value = (first.group() if first else "").partition("=")
        said.setdefault(name.strip().lower(), value.strip().strip('"').strip())
    wait = said.get("wait", "")
    return Preferences(
        respond_async="respond-async" in said,
        wait_s=min(int(wait), MAX_WAIT_S) if _SECONDS.fullmatch(wait) else None,
        is_strict=said.get("handling", "").lower() == "strict",
    )
