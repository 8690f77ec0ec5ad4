"""What a model is told, where what comes is made up: the same in text and in fields, whichever of them it is shown."""

import json
import re
from collections.abc import Set
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gateway.a2a.telling import ADVICE
from gateway.argv import Unacceptable
from gateway.command_answers import ALL, Wish, command_answer
from gateway.command_models import CommandAnswer
from gateway.mcp import together
from gateway.mcp.advising import NEXT
from gateway.mcp.arguments import FanoutArguments
from gateway.mcp.listing import LISTING
from gateway.mcp.telling import Told, clusters_text, failed, failure_fields, refused, told
from gateway.mcp.together import Together
from gateway.shaping import Shaping
from openline.errors import HINT, NEXT_STEP, OpenlineError, error
from openline.ids import new_id
from openline.reasons import UNKNOWN, YES, Reason
from openline.v1 import command_pb2 as pb

SCHEMAS = {tool["name"]: tool["outputSchema"] for tool in LISTING}
LINES = b"".join(b"line %d\n" % number for number in range(2000))
# What the SDK's client takes, as a rule.
MAX_EVENT_BYTES = 1 << 20
FAST_AGAIN = "This was asked for 3 times in the last 7 s. See `next_step`."

# What a text says around that: all of it is in the names of fields. Each is looked for once the values are taken out.
FRAMES = (
    "(no output)", "above is the output so far", "after s", "begun s before this was asked for",
    "the run of an identical command", "with fresh it has a run of its own", "secret values that are masked",
    "the next page: get_result with cursor", "exit code", "still", "it runs on", "command_id", "Did you mean",
    "There are", "Last seen", "Allowed", "Ask again after s", "not connected, so their labels are not known",
)  # fmt: skip
# Names, and facts for programs.
NOT_IN_TEXT = {"command_id", "cluster", "state", "executed", "rule", "truncated", "exit_code"}


def answer(result: pb.CommandResult | None = None, *, wish: Wish = ALL, cluster_id: str = "prod") -> CommandAnswer:
    made = pb.Command(command_id=new_id(), cluster_id=cluster_id, state=pb.COMMAND_STATE_RUNNING)
    if result is not None:
        made.result.CopyFrom(result)
    return command_answer(made, wish)


def exited(**fields: Any) -> pb.CommandResult:
    return pb.CommandResult(outcome=pb.OUTCOME_EXITED, **fields)


def ended(outcome: str, why: pb.Error | None = None, **fields: Any) -> pb.CommandResult:
    return pb.CommandResult(outcome=pb.Outcome.Value(f"OUTCOME_{outcome}"), error=why, **fields)


def shaped(**shaping: Any) -> Wish:
    return Wish(shaping=Shaping(**shaping))


CUT = pb.OutputSummary(total_bytes=5000, cut_bytes=123)
REFUSED = error(
    Reason.CLUSTER_UNKNOWN, "no such cluster", metadata={"near": "east,west", HINT: FAST_AGAIN}, retry_after_s=3
)
COMMANDS: dict[str, tuple[CommandAnswer, dict[str, float]]] = {
    "done": (answer(exited(stdout=b"out\n")), {}),
    "nothing": (answer(exited()), {}),
    "failed": (answer(exited(exit_code=7, stdout=b"out\n", stderr=b"it failed\n")), {}),
    "a page": (answer(exited(stdout=LINES, stderr=b"oh\n"), wish=shaped(max_chars=100)), {}),
    "grep": (answer(exited(stdout=LINES), wish=shaped(grep="7$")), {}),
    "no jsonpath": (answer(exited(stdout=b"text"), wish=shaped(jsonpath="$.a")), {}),
    "cut": (answer(exited(stdout=b"ab", stdout_summary=CUT)), {}),
    "bounded": (answer(exited(stdout=b"x\n", stdout_summary={"total_lines": 1}, bounded=["--tail=1"])), {}),
    "masked": (answer(exited(stdout=b"x", masked_values=31)), {}),
    "shared": (answer(exited(stdout=b"x", served_from=pb.SERVED_FROM_SHARED, age_s=0.4567)), {}),
    "cache": (answer(exited(stdout=b"x", served_from=pb.SERVED_FROM_CACHE, age_s=1.5)), {}),
    "again": (answer(exited(stdout=b"x", hint="Asked for before.")), {}),
    "out of time": (
        answer(
            ended(
                "TIMED_OUT", error(Reason.COMMAND_TIMEOUT, "too late", executed=YES), stdout=b"words", hint="Stop it."
            )
        ),
        {"timeout_s": 9.5},
    ),
    "cancelled": (answer(ended("CANCELLED", error(Reason.CANCELLED, "by mia"), stdout=b"so far")), {}),
    "lost": (answer(ended("LOST", error(Reason.EXECUTOR_LOST, "gone"))), {}),
    "denied": (
        answer(ended("REJECTED", error(Reason.POLICY_DENIED, "forbidden", metadata={NEXT_STEP: "Ask for pods."}))),
        {},
    ),
    "nobody says why": (answer(ended("TIMED_OUT")), {}),
    "of a newer broker": (answer(ended("REJECTED", pb.Error(reason="TOO_LOUD", message="hush"))), {}),
    "running": (answer(), {}),
}


