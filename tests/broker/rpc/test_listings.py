"""ListCommands and ListSessions: what a key's owner has, newest first, a page at a time."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from broker.core.told import told
from broker.store import keys
from broker.store.store import open_store
from openline import ids
from openline.channels import MAX_MESSAGE_BYTES
from openline.errors import OpenlineError, from_rpc_error
from openline.reasons import Reason
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import (
    COMMAND_ORDER_NEWEST_FIRST,
    COMMAND_ORDER_OLDEST_FIRST,
    ListCommandsRequest,
    ListCommandsResponse,
)
from openline.v1.command_service_pb2_grpc import CommandServiceStub
from openline.v1.session_service_pb2 import (
    CreateSessionRequest,
    DeleteSessionRequest,
    ListSessionsRequest,
    ListSessionsResponse,
)
from openline.v1.session_service_pb2_grpc import SessionServiceStub

PATIENCE_S = 20.0
ALICE, BOB, CAROL, ROOT = "the-key-of-alice", "the-key-of-bob", "the-key-of-carol", "the-key-of-root"


async def call(method: Any, request: Any, key: str = ALICE) -> Any:
    """Raises OpenlineError for a status."""
    try:
        return await method(request, metadata=(("x-api-key", key),), timeout=PATIENCE_S)
    except grpc.aio.AioRpcError as failure:
        raise from_rpc_error(failure) from failure


async def commands(broker: Any, key: str = ALICE, **fields: Any) -> ListCommandsResponse:
    page: ListCommandsResponse = await call(
        CommandServiceStub(broker.channel()).ListCommands, ListCommandsRequest(**fields), key
    )
    return page


async def sessions(broker: Any, key: str = ALICE, **fields: Any) -> ListSessionsResponse:
    page: ListSessionsResponse = await call(
        SessionServiceStub(broker.channel()).ListSessions, ListSessionsRequest(**fields), key
    )
    return page


async def make_session(broker: Any, cluster_id: str = "prod", key: str = ALICE) -> str:
    request = CreateSessionRequest(cluster_id=cluster_id)
    made = await call(SessionServiceStub(broker.channel()).CreateSession, request, key)
    return str(made.session.session_id)


async def run(broker: Any, executor: Any, **fields: Any) -> str:
    """Runs a command to its end; its id, also when the test has not chosen one."""
    asked = broker.execute(**fields)
    await executor.run_one(b"output")
    await executor.expect("result_ack")
    return str((await asked).result.command_id)


async def listed(broker: Any, fits: Callable[[list[command_pb2.Command]], bool], **fields: Any) -> Any:
    """The commands, once they are as they should be: they are written behind the answers."""
    async with asyncio.timeout(PATIENCE_S):
        while not fits(found := list((await commands(broker, **fields)).commands)):
            await asyncio.sleep(0.02)
    return found


def are(*command_ids: str) -> Callable[[list[command_pb2.Command]], bool]:
    return lambda found: [command.command_id for command in found] == list(command_ids)


# Commands


async def test_commands_are_listed_newest_first(broker: Any) -> None:
    """Each once, with what became of it, and without what it wrote."""
    executor = await broker.executor()
    first, second = await run(broker, executor, argv=["get", "a"]), await run(broker, executor, argv=["get", "b"])
    found = await listed(broker, are(second, first))
    assert [list(command.argv) for command in found] == [["get", "b"], ["get", "a"]]
    for command in found:
        assert (command.state, command.owner) == (command_pb2.COMMAND_STATE_DONE, "alice")
        assert command.result.outcome == command_pb2.OUTCOME_EXITED
        assert (command.result.stdout, command.result.stdout_summary.total_bytes) == (b"", 6)


async def test_a_command_that_runs_is_listed(broker: Any) -> None:
    """As it is now, and once when it has ended."""
    executor = await broker.executor()
    asked = broker.execute()
    name = (await executor.expect("execute")).command_id
    [command] = await listed(broker, are(name))
    assert command.state == command_pb2.COMMAND_STATE_WRITTEN
    await executor.send(broker._frames.accepted(name), broker._frames.started(name))
    await listed(broker, lambda found: [each.state for each in found] == [command_pb2.COMMAND_STATE_RUNNING])
    await broker.cancel(name)
    await executor.expect("cancel")
    await executor.send(broker._frames.finished(name, outcome=command_pb2.OUTCOME_CANCELLED))
    with pytest.raises(OpenlineError):
        await asked
    [command] = await listed(broker, lambda found: [each.HasField("result") for each in found] == [True])
    assert command.result.outcome == command_pb2.OUTCOME_CANCELLED


async def test_commands_are_chosen(broker: Any) -> None:
    """By session, conversation, cluster and time; all that are given must fit."""
    executor = await broker.executor()
    session_id = await make_session(broker)
    plain = await run(broker, executor)
    of_session = await run(broker, executor, session_id=session_id)
    told = await run(broker, executor, correlation_id="c-1")
    both = await run(broker, executor, session_id=session_id, correlation_id="c-1")
    await listed(broker, are(both, told, of_session, plain))
    assert are(both, of_session)(list((await commands(broker, session_id=session_id)).commands))
    assert are(both, told)(list((await commands(broker, correlation_id="c-1")).commands))
    assert are(both)(list((await commands(broker, session_id=session_id, correlation_id="c-1")).commands))
    assert are()(list((await commands(broker, cluster_id="staging")).commands))
    assert are()(list((await commands(broker, session_id="two words")).commands))
    [_, third, *_] = (await commands(broker)).commands
    assert are(both, told)(list((await commands(broker, cluster_id="prod", since=third.created_at)).commands))


async def test_commands_come_in_pages(broker: Any) -> None:
    """Each once, and no token behind the last."""
    executor = await broker.executor()
    names = [await run(broker, executor) for _ in range(5)][::-1]
    await listed(broker, are(*names))
    seen, token = [], ""
    for _ in range(3):
        page = await commands(broker, page_size=2, page_token=token)
        seen += [command.command_id for command in page.commands]
        token = page.next_page_token
    assert (seen, token) == (names, "")


async def test_a_conversation_is_read_from_its_beginning(broker: Any) -> None:
    """In pages that go on where the one before ended, each command once, as it ended; what comes meanwhile is last."""
    executor = await broker.executor()
    names = [await run(broker, executor, correlation_id="c-1") for _ in range(4)]
    oldest_first = {"correlation_id": "c-1", "order": COMMAND_ORDER_OLDEST_FIRST}
    slow = broker.execute(correlation_id="c-1")
    names.append(await executor.begin_one())
    await listed(broker, are(*names), **oldest_first)
    page = await commands(broker, page_size=2, **oldest_first)
    assert page.order == COMMAND_ORDER_OLDEST_FIRST
    seen = [command.command_id for command in page.commands]
    await executor.send(broker._frames.finished(names[-1]))
    await slow
    await executor.expect("result_ack")
    names.append(await run(broker, executor, correlation_id="c-1"))
    await listed(broker, lambda found: [each.HasField("result") for each in found] == [True] * 6, **oldest_first)
    while page.next_page_token:
        page = await commands(broker, page_size=2, page_token=page.next_page_token, **oldest_first)
        seen += [command.command_id for command in page.commands]
    assert seen == names
    newest_first = await commands(broker, correlation_id="c-1")
    assert newest_first.order == COMMAND_ORDER_NEWEST_FIRST
    assert are(*names[::-1])(list(newest_first.commands))
    third = next(each for each in newest_first.commands if each.command_id == names[2])
    assert are(*names[2:])(list((await commands(broker, since=third.created_at, **oldest_first)).commands))
    # A page goes on behind its token also where `since` is earlier, and begins with `since` where the token is.
    page = await commands(broker, since=third.created_at, page_token=names[0], **oldest_first)
    assert are(*names[2:])(list(page.commands))
    page = await commands(broker, since=third.created_at, page_token=names[3], **oldest_first)
    assert are(*names[4:])(list(page.commands))


async def test_an_order_that_is_none(broker: Any) -> None:
    with pytest.raises(OpenlineError) as refusal:
        await commands(broker, order=9)
    assert refusal.value.reason is Reason.INVALID_COMMAND
    assert refusal.value.error.violations[0].field == "order"


async def test_others_commands_are_not_listed(broker: Any) -> None:
    """By the rule of GetCommand: an admin may see a session's; nobody sees a conversation that has the same name."""
    executor = await broker.executor()
    session_id = await make_session(broker)
    mine = await run(broker, executor, session_id=session_id, correlation_id="shared")
    his = await run(broker, executor, key=BOB, correlation_id="shared")
    await listed(broker, are(mine))
    await listed(broker, are(his), key=BOB, correlation_id="shared")
    assert are(mine)(list((await commands(broker, correlation_id="shared")).commands))
    assert are()(list((await commands(broker, key=BOB, session_id=session_id)).commands))
    assert are(mine)(list((await commands(broker, key=ROOT, session_id=session_id)).commands))


