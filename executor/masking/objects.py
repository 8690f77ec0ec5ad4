"""Masks `data` and `stringData` of Secrets, in JSON and YAML (kubectl's own dialect of it too), alone or in a list.

Objects are recognised by their indentation, as kubectl prints them. Keys come sorted, so `data` is there before
`kind`: such a block is held back until the kind of its object is known, or the object is over.
"""

import re
from dataclasses import dataclass, field

from executor.masking.compact import mask_compact
from executor.masking.marker import MARKER

# The API server takes no larger Secret or ConfigMap than 1 MiB. A larger block is masked whatever it is.
HELD_BYTES = 2 << 20

# indent, dash, key, what follows
_KEY = re.compile(rb'( *+)(- )?("?)(data|stringData|kind)\3:(?: (.*?))?,?\r?\n?\Z')
# indent, key, value, comma
_ENTRY = re.compile(rb'( *+)("(?:[^"\\\n]|\\.)*+"|[^\s:][^:\n]*+):(?: ([^\n]*?))?(,?)\r?\n?\Z')
_START = re.compile(rb'^ *+(?:- )?"?(?:(?:data|stringData)"?:(?: \{)?|kind"?: "?Secret"?,?)\r?$', re.MULTILINE)
# One of these is there before that is worth a search.
_MARKS = (b'"data"', b" data:", b"\ndata:", b"stringData", b": Secret", b'"Secret"')
_NO_DATA = (b"", b'""', b"''", b"null")


@dataclass(slots=True)
class _Object:
    """The object whose `data` or `kind` was seen last; its keys begin in this column."""

    column: int
    is_secret: bool | None = None
    in_data: bool = False
    entries_column: int | None = None  # of the block that is being read
    held: list[bytes] = field(default_factory=list)
    held_bytes: int = 0


class SecretObjects:
    """The third stage. `masked` counts values."""

    def __init__(self) -> None:
        self.masked = 0
        self._object: _Object | None = None

    def feed(self, block: bytes) -> bytes:
        """Takes whole lines, or pieces of a very long one."""
        if b"Secret" in block:
            block, masked = mask_compact(block)
            self.masked += masked
        if self._object is None and not (_may_begin(block) and _START.search(block)):
            return block
        return b"".join([self._line(line) for line in block.splitlines(keepends=True)])

    def finish(self) -> bytes:
        """What is still held back; its object has no kind."""
        return self._release()

    def _line(self, line: bytes) -> bytes:
        told = b""
        current = self._object
        if current is not None and (text := line.strip()):
            column = _column(line)
            is_next = column == current.column and line[column - 2 : column] == b"- "
            if column < current.column or is_next or text == b"---":
                told, current = self._release(), None
            elif column == current.column and text[:1] not in b"}]":
                current.in_data = False
        key = _KEY.match(line) if current is None or _column(line) == current.column else None
        if key is not None:
            told += self._key(key)
        current = self._object
        if current is None:
            return told + line
        if current.in_data and current.is_secret and key is None:
            return told + self._entry(line, current)
        if current.is_secret is not None or not (current.in_data or current.held):
            return told + line
        current.held.append(line)
        current.held_bytes += len(line)
        if current.held_bytes > HELD_BYTES:
            current.is_secret = True
            return told + self._decide(current)
        return told

    def _key(self, key: re.Match[bytes]) -> bytes:
        """A `data`, `stringData` or `kind` of the object that is being read, or of a new one; what that releases."""
        column = len(key[1]) + len(key[2] or b"")
        is_kind = key[4] == b"kind"
        if self._object is None:
            if is_kind and (key[5] or b"").strip(b'"') != b"Secret":
                return b""
            if not is_kind and key[5] not in (None, b"{"):
                return b""
            self._object = _Object(column)
        current = self._object
        if not is_kind:
            current.in_data, current.entries_column = key[5] in (None, b"{"), None
            return b""
        current.is_secret = (key[5] or b"").strip(b'"') == b"Secret"
        return self._decide(current)

    def _decide(self, current: _Object) -> bytes:
        """What was held back, now that it is known what it is."""
        held, current.held, current.held_bytes = current.held, [], 0
        if not current.is_secret:
            return b"".join(held)
        in_data, told = False, []
        for line in held:
            if line.strip() and _column(line) == current.column:
                key = _KEY.match(line)
                in_data = bool(key and key[4] != b"kind")
                current.entries_column = None
                told.append(line)
            else:
                told.append(self._entry(line, current) if in_data else line)
        return b"".join(told)

    def _release(self) -> bytes:
        current, self._object = self._object, None
        return b"" if current is None else b"".join(current.held)

    def _entry(self, line: bytes, current: _Object) -> bytes:
        """A line below `data` of a Secret, without the value; lines that only go on with a value are left out."""
        column = _column(line)
        if not line.strip() or column <= current.column:
            return line  # the brace that closes the block
        if current.entries_column is None:
            current.entries_column = column
        entry = _ENTRY.match(line) if column == current.entries_column else None
        if entry is None:
            return b""
        value = (entry[3] or b"").strip()
        if value in _NO_DATA or value == MARKER:
            return line
        self.masked += 1
        end = line[len(line.rstrip(b"\r\n")) :]
        in_json, in_kyaml = entry[2][:1] == b'"', bool(entry[4]) or value.endswith(b'"\\')
        if value[:1] != b'"' or not (in_json or in_kyaml):
            return b"%b%b: %b%b" % (entry[1], entry[2], MARKER, end)
        return b'%b%b: "%b"%b%b' % (entry[1], entry[2], MARKER, entry[4] if in_json else b",", end)


def _may_begin(block: bytes) -> bool:
    return block.startswith(b"data:") or any(mark in block for mark in _MARKS)


def _column(line: bytes) -> int:
    """Where the key on a line begins: behind the dash of a list's item."""
    indent = len(line) - len(line.lstrip(b" "))
    return indent + 2 if line.startswith(b"- ", indent) else indent
