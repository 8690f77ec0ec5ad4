"""A broker replica of the last release and one of today's around one Redis: whichever is asked, they are one."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from openline import ids
from openline.errors import OpenlineError
from openline.reasons import YES, Reason
from openline.v1 import admin_service_pb2, command_pb2
from openline.v1 import command_service_pb2 as pb

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Side:
    """One replica, the cluster whose executor is connected there and nowhere else, and somebody who asks there."""

    number: int
    broker: Any
    cluster_id: str
    caller: Any


@dataclass(frozen=True, slots=True)
class Both:
    here: Any
    asked: Side
    other: Side
    # What this test's command is called.
    name: str


@asynccontextmanager
async def around_one_redis(old: Any, new: Any, install: Callable[..., Any]) -> AsyncIterator[tuple[Any, list[Side]]]:
    """Two replicas that know each other, each with the executor of a cluster, of its own version; the old one first."""
    async with install("east", "west", "lone") as here:
        sides = []
        for number, (tree, cluster_id) in enumerate(((old, "east"), (new, "west"))):
            broker = await here.broker(tree, number)
            await here.executor(tree, cluster_id, here.addresses[number])
            sides.append(Side(number, broker, cluster_id, await here.caller(number)))
        await here.until(lambda: all(side.broker.lines("peer.reached") for side in sides))
        for side, cluster_id in itertools.product(sides, ("east", "west")):
            # Until it has heard of the executor: that it is in Redis does not say so.
            argv = ["get", "nodes"]
            known = pb.ExecuteRequest(cluster_id=cluster_id, argv=argv, timeout_s=20, wait_for_cluster_s=30)
            await side.caller.execute(known)
        yield here, sides


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def replicas(old: Any, new: Any, install: Callable[..., Any]) -> AsyncIterator[tuple[Any, list[Side]]]:
    """For all tests that leave them as they were."""
    async with around_one_redis(old, new, install) as replicas:
        yield replicas


@pytest.fixture(params=["the old one is asked", "the new one is asked"])
def both(request: pytest.FixtureRequest, replicas: tuple[Any, list[Side]]) -> Both:
    here, sides = replicas
    asked, other = sides if request.param == "the old one is asked" else sides[::-1]
    return Both(here, asked, other, f"by-{asked.cluster_id}-{next(_numbers)}")


async def test_a_command_is_forwarded(both: Both, ask: Callable[..., Any]) -> None:
    """Its output, its exit code, and its record at both."""
    command_id = ids.new_id()
    answer = await both.asked.caller.execute(ask(both.other.cluster_id, both.name, "fail-3", command_id=command_id))
    assert (answer.result.exit_code, answer.result.stderr) == (3, f"failed {both.name}\n".encode())
    for side in (both.asked, both.other):
        found = await side.caller.get(command_id)
        assert (found.owner, found.result.stdout, found.result.exit_code) == (
            "test",
            f"begun {both.name}\n".encode(),
            3,
        )
    assert both.here.runs[both.name] == 1


async def test_live_output_is_forwarded(both: Both, ask: Callable[..., Any]) -> None:
    events = await both.asked.caller.stream(ask(both.other.cluster_id, "live", "ticks-8"))
    output = b"".join(event.output.data for event in events)
    assert output == b"begun live\n" + b"".join(b"tick %d\n" % n for n in range(1, 9)) + b"done live\n"
    assert events[-1].result.exit_code == 0


async def test_a_cancel_reaches_the_other_one(both: Both, ask: Callable[..., Any]) -> None:
    """Asked where the executor is not, for a command that was asked for where it is."""
    command_id = ids.new_id()
    asked = both.other.caller.execute(ask(both.other.cluster_id, both.name, "sleep-60", command_id=command_id))
    await both.here.until_it_runs(both.name)
    await asyncio.sleep(0.5)
    await both.asked.caller.cancel(command_id)
    with pytest.raises(OpenlineError) as cancelled:
        await asked
    assert (cancelled.value.reason, cancelled.value.error.executed) == (Reason.CANCELLED, YES)


async def test_the_kill_switch_reaches_both(both: Both, ask: Callable[..., Any]) -> None:
    """Commands of an owner end, on either replica."""
    asked = [
        side.caller.execute(ask(side.cluster_id, f"{both.name}-{side.cluster_id}", "sleep-60"))
        for side in (both.asked, both.other)
    ]
    for cluster_id in ("east", "west"):
        await both.here.until_it_runs(f"{both.name}-{cluster_id}")
    await asyncio.sleep(0.5)
    request = admin_service_pb2.CancelAllRequest(owner="test", reason="enough")
    told = await both.asked.caller.ask(both.asked.caller.admin.CancelAll, request)
    assert (told.cancelled, list(told.unreached_replica_ids)) == (2, [])
    for each in asked:
        with pytest.raises(OpenlineError) as cancelled:
            await each
        assert cancelled.value.reason is Reason.CANCELLED


async def test_an_idempotency_key_means_the_same_at_both(both: Both, ask: Callable[..., Any]) -> None:
    """At the same time and later: one run, and its result for everybody."""
    request = ask(both.asked.cluster_id, both.name, "sleep-1", idempotency_key=both.name)
    asked = [side.caller.execute(request) for side in (both.asked, both.other) for _ in range(5)]
    answers = await asyncio.gather(*asked)
    later = [await side.caller.execute(request) for side in (both.asked, both.other)]
    assert {answer.result.stdout for answer in (*answers, *later)} == {
        f"begun {both.name}\ndone {both.name}\n".encode()
    }
    assert [answer.replayed for answer in (*answers, *later)].count(False) == 1
    assert both.here.runs[both.name] == 1


async def test_a_session_of_the_one_is_used_at_the_other(both: Both, ask: Callable[..., Any]) -> None:
    """Its commands are on the list, whichever is asked for it."""
    session = await both.asked.caller.session(both.asked.cluster_id)
    for side in (both.other, both.asked):
        request = ask(session.cluster_id, f"{both.name}-{side.cluster_id}", session_id=session.session_id)
        await side.caller.execute(request)
    listing = pb.ListCommandsRequest(session_id=session.session_id)
    for side in (both.asked, both.other):
        async with asyncio.timeout(60):
            while len(
                found := {
                    command.argv[2]: command.state
                    for command in (await side.caller.ask(side.caller.commands.ListCommands, listing)).commands
                }
            ) < 2 or set(found.values()) != {command_pb2.COMMAND_STATE_DONE}:
                await asyncio.sleep(0.1)
        assert set(found) == {f"{both.name}-east", f"{both.name}-west"}


async def test_credentials_made_at_the_one_are_good_at_the_other(both: Both, ask: Callable[..., Any]) -> None:
    """And not any more when they were revoked there."""
    admin = both.asked.caller
    made = await admin.ask(
        admin.admin.CreateApiKey,
        admin_service_pb2.CreateApiKeyRequest(owner="guest", scopes=["execute", "read"], clusters=["east", "we*"]),
    )
    async with asyncio.timeout(60):
        while await is_refused(both.other, ask, made.key):
            await asyncio.sleep(0.1)  # the news of it is on its way
    await admin.ask(admin.admin.RevokeApiKey, admin_service_pb2.RevokeApiKeyRequest(key_id=made.api_key.key_id))
    async with asyncio.timeout(60):
        while not await is_refused(both.other, ask, made.key):
            await asyncio.sleep(0.1)


async def is_refused(side: Side, ask: Callable[..., Any], key: str) -> bool:
    """Whether the key is no good there; anything else but a result raises."""
    try:
        await side.caller.execute(ask(side.cluster_id, "guest"), key=key)
    except OpenlineError as refusal:
        if refusal.reason is not Reason.UNAUTHENTICATED:
            raise
        return True
    return False


async def test_the_trail_has_what_both_did(both: Both, ask: Callable[..., Any]) -> None:
    """One trail, which either of them reads to its end."""
    command_ids = {side.cluster_id: ids.new_id() for side in (both.asked, both.other)}
    for side in (both.asked, both.other):
        request = ask(side.cluster_id, f"{both.name}-{side.cluster_id}", command_id=command_ids[side.cluster_id])
        await side.caller.execute(request)
    for side in (both.asked, both.other):
        listing = admin_service_pb2.ListAuditEntriesRequest()
        async with asyncio.timeout(60):
            while set(command_ids.values()) - {
                entry.command_id
                for entry in (await side.caller.ask(side.caller.admin.ListAuditEntries, listing)).entries
            }:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("stops_old", [True, False])
async def test_the_one_that_stops_hands_over_to_the_other(
    old: Any, new: Any, install: Callable[..., Any], ask: Callable[..., Any], stops_old: bool
) -> None:
    """An executor of the other's version takes what runs along; whoever waits, at either of them, gets the answer."""
    async with around_one_redis(old, new, install) as (here, sides):
        stops, stays = sides if stops_old else sides[::-1]
        to_stops, to_stays = [await here.line(side.number) for side in (stops, stays)]
        with to_stays.broken():
            executor = await here.executor(new if stops_old else old, "lone", to_stops.address, to_stays.address)
        asked = [
            side.caller.execute(ask("lone", f"at-{side.cluster_id}", "sleep-4", wait_for_cluster_s=20))
            for side in sides
        ]
        for side in sides:
            await here.until_it_runs(f"at-{side.cluster_id}")
        await stops.broker.stop()
        answers = await asyncio.gather(*asked)
        assert [answer.result.stdout for answer in answers] == [
            f"begun at-{side.cluster_id}\ndone at-{side.cluster_id}\n".encode() for side in sides
        ]
        assert here.runs == {"at-east": 1, "at-west": 1}
        assert len(executor.lines("connection.opened")) == 2
