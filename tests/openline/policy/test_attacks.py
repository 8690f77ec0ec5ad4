"""That what is denied does harm: each command here is run with the real kubectl, and its harm is seen.

What there is to harm: a file that can be read and one that can be written, a socket that waits for a caller, a Secret,
a program that looks like a plugin, and time. Whatever does harm is denied, by the rule of its class.
"""

import base64
import contextlib
import socket
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from demo.kubectl import kubectl_path
from openline.policy import Denied, Policy, Rule, judge

Kubectl = Callable[..., CompletedProcess[str]]

CANARY = "canary-of-a-file-7f3a"
# The demo's Secret shop/orders-db.
PASSWORD = base64.b64encode(b"not-a-real-password").decode()
# Long enough for any command that ends to have ended.
ENDLESS_S = 2.5
PATIENCE_S = 20.0


def rule_of(argv: Sequence[str]) -> Rule | None:
    verdict = judge(argv, Policy(), streamed=False, remaining_s=10.0)
    return verdict.rule if isinstance(verdict, Denied) else None


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that nobody may read, fit for every format that takes one."""
    file = tmp_path_factory.mktemp("files") / "token"
    # Two lines, as custom-columns-file wants them.
    file.write_text(f"{CANARY}\n.metadata.name\n")
    return file


@pytest.fixture
def first_call(cluster: Path, tmp_path: Path) -> Callable[[str], bytes]:
    """Runs kubectl with an address of ours in the place of `{}`, until somebody calls there: what the caller says."""
    environment = {"HOME": str(tmp_path), "KUBECONFIG": str(cluster / "kubeconfig")}

    def run(line: str) -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(PATIENCE_S)
            argv = line.format(f"127.0.0.1:{server.getsockname()[1]}").split()
            with subprocess.Popen(
                [str(kubectl_path()), *argv], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as process:
                try:
                    caller, _ = server.accept()
                    with caller:
                        return caller.recv(4096)
                finally:
                    process.kill()

    return run


READS_A_FILE = [
    "get pods -o go-template-file={}",
    "get pods -o templatefile={}",
    "get pods -ojsonpath-file={}",
    "get pods -o custom-columns-file={}",
    "get pods -o go-template-file --template {}",
    "events -o templatefile={}",
    "rollout history deploy/web -o jsonpath-file={}",
    "auth whoami -o go-template-file={}",
    "get --output=custom-columns-file={} -A pods",
]


def test_formats_that_read_files_show_them(kubectl: Kubectl, at_once: ThreadPoolExecutor, canary: Path) -> None:
    lines = [line.format(canary).split() for line in READS_A_FILE]
    for argv, run in zip(lines, at_once.map(lambda argv: kubectl(*argv), lines), strict=True):
        assert CANARY.lower() in run.stdout.lower(), (argv, run)
        assert rule_of(argv) in (Rule.OUTPUT, Rule.FLAG)


CALLS_AN_ENDPOINT = [
    "get pods -s http://{}",
    "get pods -shttp://{}",
    "get pods -Ashttp://{}",
    "get -As=http://{} pods",
    "get pods --server http://{}",
    "--server=http://{} get pods",
    "get -f http://{}/x.yaml",
    "describe --filename=http://{}/x.yaml",
    "get pods --proxy-url=http://{}",
    "get pods --proxy_url http://{}",
]


def test_flags_that_name_an_endpoint_call_it(first_call: Callable[[str], bytes], at_once: ThreadPoolExecutor) -> None:
    for line, said in zip(CALLS_AN_ENDPOINT, at_once.map(first_call, CALLS_AN_ENDPOINT), strict=True):
        assert said.startswith((b"GET /", b"CONNECT ")), line
        assert rule_of(line.split()) is Rule.FLAG


@pytest.mark.parametrize(
    "line",
    [
        "get pods --profile=heap --profile-output={}",
        "get pods --profile heap --profile_output {}",
        "get pods --cache-dir={}",
        "version --cache_dir={} --profile=heap --profile-output={}.pprof",
    ],
)
def test_flags_that_write_files_write_them(kubectl: Kubectl, tmp_path: Path, line: str) -> None:
    target = tmp_path / "written"
    argv = line.replace("{}", str(target)).split()
    kubectl(*argv)
    assert list(tmp_path.iterdir()), argv
    assert rule_of(argv) is Rule.FLAG


READS_A_SECRET = [
    "get secrets -n shop -o yaml",
    "get secret orders-db -n shop -o json",
    "get Secret/orders-db -n shop -oyaml",
    "get SECRETS -n shop -o yaml",
    "get secrets.v1. -n shop -o yaml",
    "get pods,secrets -n shop -o yaml",
    "get -n shop secret/orders-db -o jsonpath={.data.password}",
    "get secrets -A -o custom-columns=P:.data.password",
    "get secrets -n shop -o go-template={{range.items}}{{.data.password}}{{end}}",
    "get all,secret -n shop -o yaml",
    "get svc/catalog secret/orders-db -n shop -o yaml",
    "-n shop get -o yaml -- secrets orders-db",
    "get --raw /api/v1/namespaces/shop/secrets",
    "get --raw=/api/v1/secrets",
]


def test_secrets_are_shown_by_every_name(kubectl: Kubectl, at_once: ThreadPoolExecutor) -> None:
    """To an executor that RBAC would let: the policy is not the last line, but it is one."""
    lines = [line.split() for line in READS_A_SECRET]
    for argv, run in zip(lines, at_once.map(lambda argv: kubectl(*argv, admin=True), lines), strict=True):
        assert PASSWORD in run.stdout, (argv, run.stderr)
        assert rule_of(argv) in (Rule.RESOURCE, Rule.FLAG)


def test_rbac_is_the_last_line(kubectl: Kubectl) -> None:
    """The executor's own role has no secrets, whatever the policy would let through."""
    run = kubectl("get", "secrets", "-n", "shop")
    assert run.returncode == 1
    assert "forbidden" in run.stderr.lower()