def hold(said: Told, tool: str) -> None:
    """All of the text is in the fields, and of the fields all that is not for programs is in the text."""
    Draft202012Validator(SCHEMAS[tool]).validate(json.loads(json.dumps(said.fields)))
    values = sorted(leaves(said.fields), key=len, reverse=True)
    left = said.text
    for value in values:
        left = re.sub(rf"(?<!\w){re.escape(value.strip())}(?!\w)", "", left) if value.strip() else left
    left = re.sub(r" +", " ", left)
    for frame in sorted(FRAMES, key=len, reverse=True):
        left = left.replace(frame, "")
    assert not re.search(r"\w", left), f"in no field: {left!r}"
    for value in leaves(said.fields, but=NOT_IN_TEXT):
        assert value.strip() in said.text


def leaves(value: Any, *, but: Set[str] = frozenset({"executed"})) -> list[str]:
    if isinstance(value, dict):
        return [leaf for name, each in value.items() if name not in but for leaf in leaves(each, but=but)]
    if isinstance(value, list):
        return [leaf for each in value for leaf in leaves(each, but=but)]
    return [] if isinstance(value, bool) else [f"{value:g}" if isinstance(value, float) else str(value)]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command(name: str) -> None:
    """However it ended, as far as it has."""
    command, more = COMMANDS[name]
    said = told(command, **more)
    hold(said, "kubectl")
    hold(said, "get_result")


@pytest.mark.parametrize(
    "failure",
    [
        REFUSED,
        error(Reason.CLUSTER_UNKNOWN, "no cluster", metadata={"available": "a,b"}),
        error(Reason.CLUSTER_OFFLINE, "away", metadata={"last_seen": "2026-11-29"}, retry_after_s=5),
        error(Reason.POLICY_DENIED, "denied", metadata={"rule": "verb", "allowed": "get", NEXT_STEP: "Use get."}),
        error(Reason.INVALID_COMMAND, "is not valid", violations=[("argv", "has too much")]),
        *(error(reason, "a message") for reason in Reason),
    ],
    ids=lambda failure: failure.reason,
)
def test_a_failure(failure: pb.Error) -> None:
    """What to do next is there for every reason, also where only the broker knows it."""
    said = failed(OpenlineError(failure), command_id="the-command")
    assert said.fields["next_step"]
    hold(said, "kubectl")
    assert failure_fields(OpenlineError(failure), ADVICE)["next_step"]


@pytest.mark.parametrize("reason", Reason)
def test_that_nothing_was_run(reason: Reason) -> None:
    """Is said only where that is known."""
    why = error(reason, "no", executed=UNKNOWN)
    for advice in (NEXT, ADVICE):
        assert "Nothing was run" not in failure_fields(OpenlineError(why), advice)["next_step"]
    assert "Nothing was run" not in told(answer(ended("CANCELLED", why))).text
    corrected = error(Reason.POLICY_DENIED, "no", executed=UNKNOWN, metadata={NEXT_STEP: "Use get."})
    assert failure_fields(OpenlineError(corrected))["next_step"] == "Use get."


