"""Arguments made up from the grammar of kubectl's flags, and from nothing at all.

`read_as_kubectl` is a second reading of the same rules, written from pflag's parseArgs and cobra's Find, with the flags
of all verbs whether they are allowed or not. What the policy lets through, both must have read alike.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from openline.policy import Allowed, Denied, Policy, judge
from openline.policy.lexer import lex
from openline.policy.tables import BOOL, DENIED, GLOBAL, SHORT, SHORT_IN, SUB_VERB_ALIASES, VERBS

SWITCHES = {name for verb in VERBS.values() for name, kind in {**verb.flags, **GLOBAL}.items() if kind is BOOL}
# Flags that are never allowed, and take no value.
SWITCHES |= {"insecure-skip-tls-verify", "insecure-skip-tls-verify-backend", "match-server-version", "recursive"}
SWITCHES |= {"disable-compression"}
# What cobra knows before it has found a verb.
PERSISTENT = (
    {*GLOBAL, *DENIED} - {"filename", "kustomize", "recursive", "raw", "template", "insecure-skip-tls-verify-backend"}
) - {"help"}
PERSISTENT_SHORT = {"n": "namespace", "s": "server", "v": "v"}

NAMES = sorted({*DENIED, *GLOBAL, *(name for verb in VERBS.values() for name in verb.flags), "unknown", "n", "o"})
WORDS = [
    "get", "status", "history", "pods", "pod/web-0", "web-0", "secrets", "Secret/x", "pods,secrets", "json", "x=y",
    "jsonpath={.items}", "jsonpath-file=/x", "true", "false", "shop", "-", "--", "..", "5s", "10", "restart", "delete",
    "/etc/passwd", "app=web",
]  # fmt: skip
SIGNS = "{}.$|()[]'\"`ab =:,-\\%*0"
HEADS = [*(name.split() for name in VERBS), ["rollout", "restart"], ["delete"], ["top", "po"], ["config", "view"]]

values = st.sampled_from(WORDS)
letters = st.sampled_from([*SHORT, "x", "test.v"])
flags = st.one_of(
    st.builds(lambda name, value: [f"--{name}={value}"], st.sampled_from(NAMES), values),
    st.builds(lambda name, value: [f"--{name}", value], st.sampled_from(NAMES), values),
    st.builds(lambda name: [f"--{name.replace('-', '_')}"], st.sampled_from(NAMES)),
    st.builds(lambda bundle, value: [f"-{''.join(bundle)}{value}"], st.lists(letters, min_size=1, max_size=3), values),
    st.builds(lambda bundle, value: [f"-{''.join(bundle)}={value}"], st.lists(letters, min_size=1, max_size=3), values),
    st.builds(lambda bundle: [f"-{''.join(bundle)}"], st.lists(letters, min_size=1, max_size=3)),
)
pieces = st.one_of(flags, values.map(lambda word: [word]))


@st.composite
def argvs(draw: st.DrawFn) -> list[str]:
    """Flags before the verb and between its words as well, now and then."""
    argv: list[str] = []
    for word in draw(st.sampled_from(HEADS)):
        if draw(st.integers(0, 5)) == 0:
            argv += draw(flags)
        argv.append(word)
    for piece in draw(st.lists(pieces, max_size=5)):
        argv += piece
    return argv


@dataclass(frozen=True)
class Read:
    """What kubectl would understand; None where it would refuse."""

    verb: str
    flags: dict[str, str]
    positionals: list[str]


def read_as_kubectl(argv: Sequence[str]) -> Read | None:
    rest, path = list(argv), ""
    while path not in VERBS:
        found = find(rest)
        if found is None:
            return None
        word = rest.pop(found)
        path = f"{path} {SUB_VERB_ALIASES.get(path, {}).get(word, word)}".strip()
        if not any(f"{verb} ".startswith(f"{path} ") for verb in VERBS):
            return None
    return parse(path, rest)


def find(words: Sequence[str]) -> int | None:
    """cobra's stripFlags: where the next word of a verb is, knowing only the flags of every verb."""
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            return None
        long = word.startswith("--") and "=" not in word
        short = word.startswith("-") and "=" not in word and len(word) == 2
        name = word[2:] if long else PERSISTENT_SHORT.get(word[1:], "")
        if (long or short) and name.replace("_", "-") not in PERSISTENT & SWITCHES:
            index += 2
        elif word and not word.startswith("-"):
            return index
        else:
            index += 1
    return None


