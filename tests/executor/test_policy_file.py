"""--policy FILE: what it says, what it cannot say, and that it is read again."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executor.policy import PolicyInForce
from executor.policy_file import PolicyUnusable, read_policy
from openline.policy import Allowed, Denied, Masking, Output, Policy, judge
from openline.policy.resources import DENIED_BY_DEFAULT
from openline.policy.tables import VERBS
from openline.policy.wire import capabilities_of, policy_of

WHOLE = """
verbs: [get, rollout, auth can-i]
resources:
  allow: [po, svc, widgets]
  deny: [cm]
namespaces:
  allow: [shop, "team-*"]
  deny: [team-secret]
output: {max_bytes: 65536, max_log_lines: 100, max_log_bytes: 4096}
masking: {secrets: true, values: false}
"""


def policy(tmp_path: Path, text: str) -> Policy:
    (tmp_path / "policy.yaml").write_text(text)
    return read_policy(tmp_path / "policy.yaml")


def rule(said: Policy, line: str) -> str:
    """The rule that denies; `allowed` for none."""
    verdict = judge(line.split(), said, streamed=False, remaining_s=10.0)
    return verdict.rule if isinstance(verdict, Denied) else "allowed"


def test_a_whole_file(tmp_path: Path) -> None:
    """Short names stand for their types, the first word of a verb for all that begin with it."""
    said = policy(tmp_path, WHOLE)
    assert said.verbs == ("auth can-i", "get", "rollout history", "rollout status")
    assert said.types.allow == ("pods", "services", "widgets")
    assert said.types.deny == tuple(sorted(("configmaps", *DENIED_BY_DEFAULT)))
    assert (said.namespaces.allow, said.namespaces.deny) == (("shop", "team-*"), ("team-secret",))
    assert said.output == Output(65536, 100, 4096)
    assert said.masking == Masking(secrets=True, values=False)
    assert policy_of(capabilities_of(said)) == said


@pytest.mark.parametrize("text", ["{}", "output: {}", "{} # nothing", "\ufeff{}\r\n", "{} #\tümlaut"])
def test_a_file_that_says_nothing_in_particular_is_the_default(tmp_path: Path, text: str) -> None:
    assert policy(tmp_path, text) == Policy()
    assert policy_of(capabilities_of(Policy())) == Policy()


def test_policies_that_differ_have_digests_that_differ(tmp_path: Path) -> None:
    digests = {policy(tmp_path, text).digest for text in (WHOLE, "{}", "verbs: [get]", "masking: {values: false}")}
    assert len(digests) == 4
    assert policy(tmp_path, "verbs: [get]").digest == policy(tmp_path, "verbs: ['get']").digest


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("get pods -n shop", "allowed"),
        ("get Pod/x -n shop", "allowed"),
        ("get po,services -n team-a", "allowed"),
        ("get widget -n shop", "allowed"),
        ("get cm -n shop", "resource"),
        ("get ConfigMap -n shop", "resource"),
        ("get deployments -n shop", "resource"),
        ("get all -n shop", "resource"),
        ("get pods", "namespace"),
        ("get pods -A", "namespace"),
        ("get pods -A -n shop", "namespace"),
        ("get pods -n shop -A=false", "allowed"),
        ("get pods -n kube-system", "namespace"),
        ("get pods -n team-secret", "namespace"),
        ("get pods -n shop -n default", "namespace"),
        ("describe pods -n shop", "verb"),
        ("get nodes", "resource"),
        ("logs x -n shop", "verb"),
        ("rollout history svc/x -n shop", "allowed"),
        ("auth can-i get secrets", "allowed"),
        ("auth whoami", "verb"),
    ],
)
def test_what_it_narrows(tmp_path: Path, line: str, expected: str) -> None:
    assert rule(policy(tmp_path, WHOLE), line) == expected


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("resources: {deny: []}", "get oauthaccesstokens", "resource"),
        ("resources: {deny: [pods]}", "get oauthaccesstokens", "resource"),
        ("resources: {allow: [pods]}", "get oauthaccesstokens", "resource"),
        ("resources: {allow: [oauthaccesstoken]}", "get oauthaccesstokens", "allowed"),
        ("resources: {allow: [oauthaccesstokens], deny: [oauthaccesstoken]}", "get oauthaccesstokens", "resource"),
        ("resources: {deny: []}", "get secrets", "resource"),
        ("resources: {deny: [pods]}", "logs web-0", "resource"),
        ("resources: {deny: [pods]}", "top pods", "resource"),
        ("resources: {deny: [pods]}", "get all", "resource"),
        ("resources: {deny: [po]}", "describe po/x", "resource"),
        ("resources: {deny: [events]}", "events", "resource"),
        ("resources: {deny: [nodes]}", "top node", "resource"),
        ("resources: {deny: [policies]}", "get Policy.example.com", "resource"),
        ("resources: {allow: [all]}", "get all", "allowed"),
        ("namespaces: {deny: [kube-system]}", "get pods -n shop", "allowed"),
        ("namespaces: {deny: [kube-*]}", "get pods -n kube-system", "namespace"),
        ("namespaces: {deny: [kube-system]}", "get pods -A", "namespace"),
        ("namespaces: {deny: [kube-system]}", "cluster-info", "namespace"),
        ("namespaces: {deny: [kube-system]}", "top nodes", "allowed"),
        *(
            ("namespaces: {allow: [shop]}", line, "allowed")
            for line in (
                "get nodes",
                "get Node/birch",
                "get ns",
                "get crd",
                "get pv,sc",
                "describe no birch",
                "get nodes -A",
                "get clusterroles",
                "describe ingressclass",
                "get node/birch pv/x -o yaml",
                "api-resources",
            )
        ),
        *(
            ("namespaces: {allow: [shop]}", line, "namespace")
            for line in (
                "get pods",
                "get nodes,pods",
                "get node/birch pod/x",
                "get nodes.example.com",
                "get widgets",
                "get",
                "events --for node/birch",
                "get all",
            )
        ),
        ("resources: {deny: [nodes]}\nnamespaces: {allow: [shop]}", "get nodes", "resource"),
        ("resources: {allow: [mc]}", "get machineconfigs", "allowed"),
        ("resources: {allow: [machineconfig]}", "get mc", "allowed"),
    ],
)
def test_what_it_can_and_cannot_change(tmp_path: Path, text: str, line: str, expected: str) -> None:
    assert rule(policy(tmp_path, text), line) == expected


@pytest.mark.parametrize(
    ("text", "line", "message", "allowed"),
    [
        (
            "resources: {deny: [pods]}",
            "get secret",
            "'secret' may not be read here",
            "every type but secrets, authcodes",
        ),
        ("resources: {allow: [po, cm], deny: [cm]}", "get svc", "'svc' may not be read here", "pods"),
        ("{}", "config view", "the verb config is not allowed; nearest to it: auth whoami", "api-resources, "),
        ("{}", "wait pod x", "the verb wait is not allowed; nearest to it: rollout status", "api-resources, "),
    ],
    ids=range(4),
)
def test_a_denial_says_what_is_allowed(tmp_path: Path, text: str, line: str, message: str, allowed: str) -> None:
    verdict = judge(line.split(), policy(tmp_path, text), streamed=False, remaining_s=10.0)
    assert isinstance(verdict, Denied)
    assert verdict.message.startswith(message)
    assert verdict.allowed.startswith(allowed)


def test_bounds_on_logs_are_the_files(tmp_path: Path) -> None:
    said = policy(tmp_path, "output: {max_log_lines: 7, max_log_bytes: 2048}")
    verdict = judge(["logs", "x", "--tail=9"], said, streamed=False, remaining_s=10.0)
    assert isinstance(verdict, Allowed)
    assert verdict.argv == ("logs", "x", "--limit-bytes=2048", "--request-timeout=10s", "--tail=7")
    assert verdict.policy is said
    assert verdict.bounded == ("--limit-bytes=2048", "--tail=7")


@pytest.mark.parametrize(
    ("line", "bounded"),
    [
        ("get pods", ""),
        ("get pods --request-timeout=5s --chunk-size=10", ""),
        ("get pods --request-timeout=5m --chunk-size=0", "--chunk-size=500 --request-timeout=10s"),
        ("logs x", "--limit-bytes=16777216 --tail=20000"),
        ("logs x --tail=100 --limit-bytes=5000", ""),
        ("logs x --tail=-1 --limit-bytes=5000", "--tail=20000"),
        ("rollout status deploy/x", "--timeout=9s"),
        ("rollout status deploy/x --timeout=3s", ""),
    ],
)
def test_what_makes_a_command_smaller_is_said(line: str, bounded: str) -> None:
    verdict = judge(line.split(), Policy(), streamed=False, remaining_s=10.0)
    assert isinstance(verdict, Allowed)
    assert " ".join(verdict.bounded) == bounded
    again = judge(verdict.argv, Policy(), streamed=False, remaining_s=10.0)
    assert isinstance(again, Allowed)
    assert again.bounded == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("verbs: [delete]", "there is no verb 'delete'"),
        ("verbs: [gte]", "did you mean get?"),
        ("verbs: []", "verbs: "),
        ("verbs: get", "verbs: "),
        ("resources: {allow: [secrets]}", "secrets can never be allowed"),
        ("resources: {allow: [secret]}", "secret can never be allowed"),
        ("resources: {deny: [pods/log]}", "resources.deny.0: "),
        ("resources: {denied: [pods]}", "resources.denied: "),
        ("namespaces: {allow: [Shop]}", "namespaces.allow.0: "),
        ("namespaces: {allow: []}", "namespaces.allow: "),
        ("output: {max_bytes: 1}", "output.max_bytes: "),
        ("output: {max_bytes: 99999999}", "output.max_bytes: "),
        ("output: {max_bytes: '65536'}", "output.max_bytes: "),
        ("masking: {secrets: 0}", "masking.secrets: "),
        ("masking: no", "masking: "),
        ("flags: [raw]", "flags: "),
        ("verbs: [get]\nverbs: [logs]", "'verbs' is there twice"),
        ("masking: {values: true, values: false}", "'values' is there twice"),
        ("namespaces: {<<: {deny: [kube-system]}, deny: []}", "not taken over with <<"),
        ("<<: {verbs: [get]}", "not taken over with <<"),
        ("verbs: [get] # x\u2028masking: {values: false}", "plain text, without '\\u2028'"),
        ("verbs: [get] # x\x85masking: {values: false}", "plain text, without '\\x85'"),
        ("verbs: [get] # \u202e", "plain text, without '\\u202e'"),
        ("- get", "the file: "),
        ("", "says nothing"),
        ("# nothing", "says nothing"),
        ("---", "says nothing"),
        ("null", "says nothing"),
        ("resources:\n  allow:", "nothing is said after 'allow'"),
        ("namespaces: {allow: ~}", "nothing is said after 'allow'"),
        ("resources:", "nothing is said after 'resources'"),
        ("---\n{}\n---\n{}", "is not YAML"),
        ("{", "is not YAML"),
        ("verbs: [2026-13-45]", "is not YAML"),
        ("verbs: !!bool x", "is not YAML"),
        ("verbs: !!timestamp x", "is not YAML"),
        (f"output: {{max_bytes: 1{'0' * 5000}}}", "is not YAML"),
        ("!!python/object/apply:os.system [id]", "is not YAML"),
        ("\x00", "plain text, without '\\x00'"),
        ("[" * 5000, "in each other"),
        ("- " * 5000, "in each other"),
        ("#" * 70_000, "longer than"),
        (f"resources: {{deny: [{', '.join(f'{chr(97 + i % 26)}{i:060}' for i in range(300))}]}}", "bytes together"),
    ],
    ids=range(43),
)
def test_what_is_no_policy_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(PolicyUnusable) as refused:
        policy(tmp_path, text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), st.text(alphabet="verbs: [get]{}!&*\n-'\"0x<", max_size=80).map(str.encode)))
def test_any_file_is_a_policy_or_is_refused(tmp_path: Path, data: bytes) -> None:
    """Nothing else is raised: it would end an executor that has been running well."""
    (tmp_path / "policy.yaml").write_bytes(data)
    with contextlib.suppress(PolicyUnusable):
        assert isinstance(read_policy(tmp_path / "policy.yaml"), Policy)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """Nobody writes into the pipe: who waited for it would wait forever."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "nothing.yaml", tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(PolicyUnusable, match=r"cannot read|is not a regular file"):
            read_policy(path)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"verbs: [get]\xff", "{}".encode("utf-16"), b"\xc3"], ids=range(4))