def test_a_plugin_runs_under_any_unknown_verb(kubectl: Kubectl, tmp_path: Path) -> None:
    plugin = tmp_path / "kubectl-canary"
    plugin.write_text(f"#!/bin/sh\necho {CANARY}\n")
    plugin.chmod(0o755)
    for argv in (["canary"], ["canary", "get", "pods"]):
        assert CANARY in kubectl(*argv, plugins=tmp_path).stdout
        assert rule_of(argv) is Rule.VERB


@pytest.mark.parametrize(
    "line", ["rollout -n history restart deployment/web", "rollout --namespace=status restart deployment/web"]
)
def test_a_verb_hides_behind_a_value(kubectl: Kubectl, line: str) -> None:
    """Whoever takes the first words without a dash for the verb has read `rollout history`."""
    argv = line.split()
    run = kubectl(*argv)
    assert "history" in run.stderr + run.stdout or "status" in run.stderr + run.stdout
    assert "flag" not in run.stderr  # it was understood, and only the API said no
    assert rule_of(argv) is Rule.SUB_VERB


def test_verbosity_shows_requests(kubectl: Kubectl, at_once: ThreadPoolExecutor) -> None:
    lines = [["get", "pods", "-v9"], ["get", "pods", "-Av=9"], ["-v", "9", "get", "pods"], ["get", "pods", "--v=9"]]
    for argv, run in zip(lines, at_once.map(lambda argv: kubectl(*argv), lines), strict=True):
        assert "/api/v1" in run.stderr
        assert "Accept" in run.stderr
        assert rule_of(argv) is Rule.FLAG


NEVER_ENDS = [
    "get pods -w",
    "get pods -Aw",
    "get pods --watch-only",
    "events -w",
    "logs -f deploy/web -c web",
    "logs deploy/web -c web --follow=t",
]


