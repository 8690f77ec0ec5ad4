"""Pages of what is sorted in memory, and of what is fetched, some of which does not fit."""

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