def test_what_somebody_stopped() -> None:
    """Is not to be run again as a matter of course: who stopped it had a reason."""
    for said in (told(COMMANDS["cancelled"][0]), failed(OpenlineError(error(Reason.CANCELLED, "by the kill switch")))):
        assert "only if it is still wanted" in said.text
        assert "safe to run it again" not in said.text


def test_a_refusal() -> None:
    said = refused(Unacceptable("command", "makes no sense"))
    assert said.fields["next_step"] == NEXT[Reason.INVALID_COMMAND]
    hold(said, "kubectl")


def test_the_hint_points_at_what_follows() -> None:
    """Where it names the next step, that is what comes after it."""
    said = failed(OpenlineError(REFUSED))
    assert f"See `next_step`. {said.fields['next_step']}" in said.text


def test_many() -> None:
    """What there is to say of an output is said of it; what is the same for all is said once."""
    page = shaped(max_chars=100)
    whole = Together(["prod", "b", "c", "d", "e"], ["f"])
    shared = {"served_from": pb.SERVED_FROM_SHARED, "age_s": 0.1, "hint": "Asked for before."}
    whole.answered(answer(exited(stdout=LINES, exit_code=3, masked_values=2, **shared), wish=page))
    timed_out = ended("TIMED_OUT", error(Reason.COMMAND_TIMEOUT, "too late", executed=YES), stdout=LINES)
    whole.answered(answer(timed_out, wish=page, cluster_id="b"))
    for cluster in ("c", "d"):
        whole.failed(cluster, new_id(), OpenlineError(error(Reason.CLUSTER_OFFLINE, "away", retry_after_s=5)))
    whole.unfinished("e", "the-command", message="it runs on", executed="unknown")
    said = whole.told()
    hold(said, "kubectl_fanout")
    assert said.text.count(NEXT[Reason.CLUSTER_OFFLINE]) == 1
    assert said.fields["served_from"] == "shared"
    [group] = said.fields["groups"]
    assert group["masked_values"] == 2
    assert "characters shown" in group["notes"]
    problems = {each["clusters"][0]: each for each in said.fields["problems"]}
    assert "(command_id the-command)" in said.text
    assert problems["b"]["command_id"] in said.text
    assert problems["b"]["stdout"] in said.text
    assert problems["b"]["next_cursor"] in said.text
    assert problems["c"]["clusters"] == ["c", "d"]
    assert "c, d: CLUSTER_OFFLINE: away." in said.text


def test_many_that_run_on() -> None:
    """No answer yet is no failure, whatever became of the others."""
    whole = Together(["prod", "b"], [])
    for cluster in ("prod", "b"):
        whole.unfinished(cluster, new_id(), message="it runs on", executed="unknown")
    assert not whole.told().is_error
    whole = Together(["prod", "b"], [])
    whole.unfinished("prod", new_id(), message="it runs on", executed="unknown")
    whole.failed("b", new_id(), OpenlineError(error(Reason.CLUSTER_OFFLINE, "away", retry_after_s=5)))
    assert not whole.told().is_error


def test_one_of_many_that_was_stopped_and_nobody_says_why() -> None:
    """What is not known is left out, and is no empty word."""
    whole = Together(["prod"], [])
    whole.answered(answer(ended("CANCELLED")))
    said = whole.told()
    [problem] = said.fields["problems"]
    assert "" not in [value for name, value in problem.items() if name != "stdout"]
    hold(said, "kubectl_fanout")


def test_what_all_refuse_is_said_once() -> None:
    """With the clusters that do, and the longest time to wait; what may have run has an id of its own."""
    names = [f"cluster-{number:03}" for number in range(200)]
    whole = Together(names, [])
    for number, name in enumerate(names[:-2]):
        denied = error(Reason.POLICY_DENIED, "the verb delete is not allowed", metadata={"allowed": "get, describe"})
        denied.retry_after_s = number % 7
        whole.failed(name, new_id(), OpenlineError(denied))
    for name in names[-2:]:
        whole.failed(
            name, f"the-command-of-{name}", OpenlineError(error(Reason.EXECUTOR_LOST, "gone", executed=UNKNOWN))
        )
    said = whole.told()
    hold(said, "kubectl_fanout")
    denied_by_all, *lost = said.fields["problems"]
    assert denied_by_all["clusters"] == names[:-2]
    assert [each["clusters"] for each in lost] == [[name] for name in names[-2:]]
    assert all(each["command_id"] in said.text for each in lost)
    assert said.text.count("the verb delete is not allowed") == said.text.count("Allowed: ") == 1
    assert len(said.text) < 200 * 20


