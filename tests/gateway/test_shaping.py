"""Shaping of output: what is shown, what is left out, and that the counts of it add up."""

import contextlib
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cursors import BadCursor, Cursor, read_cursor, write_cursor
from gateway.patterns import BadPattern, Pattern
from gateway.selecting import BadQuery
from gateway.shaping import UNSELECTED_CHARS, Amount, Shaped, Shaping, Shown, shape

# Few letters, so that lines match; and what some would take for the end of a line, or for half a character.
TEXTS = st.text(alphabet="ab \n\r\u2028é\U0001f600", max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=12,
)
SHAPINGS = st.builds(
    Shaping,
    jsonpath=st.none() | st.sampled_from(["$..a", "$[*]", "$.a[0]", "$..*", "$[?@.a]"]),
    grep=st.none() | st.sampled_from(["a", "b$", "^$", "^a.*b", "x"]),
    grep_context=st.integers(0, 3),
    tail=st.none() | st.integers(1, 6),
    max_chars=st.none() | st.integers(1, 30),
)


def pages(stdout: str, stderr: str, shaping: Shaping) -> list[Shaped]:
    """From the first to the last, as a reader fetches them."""
    found = [shape(stdout, stderr, shaping)]
    while (offset := found[-1].next_offset) is not None:
        assert len(found) <= len(stdout) * 4 + len(stderr) + 10, "no page is empty"
        found.append(shape(stdout, stderr, shaping, offset=offset))
    return found


def accounted(stream: Shown) -> Amount:
    return stream.left_out_by_grep + stream.left_out_by_tail + stream.before + stream.shown + stream.after


@given(stdout=TEXTS | JSON.map(json.dumps), stderr=TEXTS, shaping=SHAPINGS)
def test_counts_add_up_and_pages_joined_are_the_whole(stdout: str, stderr: str, shaping: Shaping) -> None:
    """On every page nothing is unaccounted for, and no character is on two pages or on none."""
    found = pages(stdout, stderr, shaping)
    [whole] = pages(stdout, stderr, Shaping(shaping.jsonpath, shaping.grep, shaping.grep_context, shaping.tail, 4000))
    for name in ("stdout", "stderr"):
        streams: list[Shown] = [getattr(page, name) for page in found]
        assert "".join(stream.text for stream in streams) == getattr(whole, name).text
        before = Amount()
        for stream in streams:
            assert accounted(stream) == stream.selected
            assert stream.shown.chars == len(stream.text)
            assert stream.before == before
            before = before + stream.shown
            assert min(stream.shown.lines, stream.after.lines, stream.left_out_by_grep.lines) >= 0
        assert streams[-1].after == Amount()
        assert streams[0].total == Amount.of({"stdout": stdout, "stderr": stderr}[name])
    if shaping.max_chars:
        assert max(page.stdout.shown.chars + page.stderr.shown.chars for page in found) <= shaping.max_chars
    assert all(page.stdout.text or page.stderr.text for page in found[1:])


@given(stdout=TEXTS, stderr=TEXTS)
def test_without_a_wish_all_is_shown(stdout: str, stderr: str) -> None:
    """Both streams as they are."""
    shaped = shape(stdout, stderr, Shaping())
    assert (shaped.stdout.text, shaped.stderr.text, shaped.next_offset) == (stdout, stderr, None)


@given(stdout=TEXTS, pattern=st.sampled_from(["a", "^b", "b$", "a b", "^$"]), context=st.integers(0, 4))
def test_grep_is_what_one_line_at_a_time_gives(stdout: str, pattern: str, context: int) -> None:
    """Each line that matches, once, with its neighbours, in order."""
    lines = stdout.split("\n")
    if lines[-1] == "":
        lines.pop()
    hits = [i for i, line in enumerate(lines) if re.search(pattern.replace("$", r"\Z"), line)]
    near = [i for i in range(len(lines)) if any(abs(i - hit) <= context for hit in hits)]
    shaped = shape(stdout, "", Shaping(grep=pattern, grep_context=context))
    assert shaped.grep_matches == len(hits)
    is_whole = stdout.endswith("\n") or len(lines) - 1 not in near
    assert shaped.stdout.text == "".join(f"{lines[i]}\n" for i in near)[: None if is_whole else -1]
    assert shaped.stdout.shown.lines == len(near)


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc", 2, "b\nc"),
        ("a\nb\n", 5, "a\nb\n"),
        ("a\n\n\n", 2, "\n\n"),
        ("", 1, ""),
        ("\n", 1, "\n"),
        ("a\r\nb\u2028c\n", 1, "b\u2028c\n"),
    ],
)
def test_tail(text: str, count: int, expected: str) -> None:
    """The last lines, where only a newline ends one; what is before them is counted."""
    stdout = shape(text, "", Shaping(tail=count)).stdout
    assert stdout.text == expected
    assert stdout.left_out_by_tail.chars == len(text) - len(expected)


def test_stderr_is_never_searched_and_comes_first() -> None:
    """A warning is on the first page whatever is asked of stdout."""
    shaped = shape("web 1\ndb 2\n", "Warning: old\n", Shaping(grep="web", tail=1, max_chars=15))
    assert (shaped.stderr.text, shaped.stdout.text) == ("Warning: old\n", "we")
    assert (shaped.stdout.left_out_by_grep, shaped.stdout.after) == (Amount(5, 1), Amount(4, 1))


def test_a_page_ends_with_a_line_where_it_can() -> None:
    """Unless it would be less than half full then."""
    shaped = shape("a" * 6 + "\n" + "b" * 6 + "\n", "", Shaping(max_chars=10))
    assert (shaped.stdout.text, shaped.next_offset) == ("aaaaaa\n", 7)
    assert shape("a\n" + "b" * 20, "", Shaping(max_chars=10)).stdout.text == "a\nbbbbbbbb"


