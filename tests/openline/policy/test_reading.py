"""How arguments are read, whatever their spelling: what is read as the same runs as the same."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openline.policy import Allowed, Output, Policy, Reading, Selection, judge, read
from openline.policy.tables import GLOBAL, VERBS

POLICIES = (
    Policy(),
    Policy(namespaces=Selection(allow=("shop",)), output=Output(max_log_lines=50_000, max_log_bytes=64 << 20)),
    Policy(verbs=("get", "logs"), types=Selection(deny=("pods",))),
)
VALUES = ["true", "json", "shop", "5", "5s", "30000", "40000", "app=web", "pods", "pod/web-0"]


@pytest.mark.parametrize(
    "spellings",
    [
        ["get pods -n shop", "-n shop get pods", "get --namespace=shop pods", "get pods --namespace shop -n shop"],
        ["get pods -owide -A", "get pods -A=true --output WIDE", "get -Ao wide pods"],
        ["logs web-0 --tail 5 -f=false", "logs --follow=false web-0 --tail=5"],
        ["top pods", "top pods --"],
    ],
)
def test_spellings_of_the_same(spellings: list[str], split: Callable[[str], list[str]]) -> None:
    readings = {read(split(each)) for each in spellings}
    assert len(readings) == 1
    assert None not in readings


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("get pods", "get pods -n default"),
        ("get pods a b", "get pods b a"),  # they are shown in this order
        ("get pods", "get pod"),  # kubectl knows that they are the same, and nobody here does
        ("logs web-0 --tail=30000", "logs web-0 --tail=40000"),  # cut to the same by most policies, and not by all
        ("get pods --request-timeout=5s", "get pods"),
        ("get pods -l app=web", "get pods -l app=db"),
    ],
)
def test_what_is_not_the_same(one: str, other: str, split: Callable[[str], list[str]]) -> None:
    assert read(split(one)) != read(split(other))


@pytest.mark.parametrize("argv", [[], ["delete", "pod", "x"], ["get", "pods", "--raw=/"], ["get", ""], ["get", "a\0"]])
def test_what_no_policy_allows_is_not_read(argv: list[str]) -> None:
    assert read(argv) is None


def test_what_is_allowed_is_read(allowed: tuple[str, str], split: Callable[[str], list[str]]) -> None:
    """And as it is written then it is read alike, but for the flags that make it end."""
    argv = split(allowed[0].removeprefix("~"))
    reading = read(argv)
    assert reading is not None
    verdict = judge(argv, Policy(), streamed=True, remaining_s=3600.0)
    assert isinstance(verdict, Allowed)
    again = read(verdict.argv)
    assert again is not None
    assert (again.verb, again.arguments) == (reading.verb, reading.arguments)
    assert {name for name, _ in reading.flags} <= {name for name, _ in again.flags}


@given(data=st.data(), verb=st.sampled_from(sorted(VERBS)), words=st.lists(st.sampled_from(VALUES), max_size=3))
def test_what_is_read_as_the_same_runs_as_the_same(data: st.DataObject, verb: str, words: list[str]) -> None:
    """Every policy decides the same of it, for the same reason, and writes it the same."""
    names = sorted({**VERBS[verb].flags, **GLOBAL})
    flags = data.draw(st.lists(st.tuples(st.sampled_from(names), st.sampled_from(VALUES)), max_size=4))
    argv = [*verb.split(), *words, *(f"--{name}={value}" for name, value in flags)]
    reading = read(argv)
    if reading is None:
        return
    other = respelled(reading)
    assert read(other) == reading
    for policy in POLICIES:
        for streamed in (True, False):
            how = {"streamed": streamed, "remaining_s": 10.0}
            assert judge(other, policy, **how) == judge(argv, policy, **how)


def respelled(reading: Reading) -> list[str]:
    """Flags first, the last one in front, each with its value in a word of its own where it may be."""
    flags = [f"--{name}={value}" for name, value in reversed(reading.flags)]
    return [*reading.verb.split(), *flags, "--", *reading.arguments]
