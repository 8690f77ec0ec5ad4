"""The three programs with TLS on every hop, as an installation has it."""

import os
import ssl
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import trustme


def issue(directory: Path, *names: str) -> None:
    """A certificate for each name, all by a new authority; each file is replaced at once."""
    authority = trustme.CA()
    pems = {"ca.pem": authority.cert_pem.bytes()}
    for name in names:
        made = authority.issue_cert(name, "127.0.0.1")
        pems |= {f"{name}.pem": made.cert_chain_pems[0].bytes(), f"{name}.key": made.private_key_pem.bytes()}
    for name, pem in pems.items():
        (directory / "new").write_bytes(pem)
        os.replace(directory / "new", directory / name)


def test_no_plaintext_and_no_token_and_certificates_replaced_while_they_run(run_program: Any, tmp_path: Path) -> None:
    """The executor is known by its certificate alone; what all have is replaced, and all go on."""
    names = ("broker", "edge", "gateway")
    issue(tmp_path, *names)
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\necho "$1 $2"\n')
    kubectl.chmod(0o755)

    def shown(name: str, *, ca: str = "ca", side: str = "--tls") -> tuple[str, ...]:
        flags = {"cert": f"{name}.pem", "key": f"{name}.key", ca: "ca.pem"}
        return tuple(part for flag, file in flags.items() for part in (f"{side}-{flag}", str(tmp_path / file)))

    def ask(url: str) -> httpx.Response:
        verify = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        body = {"argv": ["get", "pods"], "wait_for_cluster_s": 10}
        return httpx.post(
            f"{url}/v1/clusters/edge/commands", json=body, headers={"X-API-Key": "test-key"}, verify=verify, timeout=30
        )

    with ExitStack() as running:

        def start(name: str, *flags: str) -> Any:
            return running.enter_context(run_program(name, *flags))

        keys = ("--api-keys", "me:test-key:execute+session+read", "--executor-certificates", "edge")
        broker = start("openline-broker", "--listen", "127.0.0.1:0", *keys, *shown("broker", ca="client-ca"))
        address = broker.until("broker.started")["listen"]
        executor = start(
            "openline-executor", "--broker", address, "--cluster-id", "edge", "--kubectl", str(kubectl), *shown("edge")
        )
        assert broker.until("connection.opened")["by"] == "certificate"
        listening = shown("gateway", side="--listen")[:4]
        gateway = start(
            "openline-gateway", "--listen", "127.0.0.1:0", "--broker", address, *listening, *shown("gateway")
        )
        started = gateway.until("gateway.listening")
        assert started["tls"] is True
        url = f"https://{started['address']}"
        answer = ask(url)
        assert (answer.status_code, answer.json()["stdout"]) == (200, "get pods\n")
        issue(tmp_path, *names)
        taken = {("broker", "listen"): broker, ("executor", "broker"): executor, ("gateway", "listen"): gateway}
        for (_, use), program in taken.items():
            while program.until("certificates.taken")["use"] != use:
                pass
        assert ask(url).json()["stdout"] == "get pods\n"
        for program in (gateway, executor, broker):
            code, rest = program.stop()
            assert code == 0, rest


def test_plaintext_that_was_allowed_is_warned_of(run_program: Any) -> None:
    """By the programs that listen or dial off this machine; what is only for probes needs no leave."""
    flags = ("--listen", "0.0.0.0:0", "--insecure", "--metrics-listen", "0.0.0.0:0")
    with run_program("openline-broker", *flags) as broker:
        warned = broker.until("plaintext.allowed")
        assert (warned["flag"], warned["address"], warned["level"]) == ("--listen", "0.0.0.0:0", "warning")
        broker.until("broker.started")
        assert broker.stop()[0] == 0
    with run_program("openline-gateway", "--listen", "0.0.0.0:0", "--broker", "192.0.2.1:1", "--insecure") as gateway:
        assert [gateway.until("plaintext.allowed")["flag"] for _ in range(2)] == ["--listen", "--broker"]
        gateway.until("gateway.listening")
