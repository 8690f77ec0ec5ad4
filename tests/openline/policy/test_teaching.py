"""What a denial teaches: the word that was meant, and what to do instead."""

import shlex

import pytest

from openline.policy import Denied, Policy, Rule, Selection, judge
from openline.policy.denial import MAX_ALLOWED_CHARACTERS
from openline.policy.instead import OF_A_SHELL, TYPES_INSTEAD, VERBS_INSTEAD
from openline.policy.resources import ALWAYS_DENIED
from openline.policy.tables import VERBS
from openline.policy.wire import denied_error


def denied(line: str, policy: Policy = Policy()) -> Denied:  # noqa: B008  (a frozen value)
    verdict = judge(shlex.split(line), policy, streamed=False, remaining_s=10.0)
    assert isinstance(verdict, Denied), verdict
    return verdict


@pytest.mark.parametrize(
    ("line", "rule", "nearest"),
    [
        ("get pods --all-namespace", Rule.FLAG, "--all-namespaces"),
        ("get pods --selecter=a=b", Rule.FLAG, "--selector"),
        ("logs web-0 --tails=5", Rule.FLAG, "--tail"),
        ("get pods -o jsn", Rule.OUTPUT, "json"),
        ("get pods -o ymal", Rule.OUTPUT, "yaml"),
        ("get pods -o jsonpth={.x}", Rule.OUTPUT, "jsonpath=…"),
        ("gets pods", Rule.VERB, "get"),
        ("describ pod web-0", Rule.VERB, "describe"),
        ("log web-0", Rule.VERB, "logs"),
        ("rollout stats deploy/web", Rule.SUB_VERB, "rollout status"),
        ("top podss", Rule.SUB_VERB, "top pods"),
    ],
)
def test_the_word_that_was_meant_is_named(line: str, rule: Rule, nearest: str) -> None:
    """In the message, and for programs."""
    verdict = denied(line)
    assert (verdict.rule, verdict.nearest) == (rule, nearest)
    assert f"did you mean {nearest}?" in verdict.message
    metadata = denied_error(verdict).metadata
    assert (metadata["nearest"], metadata["next_step"]) == (nearest, f"Ask again with {nearest}.")


@pytest.mark.parametrize("line", ["get pods --as=x", "get pods --server=x", "canary", "get pods --token=x"])
def test_what_is_near_to_nothing_names_nothing(line: str) -> None:
    """Nor does a flag that is denied for its own sake: what is like it would not do the same."""
    assert denied(line).nearest == ""
    assert "nearest" not in denied_error(denied(line)).metadata


@pytest.mark.parametrize("verb", VERBS_INSTEAD)
def test_a_verb_that_is_often_asked_for_has_one_that_does(verb: str) -> None:
    verdict = denied(f"{verb} pod web-0")
    assert verdict.rule is (Rule.SUB_VERB if " " in verb else Rule.VERB)
    assert VERBS_INSTEAD[verb] in verdict.message
    assert denied_error(verdict).metadata["next_step"] == f"Use {VERBS_INSTEAD[verb]}."


def test_nothing_that_is_allowed_has_something_instead() -> None:
    assert not VERBS_INSTEAD.keys() & VERBS.keys()
    assert not VERBS_INSTEAD.keys() & {name.partition(" ")[0] for name in VERBS}
    assert TYPES_INSTEAD.keys() == set(ALWAYS_DENIED)


@pytest.mark.parametrize(
    "words", ["| grep web", "&& ls", "; ls", "> out", "2>&1", "2>/dev/null", ">>log", "<<EOF", "&", "|| true"]
)
def test_there_is_no_shell(words: str) -> None:
    """And that is what is said, with what does the same."""
    argv = ["get", "pods", *words.split()]
    verdict = judge(argv, Policy(), streamed=False, remaining_s=10.0)
    assert isinstance(verdict, Denied)
    assert verdict.rule is Rule.SHELL
    assert "no shell" in verdict.message
    for word in ("grep", "tail", "jsonpath", "--field-selector"):
        assert word in verdict.allowed
        assert word in denied_error(verdict).metadata["next_step"]


@pytest.mark.parametrize("word", ["a>3", "5>3", "a|b", "{.x}", "$x", "web;", "a&b", "!a", "--", "-"])
def test_other_words_are_left_to_the_rest(word: str) -> None:
    """A selector may compare, and what is wrong with a name its own rule says."""
    assert not OF_A_SHELL.fullmatch(word)


@pytest.mark.parametrize("line", ["get 'pods;ls'", "get pods 'web|grep'", "describe pod 'web$(id)'"])
def test_a_shell_within_a_word_is_named_as_well(line: str) -> None:
    assert "no shell here" in denied(line).message


@pytest.mark.parametrize("line", ["get secrets", "describe secret db", "get SECRET/db", "get pods,secrets"])
def test_secrets_are_denied_with_a_reason(line: str) -> None:
    verdict = denied(line)
    assert verdict.message.endswith("may not be read here")
    assert "credentials" in denied_error(verdict).metadata["next_step"]


def test_of_types_that_are_listed_the_nearest_is_named() -> None:
    policy = Policy(types=Selection(allow=("pods", "deployments")))
    assert denied("get deploymens", policy).nearest == "deployments"
    assert denied("get ingresses", policy).nearest == ""


@pytest.mark.parametrize("verb", sorted(VERBS_INSTEAD))
def test_what_is_said_fits_into_a_status(verb: str) -> None:
    verdict = denied(f"{verb} x")
    assert len(verdict.message) < 400
    assert len(verdict.allowed) <= MAX_ALLOWED_CHARACTERS
    assert verdict.next_step.isprintable()
