"""The client in front of a real broker and executor, where only kubectl is a script; and in front of fake channels."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc_testing
import pytest

from openline import errors
from openline.channels import Dialer
from openline.client import Client
from openline.reasons import Reason
from openline.v1 import cluster_service_pb2, command_pb2, command_service_pb2, session_service_pb2

PROGRAMS = Path(sys.executable).parent
PATIENCE_S = 60.0

# Answers by its second word; otherwise it says what it was asked, but for the bounds that every command is given.
KUBECTL = r"""#!/bin/sh
case "$2" in
  fail) echo 'Error from server (NotFound): pods "fail" not found' >&2; exit 1 ;;
  both) echo out; echo warning >&2 ;;
  slow) echo 'so far'; sleep 30 ;;
  flood) head -c 6000 /dev/zero | tr '\0' x; sleep 30 ;;
  much) head -c 100000 /dev/zero | tr '\0' y ;;
  drip) echo one; sleep 0.2; echo oh >&2; sleep 0.2; printf 'tw\303'; sleep 0.2; printf '\266' ;;
  unique) echo "$$ $(date +%s%N)" ;;
  *) for word; do
       case "$word" in --request-timeout=* | --limit-bytes=* | --tail=*) ;; *) echo "$word" ;; esac
     done ;;
esac
"""


@contextmanager
def running(name: str, *flags: str, until: str) -> "Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]":
    """One of the console scripts as a process; the fields of the log line that says it is there."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENLINE_")}
    command = [PROGRAMS / name, *flags, "--log-format", "json"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
    found: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def read() -> None:
        # To the end: a program whose lines nobody takes stands still when the pipe is full.
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                if line.startswith("{") and (fields := json.loads(line))["event"] == until:
                    found.put(fields)
        found.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        fields = found.get(timeout=PATIENCE_S)
        assert fields is not None, f"ended without {until}"
        yield process, fields
    finally:
        process.kill()
        process.wait(timeout=PATIENCE_S)
        reader.join(timeout=PATIENCE_S)


@pytest.fixture(scope="session")
def start_program() -> Any:
    """`with start_program(name, *flags, until=event) as (process, fields)`: killed at the end if it still runs."""
    return running


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a broker with an executor for `local`; `west` has none."""
    kubectl = tmp_path_factory.mktemp("kubectl") / "kubectl"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    keys = "me:test-key:execute+session+read+admin+audit,runner:runner-key:execute"
    flags = (
        "--listen",
        "127.0.0.1:0",
        "--api-keys",
        keys,
        "--executor-tokens",
        "local:the-token-of-local,west:the-token-of-west",
    )
    with running("openline-broker", *flags, until="broker.started") as (_, started):
        address = str(started["listen"])
        flags = (
            "--broker",
            address,
            "--cluster-id",
            "local",
            "--token",
            "the-token-of-local",
            "--kubectl",
            str(kubectl),
        )
        with running("openline-executor", *flags, until="connection.opened"):
            yield address


SERVICES = {
    service.name: service
    for module in (command_service_pb2, session_service_pb2, cluster_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
}
METHODS = {method.name: method for service in SERVICES.values() for method in service.methods}


class Unreachable(grpc.RpcError, grpc.Call):
    """What a knock is answered when nobody is there."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def _nothing(self, *_: Any) -> Any:
        raise NotImplementedError

    initial_metadata = trailing_metadata = details = _nothing
    is_active = time_remaining = cancel = add_callback = _nothing


class FakeChannel(grpc.Channel):
    """grpcio-testing's channel, which knows no timeouts; it says itself whether somebody is there."""

    def __init__(self) -> None:
        self.fake = grpc_testing.channel(SERVICES.values(), grpc_testing.strict_real_time())
        self.is_reachable = True
        self.timeouts: dict[str, list[float]] = {}
        self.knocks = 0
        self.is_closed = False

    def subscribe(self, callback: Any, try_to_connect: bool | None = False) -> None:
        raise NotImplementedError

    def unsubscribe(self, callback: Any) -> None:
        raise NotImplementedError

    def unary_unary(self, method: str, *_: Any, **__: Any) -> Any:
        if method == "/grpc.health.v1.Health/Check":
            return self._knocked
        return self._recorded(method, self.fake.unary_unary(method))

    def unary_stream(self, method: str, *_: Any, **__: Any) -> Any:
        return self._recorded(method, self.fake.unary_stream(method))

    def stream_unary(self, method: str, *_: Any, **__: Any) -> Any:
        return self.fake.stream_unary(method)

    def stream_stream(self, method: str, *_: Any, **__: Any) -> Any:
        return self.fake.stream_stream(method)

    def close(self) -> None:
        self.is_closed = True

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _knocked(self, request: bytes, *, timeout: float) -> bytes:
        assert (request, timeout > 0) == (b"", True)
        self.knocks += 1
        if not self.is_reachable:
            raise Unreachable
        return b""

    def _recorded(self, method: str, call: Any) -> Any:
        def invoke(request: Any, *, timeout: float, metadata: Any) -> Any:
            self.timeouts.setdefault(method.rpartition("/")[2], []).append(timeout)
            return call(request, timeout=timeout, metadata=metadata)

        return invoke


class Asked:
    """A call as it arrived at a fake replica, to be answered."""

    def __init__(self, channel: FakeChannel, method: str) -> None:
        descriptor = METHODS[method]
        take = channel.fake.take_unary_stream if descriptor.server_streaming else channel.fake.take_unary_unary
        if descriptor.server_streaming:
            self.metadata, self.request, self.rpc = take(descriptor)
        else:
            self.metadata, self.request, self.rpc = take(descriptor)
        self._is_stream = descriptor.server_streaming

    def answer(self, response: Any) -> None:
        self.rpc.terminate(response, (), grpc.StatusCode.OK, "")

    def event(self, **event: Any) -> None:
        kind = command_service_pb2.ExecuteStreamResponse
        self.rpc.send_response(kind(event=command_pb2.CommandEvent(**event)))

    def end(self) -> None:
        self.rpc.terminate((), grpc.StatusCode.OK, "")

    def refuse(self, reason: Reason, *, result: command_pb2.CommandResult | None = None, **fields: Any) -> None:
        """With the rich status that a broker sends."""
        failure = errors.error(reason, "no", **fields)
        status = errors.to_status(failure, result=result)
        self._end((errors.STATUS_TRAILER, status.SerializeToString()), errors.status_code(reason))

    def break_off(self) -> None:
        """As when the connection is lost."""
        self._end(None, grpc.StatusCode.UNAVAILABLE)

    def _end(self, trailer: tuple[str, bytes] | None, code: grpc.StatusCode) -> None:
        trailers = () if trailer is None else (trailer,)
        if self._is_stream:
            self.rpc.terminate(trailers, code, "no")
        else:
            self.rpc.terminate(None, trailers, code, "no")


class Stage:
    """A Client whose replicas are fake channels, called in threads so that the test can answer."""

    def __init__(self, client: Client, channels: list[FakeChannel], threads: ThreadPoolExecutor) -> None:
        self.client = client
        self.channels = channels
        self._threads = threads

    def call(self, function: Callable[..., Any], *words: Any, **options: Any) -> "Future[Any]":
        return self._threads.submit(function, *words, **options)

    def take(self, method: str, replica: int = 0) -> Asked:
        """The next call of this method that arrives; the test's timeout is its bound."""
        return Asked(self.channels[replica], method)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stage]]:
    """`stage(replicas=2, timeout_s=5)`."""
    clients: list[Client] = []
    # Not waited for: a thread that hangs is a failure of its own test, which the timeout ends.
    threads = ThreadPoolExecutor()

    def make(replicas: int = 1, **options: Any) -> Stage:
        channels = [FakeChannel() for _ in range(replicas)]
        waiting = iter(channels)
        monkeypatch.setattr(Dialer, "open_blocking", lambda _dialer, _address: next(waiting))
        client = Client([f"10.0.0.{n}:50051" for n in range(1, replicas + 1)], "the-key", **options)
        clients.append(client)
        return Stage(client, channels, threads)

    yield make
    for client in clients:
        client.close()
    threads.shutdown(wait=False, cancel_futures=True)