PODS = json.dumps({"items": [{"name": "web-0", "ready": True}, {"name": "dé-1", "ready": False}]})


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("$.items[*].name", '"web-0"\n"dé-1"\n'),
        ("{.items[*].name}", '"web-0"\n"dé-1"\n'),
        (".items[0]", '{"name":"web-0","ready":true}\n'),
        ("$.items[?@.ready==false].name", '"dé-1"\n'),
        ("$.items[?search(@.name,'^w')].name", '"web-0"\n'),
        ("$.items[?match(@.name,'w')].name", ""),
        ("$.nothing", ""),
    ],
)
def test_jsonpath_gives_a_value_a_line(query: str, expected: str) -> None:
    """In RFC 9535's words, and a path in kubectl's braces is understood too."""
    shaped = shape(PODS, "", Shaping(jsonpath=query))
    assert (shaped.stdout.text, shaped.jsonpath_error) == (expected, None)
    assert shaped.jsonpath_matches == expected.count("\n")
    assert shaped.stdout.total == Amount(len(PODS), 1)
    assert shaped.stdout.selected == Amount.of(expected)


@pytest.mark.parametrize(
    ("stdout", "query", "why"),
    [
        ("NAME READY\n", "$.a", "not JSON"),
        ("", "$.a", "empty"),
        (json.dumps([[1] * 300] * 300), "$..*..*..*", "too many steps"),
        (json.dumps([[[[1] * 20] * 20] * 20] * 20), "$[?count(@..*..*..*) > 1]", "too many steps"),
        (json.dumps(["x" * 2000] * 1000), "$[" + ",".join(["?search(@,'b')"] * 30) + "]", "too many steps"),
        (json.dumps([[1] * 3000] * 300), "$[?@==$[1]]", "too many steps"),
        (json.dumps(["x" * 1_000_000]), "$[" + ",".join("0" * 20) + "]", "more than"),
        ("[" * 100_000 + "]" * 100_000, "$..a", "nested"),
    ],
)
def test_a_query_that_cannot_be_applied_is_bounded_and_says_why(stdout: str, query: str, why: str) -> None:
    """The output is then shown as it is, a short page of it."""
    shaped = shape(stdout, "", Shaping(jsonpath=query))
    assert why in (shaped.jsonpath_error or "")
    assert shaped.jsonpath_matches is None
    assert shaped.stdout.text == stdout[:UNSELECTED_CHARS]
    assert accounted(shaped.stdout) == shaped.stdout.selected == Amount.of(stdout)


WORDS = [
    "$", "@", ".", "..", "[", "]", "*", "?", "(", ")", "'b'", "a", "0", "-1", ":", ",", "==", "<", "&&", "!", "length(",
    "count(", "match(", "value(", "{", "}", "|", "~", "=~", "/a/", "\u2028", "\ud800", "9" * 30,
]  # fmt: skip


@given(words=st.lists(st.sampled_from(WORDS), max_size=10), document=JSON.map(json.dumps))
def test_any_query_is_applied_or_refused(words: list[str], document: str) -> None:
    """BadQuery, or an answer; nothing else is raised."""
    with contextlib.suppress(BadQuery):
        shape(document, "", Shaping(jsonpath="".join(words)))


@pytest.mark.parametrize(
    "query", ["", " ", "\u2028", "$[", "x", "$.a | $.b", "$[?@.a =~ /x/]", "{range .a}{end}", "$.a" * 300]
)
def test_what_is_no_query_is_refused(query: str) -> None:
    """Also what only the library's own dialect has."""
    with pytest.raises(BadQuery):
        shape("{}", "", Shaping(jsonpath=query))


def test_half_a_surrogate_pair_can_be_shown() -> None:
    """JSON can say what UTF-8 cannot: it stays an escape."""
    assert shape('["\\ud800"]', "", Shaping(jsonpath="$[*]")).stdout.text == '"\\ud800"\n'


@pytest.mark.parametrize("pattern", ["(", "a" * 501, r"\pL{200}", r"(a)\1", "(?=a)", "\ud800"])
def test_what_cannot_be_matched_in_linear_time_is_refused(pattern: str) -> None:
    """Also what is small to write and large to run."""
    with pytest.raises(BadPattern):
        Pattern(pattern)


def test_a_pattern_that_would_backtrack_is_just_a_pattern() -> None:
    """What keeps Python's own engine busy for years."""
    assert not Pattern(r"^(a+)+$").search("a" * 100_000 + "b")


# Cursors


@given(
    cursor=st.builds(
        Cursor,
        command_id=st.text(st.characters(codec="utf-8"), max_size=36),
        offset=st.integers(0, 1 << 40),
        shaping=SHAPINGS,
    )
)
def test_a_cursor_says_what_was_written(cursor: Cursor) -> None:
    """In letters that a URL takes as they are."""
    word = write_cursor(cursor)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", word)
    assert read_cursor(word) == cursor


@given(word=st.text(max_size=40) | st.binary(max_size=40).map(lambda data: data.hex()))
def test_anything_else_is_no_cursor(word: str) -> None:
    """And nothing but BadCursor is raised for it."""
    with pytest.raises(BadCursor):
        read_cursor(word)


@pytest.mark.parametrize("fields", [[], {}, ["c", -1, None, None, 0, None, None], ["c", True, None, None, 0, None, 1]])
def test_a_cursor_of_the_wrong_shape_is_none(fields: Any) -> None:
    """Base64 and JSON alone do not make one."""
    import base64

    with pytest.raises(BadCursor):
        read_cursor(base64.urlsafe_b64encode(json.dumps(fields).encode()).decode())