def test_what_watches_does_not_end(cluster: Path, tmp_path: Path) -> None:
    """None of these has ended when everything else has."""
    environment = {"HOME": str(tmp_path), "KUBECONFIG": str(cluster / "kubeconfig")}
    lines = [line.split() for line in NEVER_ENDS]
    with contextlib.ExitStack() as running:
        processes = [
            running.enter_context(
                subprocess.Popen([str(kubectl_path()), *argv], env=environment, stdout=subprocess.DEVNULL)
            )
            for argv in lines
        ]
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                processes[0].wait(timeout=ENDLESS_S)
            assert [argv for argv, process in zip(lines, processes, strict=True) if process.poll() is not None] == []
        finally:
            for process in processes:
                process.kill()
    assert {rule_of(argv) for argv in lines} == {Rule.STREAMING}


MULTIPLIES = [
    "go-template={{define `x`}}{{.}}{{.}}{{end}}{{define `y`}}{{template `x` .}}{{template `x` .}}{{end}}"
    "{{define `z`}}{{template `y` .}}{{template `y` .}}{{template `y` .}}{{end}}{{template `z` .}}{{template `z` .}}",
    "go-template={{with print . .}}{{with print . .}}{{with print . .}}{{.}}{{end}}{{end}}{{end}}",
    "go-template={{print . . . . . . . . . . . .}}",
    "custom-columns=" + ",".join(["A:{.}"] * 20),
    "jsonpath={..}{..}{..}",
    "jsonpath={@ range}{@ range}{@ range}{@ range}{@ range}{@}",
    "go-template={{range 99999}}xxxxxxxxxxxxxxxx{{end}}",
    "go-template={{range and .items 99999}}xxxxxxxxxxxxxxxx{{end}}",
    "go-template={{with index 99999}}{{range .}}xxxxxxxxxxxxxxxx{{end}}{{end}}",
    "go-template={{range .items}}{{$}}{{end}}",
    "go-template={{$all := .}}{{range .items}}{{with $all}}{{.}}{{end}}{{end}}",
    "go-template=" + "{{.}}" * 40,
    "jsonpath=" + "{.items}" * 40,
    "jsonpath={.items[*,*,*]['metadata','metadata','metadata','spec','spec','spec','spec','spec']}",
]


def test_templates_make_much_of_little(kubectl: Kubectl, at_once: ThreadPoolExecutor) -> None:
    """A line of text turns one list of pods into many times itself; a longer one, into more than there is memory."""
    one = len(kubectl("get", "pods", "-n", "shop", "-o", "jsonpath={}").stdout)
    assert one > 0
    lines = [["get", "pods", "-n", "shop", "-o", template] for template in MULTIPLIES]
    for argv, run in zip(lines, at_once.map(lambda argv: kubectl(*argv), lines), strict=True):
        assert len(run.stdout) > 5 * one, (argv, len(run.stdout), one)
        assert rule_of(argv) is Rule.TEMPLATE


REWRITES = {
    "jsonpath={.kind.*}": "76 105 115 116",
    "jsonpath={.kind['*']}": "76 105 115 116",
    'go-template={{printf "%x" (index .items 0).metadata.name}}': b"cart".hex(),
    'go-template={{(index .items 0).metadata.name | printf "%.2s"}}': "ca",
    'go-template={{(index .items 0).metadata.name | printf "\\u0025x"}}': b"cart".hex(),
    "go-template={{range .items}}{{index .metadata.name 0}}{{index .metadata.name 1}}{{break}}{{end}}": "9997",
}


def test_templates_write_values_so_that_nobody_knows_them(kubectl: Kubectl, at_once: ThreadPoolExecutor) -> None:
    """What masks credentials in output sees numbers, or half of one."""
    lines = [["get", "deploy", "cart", "web", "-n", "shop", "-o", template] for template in REWRITES]
    for argv, run in zip(lines, at_once.map(lambda argv: kubectl(*argv), lines), strict=True):
        assert run.stdout == REWRITES[argv[-1]], (argv, run)
        assert rule_of(argv) is Rule.TEMPLATE


def test_pflag_leaves_out_what_looks_like_go_test(kubectl: Kubectl) -> None:
    """So a flag that is in no help is taken without a word: a table of what is forbidden would never have it."""
    argv = ["get", "ns", "-o", "name", "-test.anything"]
    assert kubectl(*argv).returncode == 0
    assert rule_of(argv) is Rule.FLAG
