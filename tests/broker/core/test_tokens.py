"""The book of executor tokens: what is good, what is learned, what is given back and what is forgotten."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from broker.core.book import REMEMBERED_S, Origin
from broker.core.tokens import Token, TokenBook

NOW = 1_000.0


def token(cluster_id: str = "prod", text: bytes = b"a", **fields: Any) -> Token:
    usual: dict[str, Any] = {"origin": Origin.MADE, "token_id": "id", "created_at": NOW}
    return Token(cluster_id=cluster_id, digest=text, **(usual | fields))


def revoked(which: Token, at: float = NOW) -> Token:
    return replace(which, revoked_at=at)


def test_what_was_given_is_good_from_the_start() -> None:
    """And makes its cluster a registered one; a token is its own cluster's only."""
    book = TokenBook([("prod", b"a"), ("prod", b"b"), ("staging", b"c")])
    assert set(book.clusters) == {"prod", "staging"}
    assert book.good(("prod", b"b"), now=NOW)
    assert not book.good(("prod", b"c"), now=NOW)
    assert not book.good(("nowhere", b"a"), now=NOW)
    assert book.holds(("prod", b"a"))


def test_a_certified_cluster_needs_no_token() -> None:
    """It is registered before its first one and after its last one; that it is so lets nobody in."""
    book = TokenBook(certified=frozenset({"edge"}))
    assert (list(book.clusters), book.of_cluster("edge")) == (["edge"], [])
    book.learn([token("edge")], now=NOW)
    [ended] = book.learn([revoked(token("edge"))], now=NOW)
    assert ended.cluster_id == "edge"
    assert list(book.clusters) == ["edge"]
    assert not book.good(("edge", b"a"), now=NOW)


def test_what_is_learned_is_good() -> None:
    book = TokenBook()
    assert book.learn([token()], now=NOW) == []
    assert book.good(("prod", b"a"), now=NOW) == token()
    assert (list(book.clusters), book.of_cluster("prod")) == (["prod"], [token()])


@pytest.mark.parametrize("given", [[], [("prod", b"a")]], ids=["stored", "given"])
def test_a_revoked_token_is_told_once_and_its_cluster_goes_with_the_last(given: list[Any]) -> None:
    """Whoever came in with it is to leave; to hear of it again changes nothing."""
    book = TokenBook(given)
    book.learn([token()], now=NOW)
    [ended] = book.learn([revoked(token())], now=NOW)
    assert ended.name == ("prod", b"a")
    assert book.learn([revoked(token())], now=NOW) == []
    assert not book.good(("prod", b"a"), now=NOW)
    assert not book.clusters
    assert book.holds(("prod", b"a"))


def test_one_of_two_can_be_revoked() -> None:
    """The other one and the cluster stay."""
    book = TokenBook([("prod", b"a")])
    book.learn([token(text=b"b"), revoked(token(text=b"b"))], now=NOW)
    assert [each.digest for each in book.of_cluster("prod")] == [b"a"]
    assert list(book.clusters) == ["prod"]


def test_the_same_token_of_another_cluster_is_another_token() -> None:
    book = TokenBook([("prod", b"a"), ("staging", b"a")])
    book.learn([revoked(token("prod"))], now=NOW)
    assert list(book.clusters) == ["staging"]


def test_the_order_of_news_does_not_matter() -> None:
    """Every replica comes to the same, whichever way it heard."""
    news = [token(), revoked(token()), token(text=b"b"), token("staging", b"c", expires_at=NOW - 1)]
    books = []
    for order in itertools.permutations(news):
        book = TokenBook([("prod", b"a")])
        for each in order:
            book.learn([each], now=NOW)
        books.append((list(book.clusters), book.of_cluster("prod"), {each.name for each in book.lacking({})}))
    assert len(books) == 24
    assert all(each == books[0] for each in books)
    assert books[0][0] == ["prod"]


def test_a_token_expires_by_itself() -> None:
    """It is not good from that very moment on, and is told once when it is looked for."""
    book = TokenBook()
    book.learn([token(expires_at=NOW + 5)], now=NOW)
    assert book.good(("prod", b"a"), now=NOW + 4.9)
    assert not book.good(("prod", b"a"), now=NOW + 5)
    assert book.expire(now=NOW + 4.9) == []
    assert [each.name for each in book.expire(now=NOW + 5)] == [("prod", b"a")]
    assert book.expire(now=NOW + 6) == []
    assert not book.clusters


def test_what_was_given_does_not_expire_with_what_was_stored() -> None:
    book = TokenBook([("prod", b"a")])
    book.learn([token(expires_at=NOW + 5)], now=NOW)
    assert book.expire(now=NOW + 6) == []
    assert book.good(("prod", b"a"), now=NOW + 6)


def test_a_redis_that_lost_something_is_given_it_back() -> None:
    """What is not there, and what is there as if it had not been revoked; never what was given at start."""
    book = TokenBook([("prod", b"given")])
    kept, lost, back = token(text=b"kept"), token(text=b"lost"), token(text=b"back")
    book.learn([kept, lost, revoked(back)], now=NOW)
    held = {each.name: each for each in (kept, back)}
    assert book.lacking(held) == [lost, revoked(back)]
    assert book.lacking({each.name: each for each in (kept, lost, revoked(back))}) == []


def test_what_nobody_can_bring_back_is_forgotten_in_time() -> None:
    """A token that was chosen or given could come back, so that it was revoked is never forgotten."""
    long_ago = NOW - REMEMBERED_S - 1
    book = TokenBook([("prod", b"flag")])
    of = {
        "made": revoked(token(text=b"made"), long_ago),
        "out of time": token(text=b"out of time", expires_at=long_ago),
        "recent": revoked(token(text=b"recent"), NOW - 1),
        "chosen": revoked(token(text=b"chosen", origin=Origin.CHOSEN), long_ago),
        "given": revoked(token(text=b"given", origin=Origin.GIVEN), long_ago),
        "made, and given since": revoked(token(text=b"flag"), long_ago),
        "good": token(text=b"good"),
    }
    book.learn(of.values(), now=NOW)
    assert {digest for _, digest in book.forget(now=NOW)} == {b"made", b"out of time"}
    assert book.forget(now=NOW) == []
    assert not book.holds(("prod", b"made"))
    assert not book.good(("prod", b"flag"), now=NOW)


def test_nothing_of_a_token_is_shown() -> None:
    book = TokenBook([("prod", b"a")])
    book.learn([token(text=b"b")], now=NOW)
    assert repr(book) == "<TokenBook good=2 stored=1 whole=False>"
    assert repr(token(text=b"secret")) == "<Token prod/id>"
