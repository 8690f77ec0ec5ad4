"""Less output for a reader that pays for each character: select, grep, tail, and pages, with exact counts. Pure.

In this order, and of stdout: what `jsonpath` selects, of that the lines that `grep` finds, of those the last `tail`.
What remains is shown in pages of `max_chars`. stderr is never searched, since a warning that is filtered away is
missed; it comes first, so that it is on the first page.

Of each stream, `selected` = left out by grep + left out by tail + `before` + `shown` + `after`, in characters and in
lines. A line ends with its newline, and is counted where it ends.
"""

from dataclasses import dataclass, replace

from gateway.patterns import Pattern
from gateway.selecting import NotSelected, select

# A page of output to which `jsonpath` could not be applied: whoever asked for a few fields does not want all of it.
UNSELECTED_CHARS = 4_000


@dataclass(frozen=True, slots=True)
class Shaping:
    """What is wanted of the output; nothing that is set: all of it."""

    jsonpath: str | None = None
    grep: str | None = None
    grep_context: int = 0
    tail: int | None = None
    max_chars: int | None = None


WHOLE = Shaping()


@dataclass(frozen=True, slots=True)
class Amount:
    chars: int = 0
    lines: int = 0

    @classmethod
    def of(cls, text: str) -> "Amount":
        return cls(len(text), text.count("\n") + (1 if text and not text.endswith("\n") else 0))

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.chars + other.chars, self.lines + other.lines)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.chars - other.chars, self.lines - other.lines)


NOTHING = Amount()


@dataclass(frozen=True, slots=True)
class Shown:
    """One stream on one page."""

    text: str
    # What was kept of the command's output.
    total: Amount
    # The same after `jsonpath`.
    selected: Amount
    left_out_by_grep: Amount = NOTHING
    left_out_by_tail: Amount = NOTHING
    # On the pages before this one, on it, and on those after it.
    before: Amount = NOTHING
    shown: Amount = NOTHING
    after: Amount = NOTHING


@dataclass(frozen=True, slots=True)
class Shaped:
    stdout: Shown
    stderr: Shown
    # None for what was not asked.
    jsonpath_matches: int | None
    jsonpath_error: str | None
    grep_matches: int | None
    # Where the next page begins.
    next_offset: int | None


def shape(stdout: str, stderr: str, shaping: Shaping, *, offset: int = 0) -> Shaped:
    """A page of the output, from `offset` characters into what is shown. Raises BadQuery and BadPattern."""
    total = Amount.of(stdout)
    matches, why_not = None, None
    max_chars = shaping.max_chars
    if shaping.jsonpath is not None:
        try:
            found = select(stdout, shaping.jsonpath)
        except NotSelected as why:
            why_not = str(why)
            max_chars = min(max_chars or UNSELECTED_CHARS, UNSELECTED_CHARS)
        else:
            stdout, matches = found.text, found.matches
    selected = Amount.of(stdout)
    grep_matches, by_grep, by_tail = None, NOTHING, NOTHING
    if shaping.grep is not None:
        stdout, grep_matches = _grep(stdout, Pattern(shaping.grep), shaping.grep_context)
        by_grep = selected - Amount.of(stdout)
    if shaping.tail is not None:
        searched = Amount.of(stdout)
        stdout = _tail(stdout, shaping.tail)
        by_tail = searched - Amount.of(stdout)
    end = _page_end(stderr, stdout, offset, max_chars)
    out = Shown(stdout, total, selected, left_out_by_grep=by_grep, left_out_by_tail=by_tail)
    err = Shown(stderr, Amount.of(stderr), Amount.of(stderr))
    return Shaped(
        stdout=_on_page(out, offset - len(stderr), end - len(stderr)),
        stderr=_on_page(err, offset, end),
        jsonpath_matches=matches,
        jsonpath_error=why_not,
        grep_matches=grep_matches,
        next_offset=end if end < len(stderr) + len(stdout) else None,
    )


def _lines(text: str) -> list[str]:
    """Each with its newline; only the last may have none."""
    *ended, rest = text.split("\n")
    lines = [f"{line}\n" for line in ended]
    return [*lines, rest] if rest else lines


def _grep(text: str, pattern: Pattern, context: int) -> tuple[str, int]:
    """The lines that match, with as many around each as `context` says; and how many match."""
    lines = _lines(text)
    matching = [index for index, line in enumerate(lines) if pattern.search(line.removesuffix("\n"))]
    kept: list[str] = []
    taken = 0
    for index in matching:
        first, taken = max(taken, index - context), max(taken, min(len(lines), index + context + 1))
        kept += lines[first:taken]
    return "".join(kept), len(matching)


def _tail(text: str, count: int) -> str:
    at = len(text) - text.endswith("\n")
    for _ in range(count):
        if (at := text.rfind("\n", 0, at)) < 0:
            return text
    return text[at + 1 :]


def _page_end(stderr: str, stdout: str, offset: int, max_chars: int | None) -> int:
    """Where the page ends, in stderr and stdout as one text: after a whole line, if it is half full by then."""
    whole = len(stderr) + len(stdout)
    if max_chars is None or offset + max_chars >= whole:
        return max(offset, whole)
    end = offset + max_chars
    text, base = (stderr, 0) if end <= len(stderr) else (stdout, len(stderr))
    half = max(0, end - max_chars // 2 - base)
    newline = text.rfind("\n", half, end - base)
    return newline + 1 + base if newline >= 0 else end


def _on_page(stream: Shown, start: int, end: int) -> Shown:
    text = stream.text
    start, end = (min(max(0, at), len(text)) for at in (start, end))
    before, to_end, all_of_it = _up_to(text, start), _up_to(text, end), _up_to(text, len(text))
    return replace(stream, text=text[start:end], before=before, shown=to_end - before, after=all_of_it - to_end)


def _up_to(text: str, end: int) -> Amount:
    """A line that has not ended by then is counted later."""
    is_all = end == len(text)
    unended = 1 if is_all and text and not text.endswith("\n") else 0
    return Amount(end, text.count("\n", 0, end) + unended)
