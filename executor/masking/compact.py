"""Masks Secrets in JSON without line ends, as in the annotation that `kubectl apply` leaves: inside a string too.

Braces are not counted: on a line with a Secret every flat map under `data` or `stringData` is taken for its own.
"""

import re

from executor.masking.marker import MARKER

_IS_SECRET = re.compile(rb'(\\{0,3})"kind\1" ?: ?\1"Secret\1"')


def _map(quote: bytes, content: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """A map of strings under one of the two keys, and the values in it."""
    string = quote + content + quote
    entry = string + rb" ?: ?" + string
    keys = rb"(?<!\\)" + quote + rb"(?:data|stringData)" + quote
    return (
        re.compile(keys + rb" ?: ?\{(?P<entries>(?: ?" + entry + rb" ?,?)*+)"),
        re.compile(rb"(" + string + rb" ?: ?" + quote + rb")(" + content + rb")(" + quote + rb")"),
    )


_MAPS = (
    _map(rb'"', rb'(?:[^"\\\n]|\\.)*+'),
    # Inside a string, where what follows a backslash is escaped once more.
    _map(rb'\\"', rb'(?:[^"\\\n]|\\\\(?:\\\\|\\"|[^"\\\n]))*+'),
    # And inside that: base64 needs no more.
    _map(rb'\\\\\\"', rb'[^"\\\n]*+'),
)


def mask_compact(block: bytes) -> tuple[bytes, int]:
    """The lines with the values of Secrets masked, and how many those were."""
    if not _IS_SECRET.search(block):
        return block, 0
    masked = 0

    def mask_value(entry: re.Match[bytes]) -> bytes:
        nonlocal masked
        if entry[2] in (b"", MARKER):
            return entry[0]
        masked += 1
        return entry[1] + MARKER + entry[3]

    lines = block.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if not _IS_SECRET.search(line):
            continue
        for flat_map, value in _MAPS:
            line = flat_map.sub(lambda found: value.sub(mask_value, found[0]), line)  # noqa: B023  (called at once)
        lines[number] = line
    return b"".join(lines), masked
