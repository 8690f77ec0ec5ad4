"""Two clusters with executors behind the real broker and the real gateway; one that a key sees, one that it does not.

Everything is asked before the tests, much of it at a time, since answers to wrong keys may be held back. Each test then
looks at one of the answers.
"""

import asyncio
import contextlib
import re
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import grpc
import pytest
import uvloop
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from broker.core.access import RULES, Rule
from broker.core.credentials import SCOPES, Credentials
from broker.server import DESCRIPTORS, serve
from broker.settings import BrokerSettings
from broker.store.embedded import embedded_valkey
from broker.store.store import open_store
from executor.link import Link
from executor.pace import Pace
from executor.settings import ExecutorSettings
from gateway.app import build_app
from gateway.serving import listen, make_server
from loadtest.answering import Answering
from openline import ids, limits
from openline.channels import CLIENT_OPTIONS
from openline.errors import from_rpc_error
from openline.pipes import Pipes
from openline.reasons import Reason
from openline.settings import Address
from openline.v1 import executor_service_pb2 as wire

PATIENCE_S = 20.0
# Redis is on this machine, and so is all else; those who are refused for their key wait, and cost nothing.
AT_A_TIME, WAITING = 6, 40
# The hidden one comes first where clusters are sorted; the last one there is not.
HIDDEN, SEEN, UNKNOWN = "amber", "prod", "rebma"
TOKENS = {HIDDEN: "the-token-of-amber", SEEN: "the-token-of-prod"}
# Of one owner, who has everything that is looked for: it is never ownership that a key is refused for.
GOOD, SOME = "the-key-that-sees-all-of-it", "the-key-that-sees-some-of-it"
# What no broker knows, what it knows, and what may do what is asked.
NOT_KNOWN = ("no key", "wrong key", "expired key", "revoked key", "executor's token")
KNOWN = ("wrong scope", "wrong cluster")
KINDS = (*NOT_KNOWN, *KNOWN, "good key")
TOKEN_KINDS = (
    "no token", "wrong token", "expired token", "revoked token", "another cluster's token", "API key", "good token",
)  # fmt: skip
METHODS: Mapping[str, MethodDescriptor] = {
    method.full_name: method for service in DESCRIPTORS for method in service.methods
}

N = TypeVar("N")
T = TypeVar("T")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A `kind` is each kind of key, and a `token_kind` each kind of an executor's token."""
    for name, kinds in (("kind", KINDS), ("token_kind", TOKEN_KINDS)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, kinds)


@dataclass(frozen=True, slots=True)
class Told:
    """An answer: why it was refused, if it was, and all of it as text."""

    reason: str
    text: str
    message: Any = field(default=None, compare=False, repr=False)

    def blot(self, names: Mapping[str, str]) -> "Told":
        """Without what the request named, so that answers to different names can be held against each other."""
        # How often the same was asked for is the asking key's own doing.
        text = _HINT.sub("", self.text)
        for name in names.values():
            text = text.replace(name, "?")
        return Told(self.reason, text)


_HINT = re.compile(
    r'"hint":"[^"]*",|metadata \{\s*key: "hint"\s*value: "[^"]*"\s*\}\s*'
    r"| This was asked for [^\"]*?(?:See `next_step`|before asking again|in the same way|or ask later)\."
)

# Asks with a key for what has these names.
Ask = Callable[[str | None, Mapping[str, str]], Awaitable[Told]]


@dataclass(frozen=True, slots=True)
class Row:
    """Something that can be asked, and the rule that it is held to."""

    rule: Rule
    ask: Ask
    # The request names nothing: what is told is all that there is to see, and may change.
    is_list: bool = False
    # It ends what the others are about.
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """What was told with one kind of key; where it is good but for the cluster, also of one that there is not."""

    told: Told
    of_unknown: Told | None = None


def scopes_but(rule: Rule) -> tuple[str, ...]:
    """Every scope but those that would do."""
    return tuple(sorted(SCOPES - {rule.scope, rule.or_scope}))


def key_without(rule: Rule) -> str:
    return f"a-key-with-{'-'.join(scopes_but(rule))}-only"


def unknown_names() -> dict[str, str]:
    """Of a cluster that there is not, with all that would be its own."""
    return {
        "cluster_id": UNKNOWN,
        "clusters": UNKNOWN,
        "session_id": ids.new_id(),
        "command_id": ids.new_id(),
        "key_id": "0123456789abcdef",
        "token_id": "fedcba9876543210",
    }