async def test_an_admin_lists_those_of_another_owner_by_name(broker: Any) -> None:
    """Of a conversation, a session or all; all others have their own alone. The answer says whose it is."""
    executor = await broker.executor()
    session_id = await make_session(broker)
    mine = await run(broker, executor, session_id=session_id, correlation_id="shared")
    other = await run(broker, executor)
    his = await run(broker, executor, key=BOB, correlation_id="shared")
    await listed(broker, are(other, mine), key=ROOT, owner="alice")
    await listed(broker, are(his), key=ROOT, owner="bob", correlation_id="shared")
    page = await commands(broker, key=ROOT, owner="alice", correlation_id="shared")
    assert are(mine)(list(page.commands))
    assert (page.owner, page.commands[0].owner) == ("alice", "alice")
    assert are(mine)(list((await commands(broker, key=ROOT, owner="alice", session_id=session_id)).commands))
    assert are()(list((await commands(broker, key=ROOT, owner="bob", session_id=session_id)).commands))
    assert are()(list((await commands(broker, key=ROOT, owner="two\nlines")).commands))
    assert are()(list((await commands(broker, key=ROOT, correlation_id="shared")).commands))
    for asked in ({}, {"correlation_id": "shared"}, {"session_id": session_id}):
        assert are()(list((await commands(broker, key=BOB, owner="alice", **asked)).commands))
    assert are(other, mine)(list((await commands(broker, owner="alice")).commands))


