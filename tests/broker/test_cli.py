"""`openline-broker token` and `openline-broker key` as an operator types them, against a broker that runs."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from broker import cli
from openline.loudness import LOUDNESS
from openline.reasons import Reason

PROGRAM = str(Path(sys.executable).with_name("openline-broker"))
ROOT = "the-key-of-root"
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        return [line.split() for line in self.out.splitlines()]


async def run(*words: str, **variables: str) -> Ended:
    """The program with these words, and no variable of this environment that could change it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENLINE_")}
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment | variables,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def ask(broker: Any, *words: str, key: str = ROOT) -> Ended:
    return await run(*words, OPENLINE_BROKER=broker.address, OPENLINE_ADMIN_KEY=key)


# Tokens


async def test_a_token_s_life(broker: Any) -> None:
    """Made, listed and revoked; the secret alone is on stdout, and an executor comes in with it."""
    made = await ask(broker, "token", "create", "--cluster-id", "east", "--ttl", "3600")
    assert made.code == 0, made.err
    [[secret]] = made.rows
    listed = await ask(broker, "token", "list", "--cluster-id", "east", "--json")
    [token] = listed.json
    assert set(token) == {"token_id", "cluster_id", "created_at", "expires_at"}
    life = datetime.fromisoformat(token["expires_at"]) - datetime.fromisoformat(token["created_at"])
    assert abs(life - timedelta(hours=1)) < timedelta(seconds=1)
    assert made.err.startswith(f"token {token['token_id']} of cluster east, expires 20")
    assert secret not in made.err + listed.out
    executor = broker.dial(token=secret)
    await executor.hello(cluster_id="east")
    revoked = await ask(broker, "token", "revoke", "--cluster-id", "east", "--token-id", token["token_id"])
    assert (revoked.code, revoked.out) == (0, "revoked 1 of cluster east\n")
    assert (await executor.status()).reason is Reason.UNAUTHENTICATED