@dataclass(slots=True)
class Stage:
    """What runs, and who may ask what of it."""

    # A URL.
    gateway: str
    channel: grpc.aio.Channel
    # The services that the broker has been given, by their full names.
    served: set[str]
    # By kind, but for those that depend on what is asked.
    keys: dict[str, str | None] = field(default_factory=dict)
    tokens: dict[str, str | None] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=unknown_names)
    hidden: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, str] = field(default_factory=dict)

    async def fill(self, rows: Mapping[str, Row]) -> dict[str, dict[str, Cell]]:
        """The cells of each row, by kind of key. Good ones are last: they do what the others must not."""

        async def refused(row: Row, kind: str) -> Cell:
            key = self.key(kind, row.rule)
            told = await row.ask(key, self.hidden)
            if kind != "wrong cluster" or row.is_list:
                return Cell(told)
            return Cell(told.blot(self.hidden), (await row.ask(key, self.unknown)).blot(self.unknown))

        async def good(name: str) -> Cell:
            return Cell(await rows[name].ask(GOOD, made[name]))

        asked = {(name, kind): partial(refused, rows[name], kind) for name in rows for kind in NOT_KNOWN}
        cells = await together(asked, at_a_time=WAITING)
        cells |= await together({(name, kind): partial(refused, rows[name], kind) for name in rows for kind in KNOWN})
        made = await together({name: partial(self.make, HIDDEN) for name in rows})
        for is_last in (False, True):
            now = [name for name, row in rows.items() if row.is_last == is_last]
            cells |= await together({(name, "good key"): partial(good, name) for name in now})
        return {name: {kind: cells[name, kind] for kind in KINDS} for name in rows}

    async def fill_halves(self, asked: Mapping[tuple[str, str], Ask]) -> dict[tuple[str, str], Cell]:
        """What a key is told that sees all of what is named but for one name, by which of them that is."""

        async def half(ask: Ask, name: str) -> Cell:
            # Of its own: what was asked of others' is in the audit trail.
            told = [
                (await ask(SOME, {**self.seen, name: names[name]})).blot({name: names[name]})
                for names in (await self.make(HIDDEN), unknown_names())
            ]
            return Cell(*told)

        return await together({row: partial(half, ask, row[1]) for row, ask in asked.items()})

    def key(self, kind: str, rule: Rule) -> str | None:
        """The key of this kind, for something with this rule."""
        return key_without(rule) if kind == "wrong scope" else self.keys[kind]

    async def call(self, method: MethodDescriptor, *requests: Message, key: str | None) -> Told:
        """Any call, to the last message that is waited for: as many as requests where these are streamed, else one."""
        multi = self._multi(method)
        metadata = () if key is None else (("authorization", f"Bearer {key}"),)
        try:
            async with asyncio.timeout(PATIENCE_S):
                if not method.client_streaming:
                    call = multi(*requests, metadata=metadata)
                    answer = await (call.read() if method.server_streaming else call)
                else:
                    call, answer = multi(metadata=metadata), None
                    for request in requests:
                        await call.write(request)
                        answer = await call.read()
        except grpc.aio.AioRpcError as status:
            error = from_rpc_error(status).error
            return Told(error.reason, f"{status.code()} {status.details()} {error}")
        call.cancel()
        return Told("", "" if answer is grpc.aio.EOF else str(answer), answer)

    async def ask(self, name: str, *, key: str | None = GOOD, **fields: Any) -> Any:
        """A unary call that must be answered, such as `AdminService.CreateApiKey`; the answer."""
        method = METHODS[f"openline.v1.{name}"]
        request = message_factory.GetMessageClass(method.input_type)(**fields)
        metadata = (("authorization", f"Bearer {key}"),)
        return await self._multi(method)(request, metadata=metadata, timeout=PATIENCE_S)

    async def make(self, cluster_id: str) -> dict[str, str]:
        """All that there can be of a cluster, new: a session, a command that has run in it, a token, a key."""
        session = (await self.ask("SessionService.CreateSession", cluster_id=cluster_id)).session
        where = {"cluster_id": cluster_id, "session_id": session.session_id}
        ran = await self.ask("CommandService.Execute", argv=["get", "pods"], **where)
        token = await self.ask("AdminService.CreateExecutorToken", cluster_id=cluster_id)
        key = await self.ask("AdminService.CreateApiKey", owner="yves", scopes=["read"], clusters=[cluster_id])
        # The lists are written a moment later.
        async with asyncio.timeout(PATIENCE_S):
            while not (await self.ask("CommandService.ListCommands", **where)).commands:
                await asyncio.sleep(0.02)
            while not (await self.ask("AdminService.ListAuditEntries", **where)).entries:
                await asyncio.sleep(0.02)
        names = {"clusters": cluster_id, "token_id": token.executor_token.token_id, "key_id": key.api_key.key_id}
        return where | names | {"command_id": ran.result.command_id}

    async def make_keys(self) -> None:
        """One of each kind that does not depend on what is asked."""
        wanted = {"owner": "zoe", "scopes": sorted(SCOPES)}
        expired = await self.ask("AdminService.CreateApiKey", ttl_s=0.01, **wanted)
        revoked = await self.ask("AdminService.CreateApiKey", **wanted)
        await self.ask("ClusterService.ListClusters", key=revoked.key)
        await self.ask("AdminService.RevokeApiKey", key_id=revoked.api_key.key_id)
        old = await self.ask("AdminService.CreateExecutorToken", cluster_id=SEEN, ttl_s=0.01)
        gone = await self.ask("AdminService.CreateExecutorToken", cluster_id=SEEN)
        which = {"cluster_id": SEEN, "token_id": gone.executor_token.token_id}
        await self.ask("AdminService.RevokeExecutorToken", **which)
        self.keys = {
            "no key": None, "wrong key": "a-key-that-there-never-was", "expired key": expired.key,
            "revoked key": revoked.key, "executor's token": TOKENS[SEEN], "wrong cluster": SOME, "good key": GOOD,
        }  # fmt: skip
        self.tokens = {
            "no token": None, "wrong token": "a-token-that-there-never-was", "expired token": old.token,
            "revoked token": gone.token, "another cluster's token": TOKENS[HIDDEN], "API key": GOOD,
            "good token": TOKENS[SEEN],
        }  # fmt: skip
        over = max(expired.api_key.expires_at.ToMilliseconds(), old.executor_token.expires_at.ToMilliseconds())
        await asyncio.sleep(max(0.0, over / 1000 - time.time()) + 0.01)

    def _multi(self, method: MethodDescriptor) -> Callable[..., Any]:
        """What begins calls of the method."""
        kinds = {(False, False): "unary_unary", (False, True): "unary_stream", (True, True): "stream_stream"}
        make = getattr(self.channel, kinds[method.client_streaming, method.server_streaming])
        began: Callable[..., Any] = make(
            f"/{method.containing_service.full_name}/{method.name}",
            message_factory.GetMessageClass(method.input_type).SerializeToString,
            message_factory.GetMessageClass(method.output_type).FromString,
        )
        return began


