"""The deny-by-default list."""

import pytest

from executor.policy import check
from openline import limits
from openline.reasons import NO, Reason


@pytest.mark.parametrize(
    "line",
    [
        "get pods",
        "get pods -n shop",
        "get pods,services -A -o wide",
        "get pods -nshop -ojson",
        "get pods -n=shop -o=jsonpath={.items[*].metadata.name}",
        "get -Ao yaml deployments",
        "get pods -l app=recreate --sort-by=.metadata.name --show-labels",
        "get pods --field-selector status.phase!=Running --no-headers=true",
        "get pod secret",  # a pod of that name
        "get pod/secrets",
        "get externalsecrets",
        "get pods --watch=false",
        "describe pod/web-0 -n shop",
        "describe node",
        "logs web-0 -c app --tail 50 --since=5m -p --timestamps",
        "logs -l app=patch-server --all-containers --prefix",
        "top pods --containers --sort-by cpu",
        "events --for pod/web-0 --types=Warning",
        "version",
        "version --client -o json",
        "api-resources --namespaced=false --verbs list,get -o name",
        "api-versions",
        "explain secrets.data --recursive",
        "rollout history deployment/web --revision 3",
        "rollout status deployment/web --watch=false --timeout 5s",
        "auth can-i get secrets -n shop",
        "auth can-i --list",
        "auth whoami -o json",
        "cluster-info",
    ],
)
def test_reading_is_allowed(line: str) -> None:
    assert check(line.split()) is None


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("delete pod web-0", "verb"),
        ("exec web-0 -- sh", "verb"),
        ("config view --raw", "verb"),
        ("kubectl get pods", "verb"),
        ("-n shop get pods", "verb"),
        ("--token=x get pods", "verb"),
        ("GET pods", "verb"),
        ("rollout restart deployment/web", "sub-verb"),
        ("rollout undo deployment/web", "sub-verb"),
        ("rollout", "sub-verb"),
        ("rollout -n status restart deployment/web", "sub-verb"),
        ("auth reconcile -f rbac.yaml", "sub-verb"),
        ("cluster-info dump", "sub-verb"),
        ("cluster-info -n dump dump", "sub-verb"),
        ("logs -f web-0", "streaming"),
        ("logs --follow web-0", "streaming"),
        ("logs --follow=true web-0", "streaming"),
        ("get pods -w", "streaming"),
        ("get pods -Aw", "streaming"),
        ("get pods --watch", "streaming"),
        ("get pods --watch-only", "streaming"),
        ("events --watch=1", "flag"),
        ("events -w", "streaming"),
        ("rollout status deployment/web --watch", "streaming"),
        ("get -f /etc/passwd", "flag"),  # -f follows in `logs`; elsewhere it names a file
        ("describe -f /etc/passwd", "flag"),
        ("rollout status -f /etc/passwd", "flag"),
        ("events --follow", "flag"),
        ("logs -w web-0", "flag"),
        ("get --filename=/etc/passwd", "flag"),
        ("get -k /etc", "flag"),
        ("get -R pods", "flag"),
        ("get --raw /api/v1/secrets", "flag"),
        ("get --raw=/api/v1/secrets", "flag"),
        ("get pods --kubeconfig /tmp/x", "flag"),
        ("get pods --kubeconfig=/tmp/x", "flag"),
        ("get pods -s https://evil", "flag"),
        ("get pods -shttps://evil", "flag"),
        ("get pods -As=https://evil", "flag"),
        ("get pods --server=https://evil", "flag"),
        ("get pods --token x", "flag"),
        ("get pods --as system:admin", "flag"),
        ("get pods --as-group=system:masters", "flag"),
        ("get pods --as-uid=0", "flag"),
        ("get pods --as-user-extra=a=b", "flag"),
        ("get pods --certificate-authority=/x", "flag"),
        ("get pods --client-key=/x", "flag"),
        ("get pods --client-certificate=/x", "flag"),
        ("get pods --cache-dir=/etc", "flag"),
        ("get pods --profile=cpu", "flag"),
        ("get pods --profile-output=/etc/x", "flag"),
        ("get pods --log-file=/etc/x", "flag"),
        ("get pods -v9", "flag"),
        ("get pods -v=9", "flag"),
        ("get pods --v=9", "flag"),
        ("get pods --vmodule=a=1", "flag"),
        ("get pods --kuberc=/x", "flag"),
        ("get pods --cluster=x", "flag"),
        ("get pods --context=x", "flag"),
        ("get pods --user=x", "flag"),
        ("get pods --username=x", "flag"),
        ("get pods --password=x", "flag"),
        ("get pods --tls-server-name=x", "flag"),
        ("get pods --insecure-skip-tls-verify", "flag"),
        ("get pods --proxy-url=http://evil", "flag"),
        ("get pods --template=/etc/passwd", "flag"),
        ("get node x --subresource=proxy", "flag"),
        ("get pods --all_namespaces", "flag"),
        ("get pods --no-headers=maybe", "flag"),
        ("get pods -- --raw", "flag"),
        ("get pods -o go-template-file=/etc/passwd", "output-format"),
        ("get pods -ojsonpath-file=/etc/passwd", "output-format"),
        ("get pods --output=custom-columns-file=/etc/passwd", "output-format"),
        ("get pods -o templatefile=/etc/passwd", "output-format"),
        ("get secrets", "secrets"),
        ("get secret", "secrets"),
        ("get Secrets", "secrets"),
        ("get SECRET db", "secrets"),
        ("get secret/db", "secrets"),
        ("get pod/web secret/db", "secrets"),
        ("get pods,secrets", "secrets"),
        ("get -n shop secrets -o yaml", "secrets"),
        ("get -A -o json secrets", "secrets"),
        ("get --no-headers secrets", "secrets"),
        ("get secrets.v1.", "secrets"),
        ("get secrets.v1", "secrets"),
        ("get secret.v1./db", "secrets"),
        ("describe secret db", "secrets"),
        ("describe secrets/db", "secrets"),
    ],
)
def test_everything_else_is_denied(line: str, rule: str) -> None:
    """Refused, with the rule that refused it and what is allowed instead; it was not executed."""
    refusal = check(line.split())
    assert refusal is not None
    assert refusal.reason == Reason.POLICY_DENIED
    assert refusal.metadata["rule"] == rule
    assert refusal.metadata["allowed"]
    assert refusal.executed == NO


