"""Both clients against a real broker and executor: what one can do, the other can."""

import asyncio
import inspect
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme

from openline.client import (
    AsyncClient,
    BrokerUnavailable,
    Client,
    ClusterOffline,
    CommandFailed,
    CommandState,
    CommandTimeout,
    CommandUnknown,
    IdempotencyConflict,
    InvalidCommand,
    OpenlineError,
    Output,
    PolicyDenied,
    Result,
    ScopeMissing,
    SessionUnknown,
    Source,
    State,
    Unauthenticated,
)
from openline.client import Cancelled as CommandCancelled
from openline.ids import new_id
from tests.programs import free_port

pytestmark = pytest.mark.timeout(60)


def closed_port() -> str:
    """An address where nobody listens."""
    return f"127.0.0.1:{free_port()}"


class Both:
    """One of the two clients, with the same calls: the synchronous one's in threads."""

    def __init__(self, client: AsyncClient | Client) -> None:
        self.client: Any = client
        self.is_async = isinstance(client, AsyncClient)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self.client, name)

        async def call(*words: Any, **options: Any) -> Any:
            if self.is_async:
                return await method(*words, **options)
            return await asyncio.to_thread(method, *words, **options)

        return call

    async def events(self, name: str, *words: Any, most: int | None = None, **options: Any) -> list[Any]:
        """All events, or only the first ones; then the stream is left."""
        method = getattr(self.client, name)
        seen: list[Any] = []
        if self.is_async:
            async with aclosing(method(*words, **options)) as events:
                async for event in events:
                    seen.append(event)
                    if len(seen) == most:
                        break
            return seen

        def read() -> list[Any]:
            with closing(method(*words, **options)) as events:
                for event in events:
                    seen.append(event)
                    if len(seen) == most:
                        break
            return seen

        return await asyncio.to_thread(read)


@pytest_asyncio.fixture(params=["async", "sync"])
async def both(request: pytest.FixtureRequest, broker: str) -> AsyncIterator[Both]:
    # The first address is one where nobody is: it must cost nothing but a look.
    brokers = [closed_port(), broker]
    if request.param == "async":
        async with AsyncClient(brokers, "test-key", timeout_s=20) as client:
            yield Both(client)
    else:
        with Client(brokers, "test-key", timeout_s=20) as blocking:
            yield Both(blocking)


@pytest.fixture
def sync_client(broker: str) -> Iterator[Client]:
    with Client(broker, "test-key", timeout_s=20) as client:
        yield client


async def failure_of(call: Awaitable[Any]) -> OpenlineError:
    with pytest.raises(OpenlineError) as caught:
        await call
    return caught.value


async def failure_in_time(call: Callable[[float], Awaitable[Any]], *, least: int = 1) -> OpenlineError:
    """How a call fails whose time is up when so much has been written; a busy machine is given more time for that."""
    for timeout_s in (0.7, 3.0, 9.0):
        failure = await failure_of(call(timeout_s))
        if isinstance(failure, CommandTimeout) and len(failure.stdout) >= least:
            break
    return failure


