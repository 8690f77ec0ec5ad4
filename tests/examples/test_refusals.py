"""What the agent does when openline says no."""

from collections.abc import Iterator

import pytest

from examples.diagnose.following import follow
from examples.diagnose.refusals import Again, DoWithout, Stop, react
from examples.diagnose.via_sdk import shape
from examples.diagnose.words import Answer, Finding, GaveUp, Plan, Refusal, Step


def plan() -> Plan:
    """Two questions; what the second one came to is the finding's evidence."""
    yield Step("first", ("get", "pods"))
    answer = yield Step("second", ("get", "nodes"))
    return Finding("it", "because", (answer.stdout,))


class Script:
    """Gives its answers one after the other, and knows which clusters were asked."""

    def __init__(self, *answers: Answer | Refusal) -> None:
        self._answers: Iterator[Answer | Refusal] = iter(answers)
        self.clusters: list[str] = []

    async def __call__(self, cluster: str, step: Step) -> Answer:
        self.clusters.append(cluster)
        answer = next(self._answers)
        return Answer(exit_code=None, refusal=answer) if isinstance(answer, Refusal) else answer


async def test_the_cluster_that_was_meant_is_asked_from_then_on() -> None:
    script = Script(Refusal("CLUSTER_UNKNOWN", "no cluster 'a'", near=("b",)), Answer("1"), Answer("2"))
    found = await follow(plan(), script, "a", patience_s=0)
    assert script.clusters == ["a", "b", "b"]
    assert found == Finding("it", "because", ("2",))


async def test_what_it_says_is_one_sentence_after_another(capsys: pytest.CaptureFixture[str]) -> None:
    refusal = Refusal("CLUSTER_UNKNOWN", "no cluster 'lcal'; did you mean local?", near=("local",))
    await follow(plan(), Script(refusal, Answer("1"), Answer("2")), "lcal", patience_s=0)
    assert "CLUSTER_UNKNOWN: no cluster 'lcal'; did you mean local? I take local." in capsys.readouterr().out


async def test_what_may_be_done_later_is_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    """The same of the same cluster, after a second at least."""
    script = Script(Answer("1"), Refusal("CLUSTER_BUSY", "too many", retry_after_s=0.1), Answer("2"))
    found = await follow(plan(), script, "a", patience_s=60)
    assert found == Finding("it", "because", ("2",))
    assert script.clusters == ["a", "a", "a"]
    assert "CLUSTER_BUSY: too many. I ask again in 1 s." in capsys.readouterr().out


async def test_what_is_denied_is_done_without(capsys: pytest.CaptureFixture[str]) -> None:
    script = Script(Answer("1"), Refusal("POLICY_DENIED", "not nodes", allowed="pods"))
    assert await follow(plan(), script, "a", patience_s=0) == Finding("it", "because", ("",))
    assert "POLICY_DENIED: not nodes. Allowed is: pods. I do without." in capsys.readouterr().out


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal("CLUSTER_UNKNOWN", "no cluster", near=("b", "c")),
        Refusal("CLUSTER_UNKNOWN", "no cluster"),
        Refusal("CLUSTER_OFFLINE", "away", retry_after_s=11),
        Refusal("UNAUTHENTICATED", "wrong key"),
        Refusal("SCOPE_MISSING", "not with this key"),
    ],
)
async def test_what_will_not_get_better_is_the_end(refusal: Refusal) -> None:
    with pytest.raises(GaveUp, match=refusal.reason):
        await follow(plan(), Script(refusal), "a", patience_s=10)
    assert isinstance(react(refusal, cluster="a", patience_s=10), Stop)


async def test_two_clusters_that_are_said_to_be_each_other_are_no_endless_loop() -> None:
    script = Script(*[Refusal("CLUSTER_UNKNOWN", "", near=(name,)) for name in "ba" * 50])
    with pytest.raises(GaveUp, match="CLUSTER_UNKNOWN"):
        await follow(plan(), script, "a", patience_s=0)
    assert len(script.clusters) == 20


def test_a_reaction_fits_its_refusal() -> None:
    assert isinstance(react(Refusal("CLUSTER_UNKNOWN", "", near=("a",)), cluster="a", patience_s=9), Stop)
    assert isinstance(react(Refusal("COMMAND_TIMEOUT", ""), cluster="a", patience_s=9), DoWithout)
    later = Refusal("STORE_UNAVAILABLE", "x", retry_after_s=3)
    assert react(later, cluster="a", patience_s=9) == Again("a", 3, "STORE_UNAVAILABLE: x. I ask again in 3 s.")


async def test_nothing_that_a_cluster_prints_acts_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """And no line of it is long."""
    await follow(plan(), Script(Answer("\x1b]0;title\x07one" + "x" * 500), Answer("2")), "a", patience_s=0)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "title" in shown
    assert max(map(len, shown.splitlines())) < 200


def test_a_program_shapes_as_the_gateway_does() -> None:
    """Select, then search, then the last lines."""
    text = '{"items": [{"n": "a1"}, {"n": "b"}, {"n": "a2"}, {"n": "a3"}]}'
    step = Step("", (), jsonpath="$.items[*].n", grep="^.a", tail=2)
    assert shape(text, step) == '"a2"\n"a3"'
    assert shape("one\ntwo\n", Step("", ())) == "one\ntwo"