@pytest.mark.parametrize(
    "line",
    [
        "logs -f web-0",
        "logs -pf web-0",
        "logs --follow --tail 5 web-0",
        "get pods -w",
        "get pods -Aw",
        "get pods --watch-only=true",
        "events -w -n shop",
        "rollout status deployment/web -w",
        "get pods",
    ],
)
def test_streaming_calls_may_follow_and_watch(line: str) -> None:
    assert check(line.split(), live=True) is None


@pytest.mark.parametrize(
    "line", ["get -f /etc/passwd", "logs --follow=1 web-0", "logs -f=true", "get secrets -w", "exec x"]
)
def test_a_streaming_call_may_nothing_else(line: str) -> None:
    refusal = check(line.split(), live=True)
    assert refusal is not None
    assert refusal.metadata["rule"] != "streaming"


def test_a_refusal_says_that_a_streaming_call_may() -> None:
    refusal = check(["logs", "-f", "web-0"])
    assert refusal is not None
    assert "streaming calls only" in refusal.message


def test_a_refusal_does_not_repeat_values() -> None:
    """What may be a credential is not in the message."""
    refusal = check(["get", "pods", "--token=abc123"])
    assert refusal is not None
    assert "abc123" not in str(refusal)


@pytest.mark.parametrize(
    ("argv", "field"),
    [
        ([], "argv"),
        ([""], "argv"),
        (["get", "a\0b"], "argv[1]"),
        (["get", *["x"] * limits.MAX_ARGUMENTS], "argv"),
        (["get", "x" * (limits.MAX_ARGUMENT_BYTES + 1)], "argv[1]"),
        (["get", *["ü" * (limits.MAX_ARGUMENT_BYTES // 2)] * 5], "argv"),
        (["get", "pods", "-n"], "argv"),
        (["get", "pods", "--namespace"], "argv"),
    ],
)
def test_a_malformed_argv_is_invalid(argv: list[str], field: str) -> None:
    """Out of bounds, or not something kubectl could read: INVALID_COMMAND with the field."""
    refusal = check(argv)
    assert refusal is not None
    assert refusal.reason == Reason.INVALID_COMMAND
    assert [violation.field for violation in refusal.violations] == [field]