def test_both_clients_have_the_same_methods() -> None:
    """With the same parameters: whoever knows one knows the other."""

    def face(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert {name: names for name, names in face(Client).items() if name != "close"} == face(AsyncClient)


async def test_a_command_runs(both: Both) -> None:
    """From its words, or as it would be typed."""
    result = await both.execute("local", "get", "pods", "-n", "shop")
    assert (result.text, result.exit_code, result.outcome) == ("get\npods\n--namespace=shop\n", 0, "exited")
    assert (result.cluster_id, result.truncated, result.degraded) == ("local", False, False)
    assert result.executor_id
    assert 0 < result.timings.run_s <= result.timings.total_s
    assert result.observed_at is not None
    typed = await both.execute("local", command="kubectl get pods -l 'a in (b)'")
    assert typed.text == "get\npods\n--selector=a in (b)\n"


async def test_a_command_that_fails_is_a_result(both: Both) -> None:
    """Until it is checked."""
    result = await both.execute("local", "get", "fail")
    assert (result.exit_code, result.stdout) == (1, b"")
    with pytest.raises(CommandFailed, match="NotFound"):
        result.check()


async def test_output_that_is_cut_is_counted(both: Both) -> None:
    """To the byte."""
    result = await both.execute("local", "get", "much", max_output_bytes=1000)
    kept, summary = len(result.stdout), result.stdout_summary
    assert (kept + summary.cut_bytes, summary.total_bytes, result.truncated) == (100_000, 100_000, True)


async def test_time_out_has_the_output_so_far(both: Both) -> None:
    """And an id under which it is found."""
    failure = await failure_in_time(lambda timeout_s: both.execute("local", "get", "slow", timeout_s=timeout_s))
    assert isinstance(failure, CommandTimeout)
    assert (failure.text, failure.executed) == ("so far\n", "yes")
    found = await both.get(failure.command_id)
    assert (found.state, found.result.outcome, found.result.text) == (CommandState.DONE, "timed_out", "so far\n")


async def test_time_out_has_more_output_than_a_status_can_carry(both: Both) -> None:
    """It is fetched where it did not come along."""
    failure = await failure_in_time(
        lambda timeout_s: both.execute("local", "get", "flood", timeout_s=timeout_s), least=6000
    )
    assert isinstance(failure, CommandTimeout)
    assert len(failure.stdout) == 6000


@pytest.mark.parametrize(
    ("words", "options", "kind"),
    [
        (("west", "get"), {}, ClusterOffline),
        (("local", "delete", "pods"), {}, PolicyDenied),
        (("local", "get"), {"session": new_id()}, SessionUnknown),
    ],
)
async def test_refusals_are_typed(both: Both, words: Any, options: Any, kind: type[OpenlineError]) -> None:
    """And say that nothing ran."""
    failure = await failure_of(both.execute(*words, **options))
    assert (type(failure), failure.executed) == (kind, "no")
    assert failure.retry_after_s > 0 or kind is not ClusterOffline


async def test_waiting_for_a_cluster_is_on_top(both: Both) -> None:
    """It is told when the wait is over."""
    failure = await failure_of(both.execute("west", "get", "pods", wait_for_cluster_s=0.3))
    assert type(failure) is ClusterOffline


async def test_the_same_key_runs_once(both: Both) -> None:
    """The second answer says that it is the first one's."""
    key = new_id()
    first = await both.execute("local", "get", "unique", idempotency_key=key)
    second = await both.execute("local", "get", "unique", idempotency_key=key)
    assert (first.text, first.command_id) == (second.text, second.command_id)
    assert (first.replayed, second.replayed) == (False, True)
    assert type(await failure_of(both.execute("local", "get", "x", idempotency_key=key))) is IdempotencyConflict


async def test_output_comes_as_it_is_written(both: Both) -> None:
    """States, whole lines with their source, and the result at last."""
    seen = await both.events("stream", "local", "get", "drip")
    pieces = [event for event in seen if isinstance(event, Output)]
    assert [(p.source, p.text) for p in pieces if p.text] == [
        (Source.STDOUT, "one\n"),
        (Source.STDERR, "oh\n"),
        (Source.STDOUT, "twö"),
    ]
    assert CommandState.RUNNING in [event.state for event in seen if isinstance(event, State)]
    assert isinstance(seen[-1], Result)
    assert seen[-1].text == "one\ntwö"
    assert len({event.command_id for event in seen}) == 1


async def test_a_stream_that_is_left_can_be_watched(both: Both) -> None:
    """From behind the last piece that one has; the command ran on."""
    command_id = new_id()
    await both.events("stream", "local", "get", "drip", most=1, command_id=command_id)
    rest = await both.events("watch", command_id, from_seq=1, timeout_s=20)
    assert next(event.seq for event in rest if isinstance(event, Output)) == 1
    assert isinstance(rest[-1], Result)


async def test_a_stream_that_runs_out_of_time_raises(both: Both) -> None:
    """With the output so far."""
    failure = await failure_in_time(
        lambda timeout_s: both.events("stream", "local", "get", "slow", timeout_s=timeout_s)
    )
    assert isinstance(failure, CommandTimeout)
    assert failure.text == "so far\n"


async def test_a_command_is_cancelled_and_waited_for(both: Both) -> None:
    """Whoever runs it is told; whoever looks finds what it was."""
    command_id = new_id()
    running = asyncio.create_task(both.execute("local", "get", "slow", command_id=command_id))
    async with asyncio.timeout(20):
        while True:
            try:
                if (await both.get(command_id)).state is CommandState.RUNNING:
                    break
            except CommandUnknown:
                continue
    assert await both.cancel(command_id) is CommandState.RUNNING
    failure = await failure_of(running)
    assert (type(failure), failure.executed) == (CommandCancelled, "yes")
    found = await both.get(command_id, wait_s=20)
    assert (found.done, found.result.outcome) == (True, "cancelled")
    assert await both.cancel(command_id) is CommandState.DONE
    assert type(await failure_of(both.get(new_id()))) is CommandUnknown


async def test_clusters_are_told(both: Both) -> None:
    """Which there are, and which can be reached."""
    clusters = {cluster.cluster_id: cluster for cluster in await both.clusters()}
    assert {name: cluster.connected for name, cluster in clusters.items()} == {"local": True, "west": False}
    [executor] = clusters["local"].executors
    assert executor.max_concurrency == 8


async def test_commands_are_listed(both: Both) -> None:
    """Newest first, without output, once they are written down; by pages that the caller does not see."""
    told = new_id()
    names = [(await both.execute("local", "get", "pods", correlation_id=told)).command_id for _ in range(3)][::-1]
    async with asyncio.timeout(20):
        while len(commands := await both.commands(correlation_id=told, cluster_id="local")) < 3:
            await asyncio.sleep(0.05)
    assert [command.command_id for command in commands] == names
    assert {command.result.exit_code if command.result else None for command in commands} == {0}
    assert {command.result.stdout if command.result else None for command in commands} == {b""}
    assert await both.commands(correlation_id=told, limit=2) == commands[:2]
    assert await both.commands(correlation_id=told, since=datetime(2099, 1, 1)) == []
    assert type(await failure_of(both.commands(limit=0))) is InvalidCommand


async def test_a_conversation_is_read_from_its_beginning_and_told_of_repetition(both: Both) -> None:
    """By pages as well; and the third answer of the same says that it is one."""
    told = new_id()
    results = [await both.execute("local", "get", "svc", correlation_id=told) for _ in range(3)]
    assert [bool(result.hint) for result in results] == [False, False, True]
    async with asyncio.timeout(20):
        while len(commands := await both.commands(correlation_id=told, oldest_first=True)) < 3:
            await asyncio.sleep(0.05)
    assert [command.command_id for command in commands] == [result.command_id for result in results]
    first = [each.command_id for each in await both.commands(correlation_id=told, oldest_first=True, limit=2)]
    assert first == [result.command_id for result in results[:2]]


async def test_a_conversation_is_ended(both: Both) -> None:
    """All that runs in it, by either of its names; nothing is forbidden by it."""
    told = new_id()
    asked = {"correlation_id": told, "max_age_s": 0}
    running = [asyncio.create_task(both.execute("local", "get", "slow", **asked)) for _ in range(2)]
    async with asyncio.timeout(20):
        while [c.state for c in await both.commands(correlation_id=told)] != [CommandState.RUNNING] * 2:
            await asyncio.sleep(0.05)
    ended = await both.cancel_commands(correlation_id=told, why="withdrawn")
    assert (ended.cancelled, ended.unreached, ended.incomplete) == (2, (), False)
    for each in running:
        failure = await failure_of(each)
        assert (type(failure), failure.error.message) == (CommandCancelled, "withdrawn")
    assert (await both.cancel_commands(session="no-such-session")).cancelled == 0
    assert (await both.execute("local", "get", "pods", correlation_id=told)).ok
    for wrong in ({}, {"session": "s", "correlation_id": "c"}):
        assert type(await failure_of(both.cancel_commands(**wrong))) is InvalidCommand


async def test_a_refusal_says_what_to_do_next(both: Both) -> None:
    """As text for whoever plans the next call."""
    failure = await failure_of(both.execute("loca", "get", "pods"))
    assert failure.next_step.startswith("Ask again with local;")
    denied = await failure_of(both.execute("local", "get", "pods", "--all-namespace"))
    assert (denied.next_step, denied.hint) == ("Ask again with --all-namespaces.", "")
    assert denied.metadata["nearest"] == "--all-namespaces"


async def test_many_clusters_answer_apart(both: Both) -> None:
    """One that is away is an answer, and the same answers are one group."""
    answers = await both.fan_out(["west", "local"], "get", "nodes")
    assert list(answers) == ["west", "local"]
    assert isinstance(answers["west"], ClusterOffline)
    assert answers.results["local"].text == "get\nnodes\n"
    assert [group.cluster_ids for group in answers.groups()] == [("west",), ("local",)]


async def test_a_key_that_may_only_run_commands_is_enough_to_run_commands(broker: str) -> None:
    """What it may not do is refused."""
    async with AsyncClient(broker, "runner-key") as client:
        assert (await client.execute("local", "get", "pods")).ok
        assert type(await failure_of(client.clusters())) is ScopeMissing
    with Client(broker, "runner-key") as blocking:
        with pytest.raises(CommandTimeout) as caught:
            blocking.execute("local", "get", "flood", timeout_s=0.5)
        assert caught.value.stdout == b"", "it may not look, so the time-out is told without the output"
    with Client(broker, "wrong-key") as wrong, pytest.raises(Unauthenticated):
        wrong.execute("local", "get", "pods")


async def test_async_sessions_end_with_their_block(broker: str) -> None:
    """Unless they are kept."""
    async with AsyncClient(broker, "test-key") as client:
        async with client.session("local", ttl_s=60) as session:
            assert (await session.execute("get", "pods")).session_id == session.session_id
            events = [event async for event in session.stream("get", "pods")]
            assert events[-1].session_id == session.session_id  # type: ignore[union-attr]
        assert type(await failure_of(client.execute("local", "get", "x", session=session))) is SessionUnknown
        async with client.session("local", keep=True) as kept:
            pass
        assert (await client.execute("local", "get", "x", session=kept.session_id)).ok


def test_sessions_end_with_their_block(sync_client: Client) -> None:
    """Unless they are kept."""
    with sync_client.session("local", ttl_s=60) as session:
        assert session.execute("get", "pods").session_id == session.session_id
        assert list(session.stream("get", "pods"))[-1].session_id == session.session_id  # type: ignore[union-attr]
    with pytest.raises(SessionUnknown):
        sync_client.execute("local", "get", "x", session=session)
    with sync_client.session("local", keep=True) as kept:
        pass
    assert sync_client.execute("local", "get", "x", session=kept.session_id).ok


async def test_answers_come_as_they_are_there(broker: str) -> None:
    """The cluster that is away does not wait for the one that runs."""
    async with AsyncClient(broker, "test-key") as client:
        come = [cluster_id async for cluster_id, _ in client.fan_out(["local", "west"], "get", "drip")]
    assert come == ["west", "local"]


async def test_nobody_there_is_told_in_time() -> None:
    """Surely not run, by both clients."""
    nowhere = closed_port()
    async with AsyncClient(nowhere, "test-key") as client:
        told = await failure_of(client.execute("local", "get", "pods", timeout_s=0.5))
    with Client(nowhere, "test-key") as blocking, pytest.raises(BrokerUnavailable) as caught:
        blocking.execute("local", "get", "pods", timeout_s=0.5)
    assert {(type(f), f.executed) for f in (told, caught.value)} == {(BrokerUnavailable, "no")}


async def test_a_client_that_is_not_open_says_so(broker: str) -> None:
    """Before and after its block."""
    client = AsyncClient(broker, "test-key")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="async with"):
            await client.execute("local", "get", "pods")
        with pytest.raises(RuntimeError, match="async with"):
            await client.clusters()
        async with client:
            assert (await client.execute("local", "get", "pods")).ok