def test_what_is_not_utf8_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "policy.yaml").write_bytes(data)
    with pytest.raises(PolicyUnusable, match="is not UTF-8"):
        read_policy(tmp_path / "policy.yaml")


def test_many_names_are_looked_through_once(tmp_path: Path) -> None:
    """As many as a file has room for: it is read between two commands."""
    with pytest.raises(PolicyUnusable, match="'a0' is there twice"):
        policy(tmp_path, "{a0, " + ", ".join(f"a{i}" for i in range(8000)) + "}")


async def test_a_change_is_taken_over_and_a_mistake_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever replaces the file is heard; a file that is wrong, gone or half written leaves the policy as it was."""
    monkeypatch.setattr("executor.policy.LOOK_EVERY_S", 0.01)
    file = tmp_path / "policy.yaml"
    file.write_text("verbs: [get]")
    in_force = PolicyInForce(file)
    changes: asyncio.Queue[Policy] = asyncio.Queue()
    watch = asyncio.create_task(in_force.watch(changes.put_nowait))
    async with asyncio.timeout(15):

        def replace(text: str) -> None:
            (tmp_path / "new").write_text(text)
            (tmp_path / "new").rename(file)

        replace("verbs: [get, version]")
        assert (await changes.get()).verbs == ("get", "version") == in_force.policy.verbs
        for wrong in ("verbs: [delete]", "{"):
            replace(wrong)
            while "policy.refused" not in capsys.readouterr().out:
                await asyncio.sleep(0.01)
            assert in_force.policy.verbs == ("get", "version")
        file.unlink()
        replace("verbs: [get, version]  # as before")
        file.write_text("verbs: [logs]")
        assert (await changes.get()).verbs == ("logs",)
        assert changes.empty()
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


def test_a_file_is_not_taken_while_it_is_written(tmp_path: Path) -> None:
    """Its first lines, or none of them, may be a wider policy than the whole."""
    file = tmp_path / "policy.yaml"
    file.write_text("verbs: [get]")
    in_force = PolicyInForce(file)
    for written in ("", "resources: {}\n", "resources: {}\nverbs: [get, version]"):
        file.write_text(written)
        assert not in_force.read_again()
    assert list(in_force.policy.verbs) == ["get"]
    assert in_force.read_again()
    assert list(in_force.policy.verbs) == ["get", "version"]
    assert not in_force.read_again()


@pytest.mark.parametrize("text", ["", "# nothing", "null", "resources:"])
def test_an_emptied_file_changes_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("verbs: [get]")
    in_force = PolicyInForce(file)
    file.write_text(text)
    assert [in_force.read_again() for _ in range(3)] == [False] * 3
    assert in_force.policy.verbs == ("get",)


def test_a_file_that_changes_while_it_is_read_is_read_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("verbs: [get]")
    in_force = PolicyInForce(file)
    file.write_text("output: {}")

    def read_while_it_is_written(path: Path) -> Policy:
        said = read_policy(path)
        path.write_text("verbs: [logs]")
        return said

    assert not in_force.read_again()
    with monkeypatch.context() as patched:
        patched.setattr("executor.policy.read_policy", read_while_it_is_written)
        assert not in_force.read_again()
    assert list(in_force.policy.verbs) == ["get"]
    assert [in_force.read_again(), in_force.read_again()] == [False, True]
    assert list(in_force.policy.verbs) == ["logs"]


def test_a_mounted_config_map_is_followed(tmp_path: Path) -> None:
    """The kubelet writes a new directory and turns one link round: policy.yaml ─▶ ..data/policy.yaml ─▶ ..<time>/."""
    for name, text in (("..1", "verbs: [get]"), ("..2", "verbs: [logs]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "policy.yaml").symlink_to("..data/policy.yaml")
    in_force = PolicyInForce(tmp_path / "policy.yaml")
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert [in_force.read_again(), in_force.read_again()] == [False, True]
    assert in_force.policy.verbs == ("logs",)


def test_without_a_file_it_is_the_default() -> None:
    assert PolicyInForce().policy == Policy()
    assert set(PolicyInForce().policy.verbs) == set(VERBS)
