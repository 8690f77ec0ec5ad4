"""How a caller says what of the output it wants, and how it is told what was left out."""

from typing import Annotated, Self

from pydantic import BaseModel, Field, ValidationError

from gateway.argv import Unacceptable
from gateway.cursors import MAX_CURSOR_CHARS, BadCursor, Cursor, read_cursor
from gateway.models import Text
from gateway.patterns import MAX_PATTERN_CHARS, BadPattern, Pattern
from gateway.selecting import MAX_QUERY_CHARS, BadQuery, check_query
from gateway.shaping import WHOLE, Amount, Shaped, Shaping, Shown

MAX_GREP_CONTEXT = 100
# More characters and lines than any output that is kept.
MAX_SHOWN = 1 << 30


class ShapingFields(BaseModel):
    """What is wanted of the output. All counts of what is left out are in the answer's `shaping`."""

    jsonpath: Annotated[Text, Field(min_length=1, max_length=MAX_QUERY_CHARS)] | None = Field(
        None,
        description="Of JSON on stdout, these values (RFC 9535), each as JSON on a line of its own. A path as kubectl "
        "has it, `{.items[*].metadata.name}`, is understood as well.",
    )
    grep: Annotated[Text, Field(min_length=1, max_length=MAX_PATTERN_CHARS)] | None = Field(
        None, description="Of stdout, the lines that have this in them: a pattern in RE2's syntax."
    )
    grep_context: Annotated[int, Field(ge=0, le=MAX_GREP_CONTEXT)] = Field(
        0, description="So many lines before and after each of them as well."
    )
    tail: Annotated[int, Field(ge=1, le=MAX_SHOWN)] | None = Field(
        None, description="Of stdout, after `jsonpath` and `grep`, the last so many lines."
    )
    max_output_chars: Annotated[int, Field(ge=1, le=MAX_SHOWN)] | None = Field(
        None, description="So much at a time, of stderr and then stdout; `shaping.next_cursor` fetches the rest."
    )

    def shaping(self, where: str) -> Shaping:
        """Raises Unacceptable; `where` is the part of the request that has the fields."""
        try:
            if self.grep is not None:
                Pattern(self.grep)
        except BadPattern as wrong:
            raise Unacceptable("grep", str(wrong), where=where) from None
        try:
            if self.jsonpath is not None:
                check_query(self.jsonpath)
        except BadQuery as wrong:
            raise Unacceptable("jsonpath", str(wrong), where=where) from None
        return Shaping(
            jsonpath=self.jsonpath,
            grep=self.grep,
            grep_context=self.grep_context,
            tail=self.tail,
            max_chars=self.max_output_chars,
        )


Digest = Annotated[Text, Field(max_length=100)]
UNCHANGED_SINCE = (
    "An answer's `digest`. If the output is the same again, the answer is `not_modified` and comes without it."
)


class LookFields(ShapingFields):
    """The query of a look at a command."""

    wait: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = Field(
        0, description="Seconds to wait for the command's end."
    )
    unchanged_since: Digest | None = Field(None, description=UNCHANGED_SINCE)
    cursor: Annotated[str, Field(max_length=MAX_CURSOR_CHARS)] | None = Field(
        None, description="An answer's `shaping.next_cursor`: the next page. It brings its own shaping."
    )

    def page(self, command_id: str) -> tuple[Shaping, int]:
        """What is to be shown, and from where on. Raises Unacceptable."""
        if self.cursor is None:
            return self.shaping("query"), 0
        if self.model_fields_set - {"cursor", "wait"}:
            raise Unacceptable("cursor", "a cursor brings its own shaping; give nothing else", where="query")
        try:
            cursor = read_cursor(self.cursor)
            if cursor.command_id != command_id:
                raise BadCursor("the cursor is for another command")
            return _fields_of(cursor).shaping("query"), cursor.offset
        except (BadCursor, Unacceptable) as wrong:
            raise Unacceptable("cursor", str(wrong), where="query") from None


def _fields_of(cursor: Cursor) -> ShapingFields:
    s = cursor.shaping
    try:
        return ShapingFields(
            jsonpath=s.jsonpath,
            grep=s.grep,
            grep_context=s.grep_context,
            tail=s.tail,
            max_output_chars=s.max_chars,
        )
    except ValidationError:
        raise BadCursor("not a cursor") from None


class AmountAnswer(BaseModel):
    """Characters, and lines with their newlines; a line that a page divides is counted where it ends."""

    chars: int
    lines: int

    @classmethod
    def of(cls, amount: Amount) -> Self:
        return cls(chars=amount.chars, lines=amount.lines)


class StreamAnswer(BaseModel):
    """What of one stream is shown and what is not. Null is what was not asked for, and then nothing is left out by it.

    `selected` (or else `total`) = `left_out_by_grep` + `left_out_by_tail` + `before` + `shown` + `after`.
    """

    total: AmountAnswer = Field(description="What is kept of it.")
    selected: AmountAnswer | None = Field(description="What `jsonpath` made of that.")
    left_out_by_grep: AmountAnswer | None
    left_out_by_tail: AmountAnswer | None
    before: AmountAnswer | None = Field(description="On earlier pages.")
    shown: AmountAnswer
    after: AmountAnswer | None = Field(description="On later pages.")


class ShapingAnswer(BaseModel):
    """Exact counts of what is shown, and of what is not."""

    stdout: StreamAnswer
    stderr: StreamAnswer | None = Field(description="Null where there is none.")
    jsonpath_matches: int | None = Field(description="How many values it selects.")
    jsonpath_error: str | None = Field(
        description="Why it could not be applied. Then stdout is as it came, a short page of it."
    )
    grep_matches: int | None = Field(description="How many lines match, those around them not counted.")
    next_cursor: str | None = Field(description="Fetches the next page; null on the last one.")

    @classmethod
    def of(cls, shaped: Shaped, shaping: Shaping, *, next_cursor: str | None) -> Self | None:
        """None where all of the output is shown: nobody wants to read that nothing is missing."""
        is_paged = shaping.max_chars is not None or shaped.jsonpath_error is not None
        if shaping == WHOLE:
            return None

        def amount(counted: Amount, *, if_asked: bool) -> AmountAnswer | None:
            return AmountAnswer.of(counted) if if_asked else None

        def stream(shown: Shown, *, is_searched: bool) -> StreamAnswer:
            return StreamAnswer(
                total=AmountAnswer.of(shown.total),
                selected=amount(shown.selected, if_asked=is_searched and shaped.jsonpath_matches is not None),
                left_out_by_grep=amount(shown.left_out_by_grep, if_asked=is_searched and shaping.grep is not None),
                left_out_by_tail=amount(shown.left_out_by_tail, if_asked=is_searched and shaping.tail is not None),
                before=amount(shown.before, if_asked=is_paged),
                shown=AmountAnswer.of(shown.shown),
                after=amount(shown.after, if_asked=is_paged),
            )

        return cls(
            stdout=stream(shaped.stdout, is_searched=True),
            stderr=stream(shaped.stderr, is_searched=False) if shaped.stderr.total.chars else None,
            jsonpath_matches=shaped.jsonpath_matches,
            jsonpath_error=shaped.jsonpath_error,
            grep_matches=shaped.grep_matches,
            next_cursor=next_cursor,
        )
