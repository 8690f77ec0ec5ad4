"""What is due when."""

from hypothesis import given
from hypothesis import strategies as st

from broker.core.agenda import Agenda


def test_what_is_due_comes_earliest_first() -> None:
    """`pop` takes out what is due and leaves the rest."""
    agenda = Agenda[str]()
    for key, when in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("d", 4.0)):
        agenda.add(key, when)
    assert agenda.next() == 1.0
    assert agenda.pop(3.0) == ["a", "b", "c"]
    assert agenda.pop(3.0) == []
    assert agenda.next() == 4.0
    assert len(agenda) == 1


def test_what_was_moved_is_due_at_its_new_instant_only() -> None:
    """Adding a key again moves it, in either direction."""
    agenda = Agenda[str]()
    agenda.add("later", 1.0)
    agenda.add("later", 5.0)
    agenda.add("sooner", 5.0)
    agenda.add("sooner", 1.0)
    assert agenda.pop(2.0) == ["sooner"]
    assert agenda.pop(9.0) == ["later"]
    assert agenda.next() is None


def test_what_was_taken_back_is_never_due() -> None:
    """Taking back what is not there changes nothing."""
    agenda = Agenda[str]()
    agenda.add("a", 1.0)
    agenda.discard("a")
    agenda.discard("a")
    assert agenda.next() is None
    assert agenda.pop(9.0) == []
    assert repr(agenda) == "<Agenda n=0 next=None>"


def test_a_key_added_again_at_the_same_instant_is_due_once() -> None:
    """Its old entry in the heap does not count a second time."""
    agenda = Agenda[str]()
    agenda.add("a", 1.0)
    agenda.discard("a")
    agenda.add("a", 1.0)
    assert agenda.pop(1.0) == ["a"]
    assert agenda.pop(1.0) == []


def test_it_does_not_grow_with_what_was_taken_back() -> None:
    """A million commands that end at once leave no heap of a million deadlines behind."""
    agenda = Agenda[str]()
    for n in range(10_000):
        agenda.add(str(n), 3600.0 + n)
        agenda.discard(str(n))
    assert len(agenda._heap) <= 65
    kept = Agenda[str]()
    for n in range(10_000):
        kept.add("one", float(n))
    assert len(kept._heap) <= 67
    assert kept.pop(9_999.0) == ["one"]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from("abcde"), st.integers(0, 20)),
            st.tuples(st.just("discard"), st.sampled_from("abcde"), st.just(0)),
            st.tuples(st.just("pop"), st.just(""), st.integers(0, 20)),
        )
    )
)
def test_it_behaves_like_a_table(steps: list[tuple[str, str, int]]) -> None:
    """Whatever is added, moved and taken back: what is due is what a plain dict says."""
    agenda, table = Agenda[str](), dict[str, int]()
    for step, key, when in steps:
        match step:
            case "add":
                agenda.add(key, when)
                table[key] = when
            case "discard":
                agenda.discard(key)
                table.pop(key, None)
            case "pop":
                due = sorted(at for at in table.values() if at <= when)
                assert [table.pop(one) for one in agenda.pop(when)] == due
        assert agenda.next() == min(table.values(), default=None)
        assert len(agenda) == len(table)