async def test_a_list_has_bounds(broker: Any, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many commands, so much of each, for --result-ttl."""
    monkeypatch.setattr(keys, "MAX_OWNED_COMMANDS", 3)
    executor = await broker.executor()
    names = [await run(broker, executor, argv=["get", "x" * 3000]) for _ in range(5)][::-1]
    found = await listed(broker, lambda found: [each.command_id for each in found] == names[:3])
    assert [list(command.argv) for command in found] == [["get", "…"]] * 3
    assert 590 < await redis.ttl(keys.owned_commands("alice")) <= 600


async def test_a_page_has_room_in_a_message(broker: Any) -> None:
    """With as much as executors may say of an end: it goes on on the next page."""
    said = command_pb2.Error(message="\U0001f41b" * 500, metadata={"why": "x" * 2000})
    for number in range(10):
        said.violations.add(field=f"{number}" + "\U0001f41b" * 99, description="\U0001f41b" * 200)
    error = told(said, command_pb2.OUTCOME_LOST)
    names = [ids.new_id() for _ in range(600)][::-1]
    for name in names:
        lost = command_pb2.CommandResult(outcome=command_pb2.OUTCOME_LOST, error=error)
        command = command_pb2.Command(
            command_id=name, cluster_id="prod", owner="alice", state=command_pb2.COMMAND_STATE_DONE, result=lost
        )
        command.created_at.GetCurrentTime()
        broker.store.history.ended(command)
    broker.store.history.flush()
    assert await broker.store.behind.drain(PATIENCE_S)
    pages = [await commands(broker, page_size=1000)]
    while token := pages[-1].next_page_token:
        pages.append(await commands(broker, page_size=1000, page_token=token))
    assert [command.command_id for page in pages for command in page.commands] == names
    assert sum(page.ByteSize() for page in pages) > MAX_MESSAGE_BYTES
    assert all(page.ByteSize() < MAX_MESSAGE_BYTES * 0.6 for page in pages)


async def test_what_has_expired_is_not_listed(broker: Any, redis: Redis) -> None:
    """It may still be on a list that newer commands keep, and so may bytes of somebody else."""
    executor = await broker.executor()
    name = await run(broker, executor)
    await listed(broker, are(name))
    old = "01900000-0000-7000-8000-000000000000"
    record = command_pb2.Command(command_id=old, owner="alice").SerializeToString()
    garbage = ids.new_id().encode() + b"1\xff\xff garbage"
    await redis.zadd(keys.owned_commands("alice"), {old.encode() + b"1" + record: 0, garbage: 0})
    assert are(name)(list((await commands(broker)).commands))


@pytest.mark.parametrize("token", ["x", "(", "01900000-0000-7000-8000-00000000000"])
async def test_a_token_that_was_no_page_s(broker: Any, token: str) -> None:
    for ask in (commands, sessions):
        with pytest.raises(OpenlineError) as refusal:
            await ask(broker, page_token=token)
        assert refusal.value.reason is Reason.INVALID_COMMAND
        assert refusal.value.error.violations[0].field == "page_token"


async def test_lists_need_their_scopes(broker: Any) -> None:
    """read for commands, session for sessions."""
    assert are()(list((await commands(broker, key=CAROL)).commands))
    for ask, key, reason in (
        (sessions, CAROL, Reason.SCOPE_MISSING),
        (commands, "the-key-of-the-auditor", Reason.SCOPE_MISSING),
        (commands, "wrong", Reason.UNAUTHENTICATED),
        (sessions, "wrong", Reason.UNAUTHENTICATED),
    ):
        with pytest.raises(OpenlineError) as refusal:
            await ask(broker, key=key)
        assert refusal.value.reason is reason


async def test_without_redis_lists_are_unavailable_and_commands_go_on(start_broker: Any) -> None:
    async with (
        open_store("redis://127.0.0.1:1", result_ttl_s=600) as away,
        start_broker(away) as broker,
    ):
        executor = await broker.executor()
        # The first answer does not wait for what becomes of its own writing down.
        async with asyncio.timeout(10):
            while not away.degraded:
                asked = broker.execute()
                await executor.run_one(b"output")
                await asked
        asked = broker.execute()
        await executor.run_one(b"output")
        assert (await asked).degraded
        for ask in (commands, sessions):
            with pytest.raises(OpenlineError) as refusal:
                await ask(broker)
            assert refusal.value.reason is Reason.STORE_UNAVAILABLE


# Sessions


async def test_sessions_are_listed_newest_first(broker: Any) -> None:
    """The owner's, of all clusters or of one, without those that have ended."""
    first, second, ended = [await make_session(broker, name) for name in ("prod", "staging", "prod")]
    await make_session(broker, key=BOB)
    await call(SessionServiceStub(broker.channel()).DeleteSession, DeleteSessionRequest(session_id=ended))
    assert [session.session_id for session in (await sessions(broker)).sessions] == [second, first]
    [of_prod] = (await sessions(broker, cluster_id="prod")).sessions
    assert (of_prod.session_id, of_prod.owner) == (first, "alice")


async def test_sessions_come_in_pages(broker: Any) -> None:
    names = [await make_session(broker) for _ in range(5)][::-1]
    seen, token = [], ""
    for _ in range(3):
        page = await sessions(broker, page_size=2, page_token=token)
        seen += [session.session_id for session in page.sessions]
        token = page.next_page_token
    assert (seen, token) == (names, "")


async def test_a_session_that_expired_is_forgotten(broker: Any, redis: Redis) -> None:
    """When a list comes upon it."""
    old = "01900000-0000-7000-8000-000000000000"
    name = await make_session(broker)
    await redis.zadd(keys.owned_sessions("alice"), {old: 0})
    assert [session.session_id for session in (await sessions(broker)).sessions] == [name]
    assert await broker.store.behind.drain(PATIENCE_S)
    assert await redis.zrange(keys.owned_sessions("alice"), 0, -1) == [name.encode()]
    assert 7000 < await redis.ttl(keys.owned_sessions("alice")) <= keys.OWNED_SESSIONS_S


async def test_a_session_in_use_stays_listed(broker: Any, redis: Redis) -> None:
    """For longer than a list lives by itself."""
    executor = await broker.executor()
    name = await make_session(broker)
    await redis.delete(keys.owned_sessions("alice"))
    await run(broker, executor, session_id=name)
    assert await broker.store.behind.drain(PATIENCE_S)
    assert [session.session_id for session in (await sessions(broker)).sessions] == [name]