@contextlib.contextmanager
def services_noted() -> Iterator[set[str]]:
    """The full names of what is added to servers meanwhile, by whomever."""
    served: set[str] = set()
    make = grpc.aio.server

    def server(*arguments: Any, **named: Any) -> grpc.aio.Server:
        made = make(*arguments, **named)
        add = made.add_generic_rpc_handlers

        def note(handlers: Iterable[grpc.ServiceRpcHandler]) -> None:
            served.update(handler.service_name() for handler in handlers)
            add(handlers)

        made.add_generic_rpc_handlers = note
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpc.aio, "server", server)
        yield served


@contextlib.asynccontextmanager
async def connected(broker: Address, cluster_id: str) -> AsyncIterator[None]:
    """An executor's real link, whose commands are answered at once."""
    settings = ExecutorSettings(
        broker=(broker,), cluster_id=cluster_id, token=TOKENS[cluster_id], kubectl=shutil.which("true")
    )
    hello = wire.Hello(
        protocol_version=limits.PROTOCOL_VERSION,
        cluster_id=cluster_id,
        executor_id="one",
        instance_id=ids.new_id(),
        max_concurrency=64,
    )
    link = Link(settings, hello, Answering(output_bytes=3, mixed=False), pace=Pace())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(link.run())
        try:
            await until(lambda: link.connected)
            yield
        finally:
            link.close()


