"""Pages of what is sorted in memory, and of what is fetched, some of which does not fit."""

import pytest

from broker.paging import read_page, sorted_page

ITEMS = [("b", "2"), ("a b", "1"), ("a", "3"), ("a b", "4"), ("", "0")]


def test_pages_are_sorted_and_each_begins_where_the_one_before_ended() -> None:
    """Also behind a name with spaces; the last page says that it is the last."""
    pages, token = [], ""
    while not pages or token:
        page = sorted_page(ITEMS, lambda item: item, size=2, token=token)
        pages.append(page.items)
        token = page.next_token
    assert pages == [[("", "0"), ("a", "3")], [("a b", "1"), ("a b", "4")], [("b", "2")]]


def test_a_page_that_just_fits_is_the_last() -> None:
    assert sorted_page(ITEMS, lambda item: item, size=5, token="").next_token == ""
    assert sorted_page([], lambda item: item, size=5, token="z z").items == []


async def test_the_token_of_a_page_is_of_what_was_shown() -> None:
    """What does not fit may be hidden from whoever asks, and so is its place."""
    names = ["9", "8 hidden", "7 hidden", "6"]

    async def fetch(before: str, count: int) -> list[tuple[str, str | None]]:
        begin = names.index(before) if before else 0
        return [(name, name) for name in names[begin : begin + count]]

    page = await read_page(fetch, lambda name: "hidden" not in name, size=1, token="", at_a_time=10, most=100)
    assert (page.items, page.next_token) == (["9"], "9")
    page = await read_page(fetch, lambda name: "hidden" not in name, size=1, token="9", at_a_time=10, most=100)
    assert (page.items, page.next_token) == (["6"], "")


async def read_all(entries: list[tuple[str, str]], *, size: int, at_a_time: int, newest_last: bool) -> list[list[str]]:
    """The pages of a list in which a name may stand more than once, as Redis has them."""

    async def fetch(shown: str, count: int) -> list[tuple[str, str]]:
        if newest_last:
            return [entry for entry in entries if entry[0] > shown][:count]
        return [entry for entry in reversed(entries) if not shown or entry[0] < shown][:count]

    pages, token = [], ""
    while not pages or token:
        page = await read_page(
            fetch, bool, size=size, token=token, at_a_time=at_a_time, most=1000, newest_last=newest_last
        )
        pages.append(page.items)
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
