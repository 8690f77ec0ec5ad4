"""How old an answer may be, and how old one is: `Cache-Control` and `Age` (RFC 9111). Pure.

Of a request's directives two are known here, and one more that comes to the same; what is not known, or not
well-formed, is as good as not said.
"""

import math
import re
from collections.abc import Sequence

from openline.v1 import command_pb2

_SECONDS = re.compile(r"[0-9]{1,9}")
# An answer that is nobody else's.
_OWN = frozenset({"no-cache", "no-store"})


def read_max_age(values: Sequence[str]) -> float | None:
    """Seconds, from the header's values, of which there may be several; None where nothing is said."""
    ages: list[float] = []
    for directive in ",".join(values).split(","):
        name, _, value = directive.partition("=")
        name, value = name.strip().lower(), value.strip().strip('"')
        if name in _OWN:
            ages.append(0.0)
        elif name == "max-age" and _SECONDS.fullmatch(value):
            ages.append(float(value))
    return min(ages, default=None)


def age_headers(result: command_pb2.CommandResult) -> dict[str, str]:
    """Of an answer that is another command's run; whole seconds, and never too few."""
    return {"Age": str(math.ceil(result.age_s))} if result.served_from and math.isfinite(result.age_s) else {}
