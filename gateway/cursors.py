"""Where a page of output goes on: the command, how its output is shaped, and the offset, as one opaque word. Pure.

Nothing is kept for it in the gateway, so that any gateway takes it. It is not signed: it says nothing that its bearer
could not ask for anyway, and is checked like any other request.
"""

import base64
import binascii
import json
from dataclasses import dataclass

from gateway.shaping import Shaping

# A grep and a jsonpath at their longest, in whatever script.
MAX_CURSOR_CHARS = 9_000


class BadCursor(ValueError):
    """Not one of ours, or for another command."""


@dataclass(frozen=True, slots=True)
class Cursor:
    command_id: str
    offset: int
    shaping: Shaping


def write_cursor(cursor: Cursor) -> str:
    s = cursor.shaping
    fields = [cursor.command_id, cursor.offset, s.jsonpath, s.grep, s.grep_context, s.tail, s.max_chars]
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(text: str) -> Cursor:
    """Raises BadCursor. What the shaping says is for `shaping_models` to check."""
    if len(text) > MAX_CURSOR_CHARS or not text.isascii():
        raise BadCursor("not a cursor")
    try:
        fields = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        command_id, offset, jsonpath, grep, grep_context, tail, max_chars = fields
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise BadCursor("not a cursor") from None
    if not (
        isinstance(command_id, str)
        and _is_count(offset)
        and _is_count(grep_context)
        and (jsonpath is None or isinstance(jsonpath, str))
        and (grep is None or isinstance(grep, str))
        and (tail is None or _is_count(tail))
        and (max_chars is None or _is_count(max_chars))
    ):
        raise BadCursor("not a cursor")
    shaping = Shaping(jsonpath=jsonpath, grep=grep, grep_context=grep_context, tail=tail, max_chars=max_chars)
    return Cursor(command_id, offset, shaping)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53