def parse(verb: str, words: Sequence[str]) -> Read | None:
    """pflag's parseArgs; a flag that only another verb has is one of this verb as well, which refuses less."""
    short = {**SHORT, **SHORT_IN.get(verb, {})}
    given: dict[str, str] = {}
    positionals: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if len(word) < 2 or word[0] != "-":
            positionals.append(word)
        elif word == "--":
            positionals += rest
            rest = []
        elif word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = name.replace("_", "-")
            if not name or name[0] == "-" or name not in NAMES or len(name) == 1:
                return None
            if not equals and name in SWITCHES:
                value = "true"
            elif not equals:
                if not rest:
                    return None
                value = rest.pop(0)
            given[name] = value
        else:
            bundle = word[1:]
            while bundle:
                if bundle.startswith("test."):  # pflag leaves these to `go test`
                    break
                letter, bundle = bundle[0], bundle[1:]
                if letter not in short:
                    return None
                name = short[letter]
                if len(bundle) > 1 and bundle[0] == "=":
                    value, bundle = bundle[1:], ""
                elif name in SWITCHES:
                    value = "true"
                elif bundle:
                    value, bundle = bundle, ""
                elif rest:
                    value = rest.pop(0)
                else:
                    return None
                given[name] = value
    return Read(verb, given, positionals)


def check_allowed(argv: Sequence[str], verdict: Allowed, *, streamed: bool) -> None:
    """What holds of everything that runs."""
    read = read_as_kubectl(argv)
    assert read is not None
    known = {**VERBS[read.verb].flags, **GLOBAL}
    words = [word for word in verdict.argv if not word.startswith("-")]
    runs = dict(word[2:].split("=", 1) for word in verdict.argv if word.startswith("-"))
    # Nothing outside of the tables, nothing that can be read in two ways, and what kubectl would have understood.
    assert all(re.fullmatch(r"--[a-z-]+=.*", word) for word in verdict.argv if word.startswith("-"))
    assert set(runs) <= set(known)
    assert words == [*read.verb.split(), *read.positionals]
    assert set(read.flags) <= set(runs)
    assert set(runs) - set(read.flags) <= {"request-timeout", "timeout", "watch", "tail", "limit-bytes"}
    for name, value in read.flags.items():
        if name in ("namespace", "selector", "for", "container"):
            assert runs[name] == value
    named = ",".join([*read.positionals[:1], *(word for word in read.positionals if "/" in word), runs.get("for", "")])
    if read.verb.split()[0] not in ("auth", "explain", "top"):
        assert not re.search(r"(?i)(^|,)secrets?([./,]|$)", named) or (read.verb == "logs" and "/" not in named)
    assert "-file" not in runs.get("output", "")
    if not streamed:
        assert "true" not in [runs.get(name) for name in ("watch", "watch-only", "follow")]
    # And what runs is read the same by all.
    again = read_as_kubectl(verdict.argv)
    assert again == Read(read.verb, runs, read.positionals)
    lexed = lex(verdict.argv)
    assert (lexed.verb, dict(lexed.flags), list(lexed.positionals)) == (read.verb, runs, read.positionals)
    assert judge(verdict.argv, Policy(), streamed=streamed, remaining_s=10.0) == verdict


@settings(max_examples=1500)
@given(argvs(), st.booleans())
@example(["-n", "get", "get", "pods"], False)
@example(["get", "pods", "-test.v"], False)
@example(["rollout", "-n", "status", "history", "deploy/x"], False)
@example(["--warnings-as-errors", "get", "pods"], False)
@example(["--warnings_as_errors", "get", "pods"], False)
@example(["--help", "get", "pods"], False)
@example(["-h", "get", "pods"], False)
def test_what_is_allowed_is_in_the_tables_and_was_read_as_kubectl_reads_it(argv: list[str], streamed: bool) -> None:
    verdict = judge(argv, Policy(), streamed=streamed, remaining_s=10.0)
    if isinstance(verdict, Allowed):
        check_allowed(argv, verdict, streamed=streamed)
    else:
        assert (verdict.message + verdict.allowed).isprintable()


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(st.text(max_size=20), st.sampled_from(["get", "pods", "-o", "logs", "\ud800", "-n"])), max_size=70
    )
)
@example([])
@example([""])
@example(["get"] * 65)
@example(["get", "x" * 200_000])
@example(["get", *["ü" * 8000] * 5])
@example(["get", "pods\ud800"])
@example(["get", "-\ud800"])
@example(["get", "-o", "go-template={{" + "(" * 4000])
def test_any_list_of_strings_is_judged(argv: list[str]) -> None:
    """Nothing is raised, whatever they are."""
    verdict = judge(argv, Policy(), streamed=False, remaining_s=0.0)
    assert isinstance(verdict, Allowed | Denied)
    if isinstance(verdict, Denied):
        assert (verdict.message + verdict.allowed).isprintable()
        assert verdict.allowed


@settings(max_examples=300)
@given(
    st.text(alphabet="{}.$|()[]'\"`ab =:,-\\%*0", max_size=40),
    st.sampled_from(["go-template", "jsonpath", "custom-columns"]),
)
def test_any_template_is_judged(text: str, form: str) -> None:
    verdict = judge(["get", "pods", "-o", f"{form}={text}"], Policy(), streamed=False, remaining_s=1.0)
    assert isinstance(verdict, Allowed | Denied)
