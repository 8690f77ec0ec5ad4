"""Dialing and dialing again."""

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
import trustme
from structlog.testing import capture_logs

from executor.connection import End
from executor.link import _is_refusal
from openline import limits
from openline.v1 import executor_service_pb2 as wire


@pytest.fixture(autouse=True)
def fresh_logs() -> None:
    """Lines can be captured, whatever other tests have set up."""
    structlog.reset_defaults()


@pytest.mark.parametrize(
    "status", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL]
)
async def test_any_status_is_retried(broker: Any, dial: Any, stub_kubectl: Any, status: grpc.StatusCode) -> None:
    """Refused, cancelled by the server or failed: logged once and dialed again, but not in a busy loop."""
    broker.refusal = status
    with capture_logs() as lines:
        async with dial(stub_kubectl("exit")) as link:
            began = time.monotonic()
            async with asyncio.timeout(20):
                while broker.refused < 4:
                    await asyncio.sleep(0.01)
            assert not link.connected
            if status is grpc.StatusCode.UNAUTHENTICATED:
                assert time.monotonic() - began > 3 * 0.05  # half of `refused_s` at least, each time
            broker.refusal = None
            await (await broker.connection()).welcome()
    failures = [line for line in lines if line["event"] == "connection.failed"]
    assert [(line["status"], line["log_level"]) for line in failures] == [(status.name, "warning")]
    assert "secret" not in str(lines)


async def test_a_broker_that_does_not_say_welcome(broker: Any, dial: Any, stub_kubectl: Any, pass_time: Any) -> None:
    """Silence, the wrong frame, a foreign version, or the end of the stream: given up and dialed again."""
    with capture_logs() as lines:
        async with dial(stub_kubectl("exit")):
            await (await broker.connection()).expect("hello")
            pass_time(limits.HELLO_TIMEOUT_S)
            wrong = await broker.connection()
            await wrong.send(wire.BrokerFrame(cancel=wire.Cancel(command_id="x")))
            foreign = await broker.connection()
            await foreign.send(wire.BrokerFrame(welcome=wire.Welcome(protocol_version=99)))
            (await broker.connection()).end()
            await (await broker.connection()).welcome()
    assert len([line for line in lines if line["event"] == "connection.failed"]) >= 3


async def test_brokers_are_dialed_in_turn(broker: Any, dial: Any, stub_kubectl: Any) -> None:
    """One that nobody listens on does not keep the executor from the other."""
    async with dial(stub_kubectl("exit"), brokers=f"127.0.0.1:1,{broker.address}"):
        for _ in range(2):
            connection = await broker.connection()
            await connection.welcome()
            connection.end()


async def test_streams_are_counted(broker: Any, dial: Any, stub_kubectl: Any, execute: Any, pass_time: Any) -> None:
    """So that a broker knows which is the latest. What becomes of one that was given up, such as that its Hello is
    refused late, concerns nobody."""
    async with dial(stub_kubectl("exit")) as link:
        given_up = await broker.connection()
        assert (await given_up.expect("hello")).hello.attempt == 1
        pass_time(limits.HELLO_TIMEOUT_S)
        live = await broker.connection()
        assert (await live.welcome()).attempt == 2
        given_up.end()
        await live.send(execute())
        await live.expect("accepted")
        assert link.connected
        live.end()
        assert (await (await broker.connection()).welcome()).attempt == 3


async def test_a_token_is_read_anew_for_each_connection(
    broker: Any, dial: Any, stub_kubectl: Any, tmp_path: Path
) -> None:
    """A rotated token is used; a file that is missing for a while is a failed attempt like any other."""
    file = tmp_path / "token"
    file.write_text("first")
    async with dial(stub_kubectl("exit"), "--token-file", str(file)):
        connection = await broker.connection()
        assert connection.metadata["authorization"] == "Bearer first"
        await connection.welcome()
        file.unlink()
        connection.end()
        await asyncio.sleep(0.2)
        file.write_text("second")
        assert (await broker.connection()).metadata["authorization"] == "Bearer second"


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED])
def test_a_token_that_was_good_is_worth_another_attempt(code: grpc.StatusCode) -> None:
    """It was revoked, and the next one may be in the file: no long wait before that is read. Nor is a second refusal
    one to hurry for."""
    assert _is_refusal(End("", code=code))
    assert _is_refusal(End("", code=code, lived_s=5.0)) is (code is not grpc.StatusCode.UNAUTHENTICATED)


def test_where_there_are_too_many_executors() -> None:
    """To come again at once, for ever, makes no room."""
    assert _is_refusal(End("", code=grpc.StatusCode.RESOURCE_EXHAUSTED))


async def test_mutual_tls(serving: Any, dial: Any, stub_kubectl: Any, tmp_path: Path) -> None:
    """With the three files the line is encrypted, and both ends have shown a certificate."""
    authority = trustme.CA()
    server_cert, own = authority.issue_cert("127.0.0.1"), authority.issue_cert("executor")
    files = {"--tls-ca": authority.cert_pem, "--tls-cert": own.cert_chain_pems[0], "--tls-key": own.private_key_pem}
    for flag, pem in files.items():
        pem.write_to_path(tmp_path / flag)
    flags = [part for flag in files for part in (flag, str(tmp_path / flag))]
    credentials = grpc.ssl_server_credentials(
        [(server_cert.private_key_pem.bytes(), server_cert.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    async with serving(credentials) as secured, dial(stub_kubectl("exit"), *flags, brokers=secured.address) as link:
        connection = await secured.connection()
        await connection.welcome()
        await connection.expect("heartbeat")
        assert link.connected


async def test_one_line_when_it_opens_and_one_when_it_closes(broker: Any, dial: Any, stub_kubectl: Any) -> None:
    with capture_logs() as lines:
        async with dial(stub_kubectl("exit")):
            connection = await broker.connection()
            await connection.welcome()
            await connection.expect("heartbeat")
            connection.end()
            await (await broker.connection()).expect("hello")
    told = [(line["event"], line["broker"]) for line in lines]
    assert told[:2] == [("connection.opened", broker.address), ("connection.closed", broker.address)]


async def test_closing_ends_an_attempt_and_a_wait(dial: Any, stub_kubectl: Any, broker: Any) -> None:
    """`close` is heeded while dialing, while waiting for Welcome and between two attempts (`dial` awaits the end)."""
    async with dial(stub_kubectl("exit")):
        pass
    async with dial(stub_kubectl("exit")):
        await (await broker.connection()).expect("hello")
    async with dial(stub_kubectl("exit"), brokers="127.0.0.1:1"):
        await asyncio.sleep(0.1)
