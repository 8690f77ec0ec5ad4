"""Lists, a page at a time: in the order in which they are fetched, what fits, with a bound on what is looked at for it;
or sorted, of what is in memory. A page has room in a message, whatever is on it.
"""

import heapq
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Generic, TypeVar

from google.protobuf.message import Message

from openline import errors
from openline.ids import is_command_id
from openline.reasons import Reason

MAX_PAGE = 1000
USUAL_PAGE = 100
# Of a page, unless one item alone has more to say: a message has room for twice as much.
MAX_PAGE_BYTES = 4 << 20

T = TypeVar("T")
M = TypeVar("M", bound=Message)
# So many that come after the one with this id; from the first one on if it is empty. None for what is not there any
# more. Neighbours may have one id: the newest of them counts.
Fetch = Callable[[str, int], Awaitable[Sequence[tuple[str, T | None]]]]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """The token is empty on the last page; on others it says which one was shown last, or looked at."""

    items: list[T]
    next_token: str


class Room:
    """What is left of a page for what is on it, one after another."""

    def __init__(self) -> None:
        self._left = MAX_PAGE_BYTES

    def takes(self, item: Message) -> bool:
        """Whether there is room for one more; for the first one there always is."""
        is_first = self._left == MAX_PAGE_BYTES
        self._left -= item.ByteSize()
        return is_first or self._left >= 0


async def read_page(
    fetch: Fetch[M],
    fits: Callable[[M], bool],
    *,
    size: int,
    token: str,
    at_a_time: int,
    most: int,
    newest_last: bool = False,
) -> Page[M]:
    """Looks at about `most`: a page on which little fits, or of which each is long, is short, and its token goes on.

    Of neighbours with one id the first is the newest, or with `newest_last` the last.
    """
    items: list[M] = []
    room = Room()
    # Where the next page begins: behind what was shown, since the place of what does not fit is not to be told either.
    shown = last = token
    looked_at = 0
    while True:
        batch = await fetch(last, at_a_time)
        is_end = len(batch) < at_a_time
        for name, item in _each_once(batch, newest_last=newest_last, is_end=is_end):
            if name == last:
                continue
            if item is not None and fits(item):
                if len(items) == size or not room.takes(item):
                    return Page(items, shown)
                items.append(item)
                shown = name
            last = name
        looked_at += len(batch)
        if is_end:
            return Page(items, "")
        if looked_at >= most:
            return Page(items, last)


def _each_once(
    batch: Sequence[tuple[str, T | None]], *, newest_last: bool, is_end: bool
) -> Iterable[tuple[str, T | None]]:
    """The newest of each id, in the same order."""
    items: dict[str, T | None] = {}
    for name, item in batch:
        if newest_last:
            items[name] = item
        else:
            items.setdefault(name, item)
    if newest_last and not is_end and len(items) > 1:
        # A newer one of the last may be the first that comes next: then it is fetched together with that.
        items.popitem()
    return items.items()


def sorted_page(
    items: Iterable[T], place: Callable[[T], tuple[str, str]], show: Callable[[T], M], *, size: int, token: str
) -> Page[M]:
    """The first ones behind the token, sorted by their places, of which the second part has no space in it."""
    first, _, second = token.rpartition(" ")
    # Not all of them are sorted for a page, and they may be many.
    found = heapq.nsmallest(size + 1, (item for item in items if place(item) > (first, second)), key=place)
    page = list(takewhile(Room().takes, map(show, found[:size])))
    return Page(page, " ".join(place(found[len(page) - 1])) if len(found) > len(page) else "")


def page_size(wanted: int, *, usual: int = USUAL_PAGE) -> int:
    return min(wanted or usual, MAX_PAGE)


def check_id_token(token: str) -> str:
    """A token that is an id. Raises INVALID_COMMAND for what was not a page's."""
    if token and not is_command_id(token):
        raise bad_token()
    return token


def bad_token() -> errors.OpenlineError:
    wrong = [("page_token", "must be the next_page_token of a page")]
    return errors.OpenlineError(errors.error(Reason.INVALID_COMMAND, "page_token is not valid", violations=wrong))