async def test_tokens_are_a_table(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every cluster, whatever the pages are; one that was given at start has no date."""
    monkeypatch.setattr("broker.paging.MAX_PAGE", 2)
    listed = await ask(broker, "token", "list")
    head, *rows = listed.rows
    assert " ".join(head) == "TOKEN ID CLUSTER CREATED EXPIRES"
    assert [row[1:] for row in rows] == [[name, "at", "start", "never"] for name in ("prod", "prod", "staging")]
    assert len({row[0] for row in rows}) == 3


async def test_all_tokens_of_a_cluster_are_revoked(broker: Any) -> None:
    revoked = await ask(broker, "token", "revoke", "--cluster-id", "prod", "--all", "--json")
    assert (revoked.code, revoked.json) == (0, {"revoked": 2})
    assert (await broker.refused()).reason is Reason.CLUSTER_UNKNOWN


# Keys


async def test_a_key_s_life(broker: Any) -> None:
    """Made with all that a key can have, used, listed and revoked."""
    limits = ("--commands-per-minute", "60", "--in-flight", "4")
    made = await ask(
        broker, "key", "create", "--owner", "agent", "--scopes", "execute,read", "--clusters", "pro*,east", *limits
    )
    assert made.code == 0, made.err
    [[secret]] = made.rows
    executor = await broker.executor()
    asked = broker.execute(key=secret)
    await executor.run_one(b"x")
    assert (await asked).result.stdout == b"x"
    listed = await ask(broker, "key", "list", "--owner", "agent", "--json")
    [key] = listed.json
    assert (key["owner"], key["scopes"], key["clusters"]) == ("agent", ["execute", "read"], ["east", "pro*"])
    assert key["quota"] == {"commands_per_minute": 60, "in_flight": 4}
    assert made.err == f"key {key['key_id']} of agent, expires never\n"
    assert secret not in listed.out
    revoked = await ask(broker, "key", "revoke", "--key-id", key["key_id"])
    assert (revoked.code, revoked.out) == (0, f"revoked {key['key_id']}\n")
    assert (await broker.refused(key=secret)).reason is Reason.UNAUTHENTICATED


async def test_keys_are_a_table(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody has said is `usual`, and 0 is no limit."""
    monkeypatch.setattr("broker.paging.MAX_PAGE", 2)
    made = await ask(broker, "key", "create", "--owner", "agent", "--scopes", "read", "--in-flight", "0", "--json")
    assert (made.code, made.err) == (0, "")
    assert made.json["quota"] == {"commands_per_minute": 0, "in_flight": 0}
    assert len(made.json["key"]) >= 43
    listed = await ask(broker, "key", "list")
    assert listed.code == 0, listed.err
    assert listed.out.splitlines()[0].split()[:4] == ["KEY", "ID", "OWNER", "SCOPES"]
    rows = {row[1]: row[2:] for row in listed.rows[1:]}
    assert set(rows) == {"agent", "alice", "bob", "carol", "root", "auditor", "chief"}
    assert rows["agent"][:2] == ["read", "*"]
    assert rows["agent"][-5:] == ["never", "no", "limit", "no", "limit"]
    assert rows["alice"] == ["execute+session+read", "*", "at", "start", "never", "usual", "usual"]


# The log


async def test_the_log_level_is_changed_and_put_back(broker: Any) -> None:
    """A line for each replica that has done it."""
    try:
        changed = await ask(broker, "log-level", "debug", "--for", "60")
        assert (changed.code, changed.out, changed.err) == (0, "replica-1 logs debug for 60 s\n", "")
        assert LOUDNESS.level == "debug"
    finally:
        usual = await ask(broker, "log-level", "usual", "--json")
    assert usual.json == {"replica_ids": ["replica-1"], "unreached_replica_ids": []}
    assert LOUDNESS.level == LOUDNESS.usual


# What goes wrong


@pytest.mark.parametrize(
    ("words", "key", "said"),
    [
        (["token", "list"], "wrong", "UNAUTHENTICATED: Invalid API key"),
        (["key", "list"], "the-key-of-alice", "SCOPE_MISSING: the key lacks the scope 'admin'"),
        (
            ["log-level", "debug", "--replica-id", "nobody"],
            ROOT,
            "INVALID_COMMAND: the request is not valid: replica_id",
        ),
        (["key", "revoke", "--key-id", "x"], ROOT, "KEY_UNKNOWN: no API key has this id"),
        (["token", "create", "--cluster-id", "X"], ROOT, "INVALID_COMMAND: the request is not valid: cluster_id must"),
        (
            ["key", "create", "--owner", "x", "--scopes", "audit"],
            ROOT,
            "SCOPE_MISSING: the key lacks the scope 'audit'",
        ),
    ],
    ids=["a wrong key", "no admin", "no such replica", "no such key", "no cluster", "beyond the admin"],
)
async def test_what_is_refused_is_one_line(broker: Any, words: Sequence[str], key: str, said: str) -> None:
    """Exit code 1, with the broker's reason, and nothing on stdout that could be taken for a secret."""
    refused = await ask(broker, *words, key=key)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(f"openline-broker {words[0]} {words[1]}: {said}")
    assert refused.err.count("\n") == 1
    assert key not in refused.err


async def test_a_broker_that_is_not_there(broker: Any) -> None:
    """The port was somebody's until now."""
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    gone = await run("token", "list", "--broker", f"127.0.0.1:{port}", OPENLINE_ADMIN_KEY=ROOT)
    assert (gone.code, gone.out) == (1, "")
    assert gone.err.startswith("openline-broker token list: BROKER_UNAVAILABLE: ")
    assert gone.err.count("\n") == 1


async def test_the_key_may_be_in_a_file_and_the_broker_behind_tls(start_broker: Any, tmp_path: Path) -> None:
    """Mutual TLS, all of it by flags."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    for name in ("broker", "operator"):
        pair = authority.issue_cert("127.0.0.1", common_name=name)
        pair.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        for pem in pair.cert_chain_pems:
            pem.write_to_path(str(tmp_path / f"{name}.cert"), append=True)
    (tmp_path / "admin").write_text(f"{ROOT}\n")
    served = {name: tmp_path / file for name, file in (("tls_cert", "broker.cert"), ("tls_key", "broker.key"))}
    async with start_broker(**served, tls_client_ca=tmp_path / "ca") as broker:
        listed = await run(
            "token", "list", "--broker", broker.address, "--admin-key-file", str(tmp_path / "admin"),
            "--tls-ca", str(tmp_path / "ca"), "--tls-cert", str(tmp_path / "operator.cert"),
            "--tls-key", str(tmp_path / "operator.key"), "--json",
        )  # fmt: skip
        assert listed.code == 0, listed.err
        assert len(listed.json) == 3
        stranger = await run("token", "list", "--broker", broker.address, "--admin-key", ROOT)
        assert (stranger.code, stranger.out) == (1, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["token", "make"], "openline-broker token: make: expected one of create, list, revoke"),
        (["token", "create"], "--cluster-id: Field required"),
        (["token", "create", "--cluster-id", "x", "--ttl", "-1"], "--ttl: "),
        (["token", "create", "--cluster-id", "x", "--ttl", "nan"], "--ttl: "),
        (["token", "revoke", "--cluster-id", "x"], "--token-id: give one, or --all"),
        (["token", "revoke", "--cluster-id", "x", "--token-id", "y", "--all"], "--token-id: give one, or --all"),
        (["key", "create", "--owner", "x"], "--scopes: Field required"),
        (["key", "create", "--owner", "x", "--scopes", "read", "--in-flight", "-1"], "--in-flight: "),
        (["key", "revoke"], "--key-id: Field required"),
        (["key", "list", "--broker", "nowhere"], "--broker: expected HOST:PORT"),
        (["key", "list", "--broker", "broker.example:443"], "--broker: plaintext at broker.example:443 leaves"),
        (["key", "list", "--admin-key-file", "/nowhere"], "--admin-key-file: "),
        (["key", "list", "--admin-key", "two words"], "--admin-key: expected a key of 1 to 4096"),
        (["key", "list", "--nothing"], "unrecognized arguments"),
        (["log-level", "loud"], "openline-broker log-level: loud: expected one of debug, info, warning, error, usual"),
        (["log-level", "debug", "--for", "0"], "--for: "),
        (["log-level", "debug", "--for", "nan"], "--for: "),
    ],
)
def test_bad_usage_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, and the flag that is wrong; nothing is asked."""
    for name in [name for name in os.environ if name.startswith("OPENLINE_")]:
        monkeypatch.delenv(name)
    if "--admin-key" not in words and "--admin-key-file" not in words:
        monkeypatch.setenv("OPENLINE_ADMIN_KEY", ROOT)
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    told = capsys.readouterr()
    assert (end.value.code, told.out) == (2, "")
    assert said in told.err
    assert told.err.count("\n") == 1
    assert "two words" not in told.err


@pytest.mark.parametrize("given", [{}, {"OPENLINE_ADMIN_KEY": "x", "OPENLINE_ADMIN_KEY_FILE": __file__}])
def test_there_is_one_key(
    given: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None, and two, are not."""
    for name in [name for name in os.environ if name.startswith("OPENLINE_")]:
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        cli.main(["key", "list"])
    assert end.value.code == 2
    assert "--admin-key: give a key with --admin-key or --admin-key-file" in capsys.readouterr().err


@pytest.mark.parametrize("group", ["token", "key"])
@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_it_says_what_there_is(group: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([group, *words])
    told = capsys.readouterr().out
    assert all(f"  {name} " in told for name in ("create", "list", "revoke"))


def test_help_says_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["key", "create", "--help"])
    told = capsys.readouterr().out
    assert end.value.code == 0
    assert all(flag in told for flag in ("--owner", "--scopes", "--clusters", "--ttl", "OPENLINE_ADMIN_KEY", "--json"))


async def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell expects it."""

    def interrupted(asked: Any) -> None:
        asked.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(asyncio, "run", interrupted)
    # The logs are those of all tests.
    monkeypatch.setattr(cli, "set_up_logs", lambda *_settings: None)
    with pytest.raises(SystemExit) as end:
        cli.main(["key", "list", "--admin-key", ROOT])
    assert end.value.code == 130