async def test_tls_is_spoken_with_a_ca_and_mutually(start_program: Any, tmp_path: Path) -> None:
    """A client without a certificate that the broker wants, or with another CA, reaches nobody: surely not run."""
    ca = trustme.CA()
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key", "other")}
    mine = ca.issue_cert("127.0.0.1")
    ca.cert_pem.write_to_path(files["ca"])
    mine.cert_chain_pems[0].write_to_path(files["cert"])
    mine.private_key_pem.write_to_path(files["key"])
    trustme.CA().cert_pem.write_to_path(files["other"])
    pair = ("--tls-cert", str(files["cert"]), "--tls-key", str(files["key"]), "--tls-client-ca", str(files["ca"]))
    keys = ("--api-keys", "me:test-key:execute+read", "--executor-tokens", "west:the-token-of-west")
    flags = ("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"), *keys, *pair)
    good: dict[str, Any] = {name: files[name] for name in ("ca", "cert", "key")}
    with start_program("openline-broker", *flags, until="broker.started") as (_, started):
        address = started["listen"]
        async with AsyncClient(address, "test-key", **good) as client:
            assert len(await client.clusters()) == 1
            assert type(await failure_of(client.execute("west", "get"))) is ClusterOffline
        with Client(address, "test-key", **good) as blocking:
            assert len(blocking.clusters()) == 1
        for wrong in ({"ca": files["ca"]}, {**good, "ca": files["other"]}):
            with Client(address, "test-key", **wrong) as blocking, pytest.raises(BrokerUnavailable) as caught:
                blocking.execute("west", "get", timeout_s=0.5)
            assert caught.value.executed in {"no", "unknown"}