def test_the_longest_time_to_wait() -> None:
    """Is that of refusals that are said together."""
    whole = Together(["a", "b", "c"], [])
    for name, wait_s in (("a", 5), ("b", 60), ("c", 7)):
        whole.failed(name, new_id(), OpenlineError(error(Reason.CLUSTER_BUSY, "too much", retry_after_s=wait_s)))
    said = whole.told()
    hold(said, "kubectl_fanout")
    assert [each["retry_after_s"] for each in said.fields["problems"]] == [60]


def test_whatever_happens_fits_into_an_event() -> None:
    """In 200 clusters, of which each answers with the longest page or is refused for reasons of its own, in the
    characters that are longest in JSON; text and fields together.
    """
    names = [f"{number:03}-{'x' * 59}" for number in range(200)]
    page = shaped(max_chars=FanoutArguments.read({"max_output_chars": 900_000}).max_output_chars)
    for char in ("\0", "\U0001f600"):
        for answering in (0, 1, 100, 200):
            whole = Together(names, [])
            for name in names[:answering]:
                output = (name + char * 90_000).encode()
                whole.answered(answer(exited(stdout=output, stderr=b"oh\n"), wish=page, cluster_id=name))
            for name in names[answering:]:
                why = error(Reason.CLUSTER_OFFLINE, f"{name} {char * 240}", retry_after_s=5, executed=UNKNOWN)
                whole.failed(name, new_id(), OpenlineError(why))
            said = whole.told()
            assert len(json.dumps([said.text, said.fields])) < MAX_EVENT_BYTES - 10_000
            assert all(name in said.text for name in names[answering:])
            assert len(said.fields["groups"]) == min(1, answering)


@pytest.mark.parametrize(
    ("codes", "is_error"),
    [([1, 2], True), ([1, None], True), ([1, 0], False), ([0, None], False), ([None], True), ([], False)],
)
def test_many_that_fail(codes: list[int | None], is_error: bool) -> None:
    """Is an error where it has succeeded in none, as with one cluster. None is one that could not be asked."""
    names = [f"c{nth}" for nth in range(len(codes))]
    whole = Together(names, [])
    for name, code in zip(names, codes, strict=True):
        if code is None:
            whole.failed(name, new_id(), OpenlineError(error(Reason.CLUSTER_OFFLINE, "away")))
        else:
            whole.answered(answer(exited(exit_code=code, stdout=b"out"), cluster_id=name))
    assert whole.told().is_error is is_error


def test_output_of_what_was_stopped_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same bound as that of all others; the rest can be fetched by its id."""
    monkeypatch.setattr(together, "MAX_TEXT_CHARS", 30_000)
    names = list("abcde")
    whole = Together(names, [])
    timed_out = ended("TIMED_OUT", error(Reason.COMMAND_TIMEOUT, "too late", executed=UNKNOWN), stdout=LINES[:8000])
    for name in names:
        whole.answered(answer(timed_out, cluster_id=name))
    said = whole.told()
    assert len(said.text) < 31_000
    assert ["stdout" in each for each in said.fields["problems"]] == [True] * 3 + [False] * 2
    assert all(each["command_id"] in said.text for each in said.fields["problems"])
    assert "[the output so far of 2 clusters is not shown: get_result has it]" in said.text


def test_the_schema_has_them() -> None:
    """The fields that say what to do and whose run it is, of whatever runs a command or shows one."""
    for tool in ("kubectl", "get_result", "kubectl_fanout"):
        assert SCHEMAS[tool]["properties"].keys() >= {"hint", "next_step", "served_from", "age_s"}


def test_clusters_on_another_page() -> None:
    """How many there are is a field as well."""
    fields = {"clusters": [{"cluster": "a", "connected": True, "labels": {"env": "dev"}}], "next": "a", "left": 7}
    assert clusters_text(fields) == 'a connected env=dev\n[7 more: list_clusters with after "a"]'
    Draft202012Validator(SCHEMAS["list_clusters"]).validate(fields)
