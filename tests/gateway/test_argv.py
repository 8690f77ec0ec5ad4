"""How argv is built, and that kubectl sees the namespaces that we see."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.argv import Unacceptable, Verb, build_argv, read_scope
from openline.policy import Denied, Policy, judge


def built(*args: str, verb: Verb = Verb.GET, namespace: str | None = None, extra_args: tuple[str, ...] = ()) -> str:
    """As the route does it: a namespace that is not given is the default one."""
    argv = build_argv(
        verb,
        args,
        namespace=namespace or "default",
        is_explicit=namespace is not None,
        extra_args=extra_args,
    )
    return " ".join(argv)


@pytest.mark.parametrize(
    "spelling",
    [
        "-n shop", "-nshop", "-n=shop", "--namespace shop", "--namespace=shop", "-o wide -n shop", "-wn shop",
        "-n shop -n shop",
    ],
)  # fmt: skip
def test_a_namespace_in_the_arguments_wins_over_the_default(spelling: str) -> None:
    """In every spelling that kubectl takes, and nothing is added."""
    words = spelling.split()
    assert read_scope(Verb.GET, words).namespaces == {"shop"}
    assert built("pods", *words) == f"get pods {spelling}"
    assert built("pods", extra_args=tuple(words)) == f"get pods {spelling}"
    assert built("pods", *words, namespace="shop") == f"get pods {spelling}"
    with pytest.raises(Unacceptable, match="default, shop"):
        built("pods", *words, namespace="default")


@pytest.mark.parametrize(
    "spelling", ["-A", "-A=true", "--all-namespaces", "--all_namespaces", "--all-namespaces=true", "-Aowide", "-wA"]
)
def test_all_namespaces_win_over_any(spelling: str) -> None:
    """As in kubectl, where -A wins over -n."""
    assert built("pods", spelling) == f"get pods {spelling}"
    assert built("pods", spelling, namespace="shop") == f"get pods {spelling}"


@pytest.mark.parametrize(
    "words",
    [
        "-l -n", "-o n", "-onshop", "-lapp=-n", "-Lnode", "-ojson", "-cnginx", "-A=false", "--all-namespaces=false",
        "--sort-by=.metadata.namespace", "--for=pod/n", "--names", "nshop", "-v 9", "-- -n",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_namespace_is_none(words: str) -> None:
    """Values of other flags, names, and whatever follows -- say nothing about namespaces."""
    assert not read_scope(Verb.GET, words.split()).is_said


def test_f_takes_a_value_except_in_logs() -> None:
    """`logs -fn shop` follows in shop; `get -fn` would read the file n, and is denied."""
    assert read_scope(Verb.LOGS, ["-fn", "shop"]).namespaces == {"shop"}
    assert read_scope(Verb.GET, ["-fn", "shop"]).namespaces == frozenset()


def test_the_flag_stands_before_the_end_of_flags() -> None:
    """After -- everything is a name."""
    assert built("pods", "--", "-odd") == "get pods -n default -- -odd"


@pytest.mark.parametrize("args", [("-n", "a", "-n", "b"), ("-na", "--namespace=b")])
def test_two_namespaces_in_the_arguments_are_refused(args: tuple[str, ...]) -> None:
    """kubectl would take the last one, and the caller might mean the first."""
    with pytest.raises(Unacceptable, match="a, b"):
        built("pods", *args)


@pytest.mark.parametrize("args", [("-n",), ("--namespace",), ("-An",), ("-o",)])
def test_a_flag_without_its_value_is_refused(args: tuple[str, ...]) -> None:
    """Otherwise it would swallow whatever we append."""
    with pytest.raises(Unacceptable, match="needs a value"):
        built("pods", *args)


@pytest.mark.parametrize("args", [("-Rn", "shop"), ("-nshop", "--token=x"), ("--token",)])
def test_what_the_policy_denies_is_still_denied_with_a_namespace(args: tuple[str, ...]) -> None:
    """Such words say nothing here, and the executor refuses them also with what we append."""
    argv = built("pods", *args).split()
    assert argv[-2:] == ["-n", "default"]
    assert isinstance(judge(argv, Policy(), streamed=False, remaining_s=1.0), Denied)


def test_a_command_has_a_bound() -> None:
    """Words and bytes, as the contract's limits have them."""
    with pytest.raises(Unacceptable, match="words"):
        built(*["x"] * 64)
    with pytest.raises(Unacceptable, match="bytes"):
        built(*["ä" * 8000] * 5)


@pytest.mark.parametrize("verb", list(Verb))
def test_the_real_kubectl_takes_a_namespace_for_every_verb(verb: Verb) -> None:
    """-n is a global flag, so the default namespace breaks no verb; a flag that kubectl does not know would."""
    kubectl = Path(sys.executable).parent / "kubectl"
    taken = subprocess.run([kubectl, verb, "-n", "default", "--help"], capture_output=True, check=False)
    refused = subprocess.run([kubectl, verb, "--no-such-flag", "--help"], capture_output=True, check=False)
    assert (taken.returncode, refused.returncode) == (0, 1)