@contextlib.asynccontextmanager
async def serving(broker: Address) -> AsyncIterator[str]:
    """The URL of a gateway."""
    with listen("127.0.0.1", 0) as listener:
        async with Pipes((broker,), client="test") as pipes:
            server = make_server(build_app(pipes))
            serve = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                await until(lambda: server.started and all(replica.is_connected for replica in pipes.replicas))
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True
                await serve


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    """Everything is started, and there is something to see in both clusters."""
    everything = "+".join(sorted(SCOPES))
    rights = {key_without(rule): "+".join(scopes_but(rule)) for rule in RULES.values() if not rule.is_open}
    given = {GOOD: everything, SOME: f"{everything}@{SEEN[:3]}*"} | rights
    credentials = Credentials(
        api_keys=[f"zoe:{key}:{scopes}" for key, scopes in given.items()],
        executor_tokens=[f"{cluster_id}:{token}" for cluster_id, token in TOKENS.items()],
    )
    settings = BrokerSettings(listen="127.0.0.1:0", replica_id="replica-1", rebalance=0)
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded_valkey(None))
        store = await stack.enter_async_context(open_store(url, result_ttl_s=600))
        served = stack.enter_context(services_noted())
        broker = await stack.enter_async_context(serve(settings, store, credentials))
        for cluster_id in (HIDDEN, SEEN):
            await stack.enter_async_context(connected(broker, cluster_id))
        gateway = await stack.enter_async_context(serving(broker))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(broker, options=CLIENT_OPTIONS))
        stage = Stage(gateway, channel, served)
        await stage.make_keys()
        stage.hidden, stage.seen = await stage.make(HIDDEN), await stage.make(SEEN)
        yield stage


async def together(asked: Mapping[N, Callable[[], Awaitable[T]]], *, at_a_time: int = AT_A_TIME) -> dict[N, T]:
    """All the answers."""
    places = asyncio.Semaphore(at_a_time)

    async def one(ask: Callable[[], Awaitable[T]]) -> T:
        async with places:
            return await ask()

    async with asyncio.TaskGroup() as tasks:
        asking = {name: tasks.create_task(one(ask)) for name, ask in asked.items()}
    return {name: task.result() for name, task in asking.items()}


def judge(
    cells: Mapping[str, Cell], kind: str, *, needs_every: bool = False, good: str = "", tells_of: bool = True
) -> None:
    """Whether this kind of key was told what it should.

    `needs_every` is for what only keys may that see every cluster, `good` for what cannot be done for another reason.
    What does not even tell a good key of what it names (not `tells_of`) has a test of its own.
    """
    cell, wrong_cluster = cells[kind], cells["wrong cluster"]
    match kind:
        case "no key":
            assert cell.told.reason == Reason.UNAUTHENTICATED
        case "wrong scope":
            assert cell.told.reason == Reason.SCOPE_MISSING
        case "wrong cluster":
            judge_hidden(cell, may_be_refused=needs_every)
        case "good key":
            assert cell.told.reason == good
            # What is not refused is made of what the key sees, or these two cells prove nothing.
            if wrong_cluster.told.reason == "" and tells_of:
                assert HIDDEN in cell.told.text
        case _:
            # Nobody learns that a key was good once, or is good for something else.
            assert cell.told.reason == Reason.UNAUTHENTICATED
            assert cell.told == cells["wrong key"].told


def judge_hidden(cell: Cell, *, may_be_refused: bool) -> None:
    """Whether what is hidden was told of as what there is not."""
    assert cell.of_unknown in (None, cell.told)
    assert cell.told.reason != Reason.UNAUTHENTICATED
    assert (cell.told.reason == Reason.SCOPE_MISSING) == may_be_refused
    assert HIDDEN not in cell.told.text


@pytest.fixture(scope="session")
def play() -> Any:
    """`play(ask)` gives what `await ask(stage)` does, on a stage of its own that is gone afterwards."""

    def played(ask: Callable[[Stage], Awaitable[T]]) -> T:
        async def on_stage() -> T:
            async with staged() as stage:
                return await ask(stage)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(on_stage())

    return played


@pytest.fixture(scope="session", name="row")
def row_fixture() -> type[Row]:
    return Row


@pytest.fixture(scope="session", name="told")
def told_fixture() -> type[Told]:
    return Told


@pytest.fixture(scope="session", name="judge")
def judge_fixture() -> Callable[..., None]:
    return judge


@pytest.fixture(scope="session", name="judge_hidden")
def judge_hidden_fixture() -> Callable[..., None]:
    return judge_hidden
