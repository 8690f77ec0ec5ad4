"""Pages of what is sorted in memory, and of what is fetched, some of which does not fit."""

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from broker import paging
from broker.paging import Page, read_page, sorted_page

ITEMS = [("b", "2"), ("a b", "1"), ("a", "3"), ("a b", "4"), ("", "0")]


def shown(item: tuple[str, str]) -> StringValue:
    return StringValue(value="/".join(item))


def sorted_items(*, size: int, token: str) -> Page[StringValue]:
    return sorted_page(ITEMS, lambda item: item, shown, size=size, token=token)


def test_pages_are_sorted_and_each_begins_where_the_one_before_ended() -> None:
    """Also behind a name with spaces; the last page says that it is the last."""
    pages, token = [], ""
    while not pages or token:
        page = sorted_items(size=2, token=token)
        pages.append([item.value for item in page.items])
        token = page.next_token
    assert pages == [["/0", "a/3"], ["a b/1", "a b/4"], ["b/2"]]


def test_a_page_that_just_fits_is_the_last() -> None:
    assert sorted_items(size=5, token="").next_token == ""
    assert sorted_items(size=5, token="z z") == Page([], "")


@pytest.mark.parametrize("room", [1, 12])
async def test_a_page_has_room_for_so_much(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For one item at least, whatever its length; the next page goes on with what had none."""
    monkeypatch.setattr(paging, "MAX_PAGE_BYTES", room)
    pages, token = [], ""
    while not pages or token:
        page = sorted_items(size=4, token=token)
        pages.append([item.value for item in page.items])
        token = page.next_token
    two = [["/0", "a/3"], ["a b/1"], ["a b/4", "b/2"]]
    assert pages == ([["/0"], ["a/3"], ["a b/1"], ["a b/4"], ["b/2"]] if room == 1 else two)
    fetched = await read_all([(name, name) for name in "abcdef"], size=5, at_a_time=2, newest_last=True)
    assert fetched == ([[name] for name in "abcdef"] if room == 1 else [list("abcd"), list("ef")])


async def test_the_token_of_a_page_is_of_what_was_shown() -> None:
    """What does not fit may be hidden from whoever asks, and so is its place."""
    names = ["9", "8 hidden", "7 hidden", "6"]

    async def fetch(before: str, count: int) -> list[tuple[str, StringValue | None]]:
        begin = names.index(before) if before else 0
        return [(name, StringValue(value=name)) for name in names[begin : begin + count]]

    def fits(item: StringValue) -> bool:
        return "hidden" not in item.value

    page = await read_page(fetch, fits, size=1, token="", at_a_time=10, most=100)
    assert page == Page([StringValue(value="9")], "9")
    page = await read_page(fetch, fits, size=1, token="9", at_a_time=10, most=100)
    assert page == Page([StringValue(value="6")], "")


async def read_all(entries: list[tuple[str, str]], *, size: int, at_a_time: int, newest_last: bool) -> list[list[str]]:
    """The pages of a list in which a name may stand more than once, as Redis has them."""

    async def fetch(shown: str, count: int) -> list[tuple[str, StringValue]]:
        if newest_last:
            found = [entry for entry in entries if entry[0] > shown][:count]
        else:
            found = [entry for entry in reversed(entries) if not shown or entry[0] < shown][:count]
        return [(name, StringValue(value=text)) for name, text in found]

    pages, token = [], ""
    while not pages or token:
        page = await read_page(
            fetch, lambda _item: True, size=size, token=token, at_a_time=at_a_time, most=1000, newest_last=newest_last
        )
        pages.append([item.value for item in page.items])
        token = page.next_token
    return pages


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("at_a_time", [2, 3, 4, 100])
@pytest.mark.parametrize("newest_last", [False, True], ids=["newest first", "oldest first"])
async def test_the_newest_of_each_name_counts_in_either_order(newest_last: bool, at_a_time: int, size: int) -> None:
    """Also where the older one is the last that is fetched in one go, and the newer one the first of the next."""
    entries = [("a", "a ran"), ("a", "a ended"), ("b", "b ended"), ("c", "c ran"), ("c", "c ended"), ("d", "d ran")]
    pages = await read_all(entries, size=size, at_a_time=at_a_time, newest_last=newest_last)
    expected = ["a ended", "b ended", "c ended", "d ran"]
    assert [item for page in pages for item in page] == (expected if newest_last else expected[::-1])
    assert {len(page) for page in pages[:-1]} <= {size}