async def test_a_file_that_is_not_there_is_an_os_error(broker: str) -> None:
    """When the channels are made."""
    with pytest.raises(OSError, match=r"nowhere\.pem"):
        Client(broker, "test-key", ca="nowhere.pem")
    with pytest.raises(OSError, match=r"nowhere\.pem"):
        async with AsyncClient(broker, "test-key", ca="nowhere.pem"):
            pass


def test_nothing_is_left_of_a_client_that_was_closed_at_once(broker: str) -> None:
    """No thread that finds its channel closed, and says so on stderr."""
    before = threading.active_count()
    for brokers in ([broker], [closed_port(), broker]) * 20:
        with Client(brokers, "test-key") as client:
            client.clusters()
        assert threading.active_count() <= before + 1


def test_the_library_writes_nothing_unasked(broker: str) -> None:
    """Not to stdout, where a script's own output is, and not to stderr."""
    script = (
        "import asyncio\n"
        "from openline.client import AsyncClient\n"
        "async def main():\n"
        f"    async with AsyncClient(['{closed_port()}', '{broker}'], 'test-key') as client:\n"
        "        print((await client.execute('local', 'get', 'pods')).text, end='')\n"
        "asyncio.run(main())\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert (run.stdout, run.stderr, run.returncode) == ("get\npods\n", "", 0)


async def test_a_program_that_listens_hears(broker: str, caplog: pytest.LogCaptureFixture) -> None:
    """By `logging`, as any library's."""
    with caplog.at_level(logging.INFO, logger="openline.client"):
        async with AsyncClient(broker, "test-key") as client:
            await client.execute("local", "get", "pods")
    assert f"event=pipe.opened broker={broker}" in caplog.text
