"""Pages of what is sorted in memory; those of what is fetched are tested where they are used."""

from broker.paging import sorted_page

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
