"""Connect: the handshake, and how a connection ends, over real gRPC."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from broker.core.credentials import digest
from openline import limits, versions
from openline.errors import OpenlineError
from openline.reasons import Reason
from openline.v1 import command_pb2, command_service_pb2
from openline.v1 import executor_service_pb2 as wire

PATIENCE_S = 20.0


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


async def test_welcome_says_how_to_behave(broker: Any) -> None:
    """Epoch, heartbeats, limits and how to come back; nothing else comes before it."""
    welcome = (await broker.executor()).welcome
    assert welcome.protocol_version == limits.PROTOCOL_VERSION
    assert welcome.replica_id == "replica-1"
    assert welcome.heartbeat_interval_s == limits.IDLE_HEARTBEAT_INTERVAL_S
    assert welcome.heartbeat_timeout_s == limits.IDLE_HEARTBEAT_TIMEOUT_S
    assert welcome.limits.max_frame_bytes == limits.MAX_FRAME_BYTES
    assert welcome.reconnect.max_s >= welcome.reconnect.min_s > 0


async def test_a_newer_connection_has_a_higher_epoch(broker: Any) -> None:
    first, second = await broker.executor(), await broker.executor()
    assert second.welcome.epoch > first.welcome.epoch


async def test_heartbeats_are_answered(broker: Any) -> None:
    executor = await broker.executor()
    await executor.send(wire.ExecutorFrame(heartbeat=wire.Heartbeat(seq=7)))
    assert (await executor.expect("heartbeat_ack")).seq == 7


async def test_among_many_heartbeats_are_answered_together(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each executor's last one, a moment later; one that has left meanwhile is no obstacle."""
    monkeypatch.setattr("broker.rpc.executors.MANY_STREAMS", 2)
    one, other, gone = [await broker.executor(executor_id=f"exec-{number}") for number in range(3)]
    for executor in (gone, one, other):
        await executor.send(*(wire.ExecutorFrame(heartbeat=wire.Heartbeat(seq=seq)) for seq in (1, 2, 3)))
    gone.call.cancel()
    assert [(await executor.expect("heartbeat_ack")).seq for executor in (one, other)] == [3, 3]


@pytest.mark.parametrize("token", [None, "", "wrong", "the-token-of-staging", "the-key-of-alice"])
async def test_a_token_that_is_not_the_clusters(broker: Any, token: str | None) -> None:
    """UNAUTHENTICATED, as a rich status."""
    executor = broker.dial(token=token)
    with pytest.raises(OpenlineError) as refusal:
        await executor.hello()
    assert refusal.value.reason is Reason.UNAUTHENTICATED
    assert await executor.call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_any_of_a_clusters_tokens_will_do(broker: Any) -> None:
    await broker.dial(token="the-second-token-of-prod").hello()


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"cluster_id": ""}, ["cluster_id"]),
        ({"cluster_id": "UPPER"}, ["cluster_id"]),
        ({"executor_id": "", "instance_id": "a b"}, ["executor_id", "instance_id"]),
        ({"executor_id": "x" * 201}, ["executor_id"]),
        ({"in_flight_ids": [""]}, ["in_flight_ids"]),
        ({"unacked_ids": ["x" * 1000]}, ["unacked_ids"]),
        ({"in_flight_ids": ["x"] * 10_001}, ["in_flight_ids"]),
        ({"capabilities": {"verbs": ["x" * 100_000]}}, ["capabilities"]),
        ({"versions": {"kubectl": "x" * 100_000}}, ["versions"]),
    ],
)
async def test_a_hello_that_is_not_valid(broker: Any, fields: dict[str, Any], wrong: list[str]) -> None:
    """INVALID_ARGUMENT that names every field."""
    executor = broker.dial()
    with pytest.raises(OpenlineError) as refusal:
        await executor.hello(**fields)
    assert refusal.value.reason is Reason.PROTOCOL_VIOLATION
    assert [violation.field for violation in refusal.value.error.violations] == wrong
    assert await executor.call.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("version", [0, limits.PROTOCOL_VERSION + 1, 4_000_000_000])
async def test_an_unknown_version(broker: Any, log_lines: list[dict[str, Any]], version: int) -> None:
    """FAILED_PRECONDITION, as the contract says: neither the frame nor the token is wrong. The log has it once."""
    for _ in range(2):
        executor = broker.dial()
        with pytest.raises(OpenlineError, match=f"speaks protocol version {version}, this broker 1: upgrade the"):
            await executor.hello(protocol_version=version)
        assert await executor.call.code() is grpc.StatusCode.FAILED_PRECONDITION
    [line] = [line for line in log_lines if line["event"] == "version.unsupported"]
    assert (line["last_from"], line["hellos"]) == ("prod", 1)


async def test_a_stranger_of_an_unknown_version_cannot_write_to_the_log(
    broker: Any, log_lines: list[dict[str, Any]]
) -> None:
    """What it calls itself is left out unless a terminal can show it."""
    with pytest.raises(OpenlineError, match="upgrade the broker"):
        await broker.dial().hello(protocol_version=9, cluster_id="\x1b[2J")
    assert [line["last_from"] for line in log_lines if line["event"] == "version.unsupported"] == [""]


@pytest.mark.parametrize(
    ("speaks", "chosen"),
    [
        ({"protocol_version": 1, "max_protocol_version": 9}, 2),
        ({"protocol_version": 2, "max_protocol_version": 3}, 2),
        ({"protocol_version": 1, "max_protocol_version": 1}, 1),
        ({"protocol_version": 1}, 1),  # as 0.1.0 says it
    ],
)
async def test_the_highest_version_that_both_speak(
    broker: Any, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]], speaks: dict[str, int], chosen: int
) -> None:
    """It is what Welcome says, and what is shown of the executor, whatever that says itself."""
    monkeypatch.setattr(versions, "SPOKEN", versions.Spoken(1, 2))
    executor = await broker.executor(**speaks, versions=wire.Versions(executor="9.9", protocol=77))
    assert executor.welcome.protocol_version == chosen
    await broker.inside.presence_told()
    [cluster] = await broker.store.clusters.get(["prod"])
    [shown] = cluster.executors
    assert (shown.versions.executor, shown.versions.protocol) == ("9.9", chosen)
    assert [line["protocol"] for line in log_lines if line["event"] == "connection.opened"] == [chosen]


async def test_an_executor_that_is_too_old(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told what both speak, and which of them is to be upgraded."""
    monkeypatch.setattr(versions, "SPOKEN", versions.Spoken(2, 3))
    with pytest.raises(OpenlineError, match=r"the executor speaks .* 1, this broker 2 to 3: upgrade the executor"):
        await broker.dial().hello(protocol_version=1)


async def test_something_else_before_hello(broker: Any) -> None:
    executor = broker.dial()
    await executor.send(wire.ExecutorFrame(heartbeat=wire.Heartbeat()))
    assert (await executor.status()).reason is Reason.PROTOCOL_VIOLATION


async def test_no_frame_before_hello(broker: Any) -> None:
    executor = broker.dial()
    await executor.send()
    assert (await executor.status()).reason is Reason.PROTOCOL_VIOLATION


async def test_no_hello_in_time(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that says nothing is worth nothing to anybody."""
    monkeypatch.setattr(limits, "HELLO_TIMEOUT_S", 0.1)
    refusal = await broker.dial().status()
    assert refusal.reason is Reason.PROTOCOL_VIOLATION
    assert "no Hello within 0.1 s" in refusal.error.message


async def test_a_second_hello(broker: Any, log_lines: list[dict[str, Any]]) -> None:
    """Ends the stream, in the first batch or in a later one."""
    executor = await broker.executor()
    await executor.send(wire.ExecutorFrame(hello=wire.Hello()))
    assert (await executor.status()).reason is Reason.PROTOCOL_VIOLATION
    await until(lambda: any(line["event"] == "connection.closed" for line in log_lines))
    twice = broker.dial()
    hello = wire.Hello(protocol_version=1, cluster_id="prod", executor_id="e", instance_id="i")
    await twice.send(wire.ExecutorFrame(hello=hello), wire.ExecutorFrame(hello=hello))
    assert (await twice.status()).reason is Reason.PROTOCOL_VIOLATION


@pytest.mark.parametrize("after_hello", [False, True])
async def test_bytes_that_are_no_message(broker: Any, log_lines: list[dict[str, Any]], after_hello: bool) -> None:
    """Garbage gets a status, and is no defect of ours."""
    call = broker.channel().stream_stream(
        "/openline.v1.ExecutorService/Connect", request_serializer=bytes, response_deserializer=bytes
    )(metadata=(("authorization", "Bearer the-token-of-prod"),))
    if after_hello:
        hello = wire.Hello(protocol_version=1, cluster_id="prod", executor_id="e", instance_id="i")
        await call.write(wire.ConnectRequest(frames=[wire.ExecutorFrame(hello=hello)]).SerializeToString())
        await call.read()
    await call.write(b"\xff\xff\xff")
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    await until(lambda: not after_hello or any(line["event"] == "connection.closed" for line in log_lines))
    assert "rpc.failed" not in {line["event"] for line in log_lines}


async def test_a_message_of_far_too_many_frames(broker: Any) -> None:
    """It would hold up every other stream; nobody who keeps to the batching rule sends one."""
    executor = await broker.executor()
    await executor.send(*[wire.ExecutorFrame(heartbeat=wire.Heartbeat())] * 100_000)
    assert (await executor.status()).reason is Reason.PROTOCOL_VIOLATION


async def test_unknown_frames_are_ignored_and_counted(broker: Any, log_lines: list[dict[str, Any]]) -> None:
    """Those of a newer version of the contract, between two that are known."""
    executor = await broker.executor()
    unknown = wire.ExecutorFrame.FromString(b"\xfa\x3f\x02hi")  # field 1023
    heartbeat = wire.ExecutorFrame(heartbeat=wire.Heartbeat(seq=1))
    await executor.send(unknown, wire.ExecutorFrame(), heartbeat)
    assert (await executor.expect("heartbeat_ack")).seq == 1
    await executor.call.done_writing()
    await until(lambda: any(line["event"] == "connection.closed" for line in log_lines))
    assert [line["unknown_frames"] for line in log_lines if line["event"] == "connection.closed"] == [2]


async def test_a_frame_out_of_order_ends_its_command_not_the_stream(broker: Any, frames: Any) -> None:
    """The caller hears of it, the executor is told to stop, and the stream goes on."""
    executor = await broker.executor()
    asked = broker.execute()
    execute = await executor.expect("execute")
    await executor.send(frames.finished(execute.command_id))
    with pytest.raises(OpenlineError) as lost:
        await asked
    assert lost.value.reason is Reason.EXECUTOR_LOST
    assert (await executor.expect("cancel")).command_id == execute.command_id
    assert (await executor.expect("result_ack")).command_id == execute.command_id
    again = broker.execute()
    await executor.run_one(b"fine")
    assert (await again).result.stdout == b"fine"


async def test_an_outcome_of_a_newer_version_ends_its_command_not_the_stream(broker: Any, frames: Any) -> None:
    executor = await broker.executor()
    asked = broker.execute()
    execute = await executor.expect("execute")
    await executor.send(frames.accepted(execute.command_id), frames.finished(execute.command_id, outcome=99))
    with pytest.raises(OpenlineError) as lost:
        await asked
    assert lost.value.reason is Reason.EXECUTOR_LOST
    await executor.expect("cancel")


async def test_the_result_is_acknowledged_when_redis_has_it(broker: Any) -> None:
    executor = await broker.executor()
    asked = broker.execute()
    execute = await executor.run_one(b"x")
    assert (await executor.expect("result_ack")).command_id == execute.command_id
    assert (await broker.store.results.get(execute.command_id)).result.stdout == b"x"
    await asked


async def test_a_reconnect_hands_the_result_over(broker: Any, frames: Any) -> None:
    """The stream breaks while a command runs; the caller never notices."""
    first = await broker.executor()
    asked = broker.execute()
    execute = await first.expect("execute")
    await first.send(frames.accepted(execute.command_id), frames.started(execute.command_id))
    first.call.cancel()
    second = broker.dial()
    welcome = await second.hello(unacked_ids=[execute.command_id])
    assert [verdict.action for verdict in welcome.verdicts] == [wire.VERDICT_ACTION_KEEP]
    await second.send(frames.output(execute.command_id, 0, b"late"), frames.finished(execute.command_id))
    assert (await asked).result.stdout == b"late"


async def test_a_restart_hands_over_what_is_on_disk(broker: Any, frames: Any) -> None:
    """The next instance has the result that the last one left: nothing of it is lost."""
    first = await broker.executor()
    asked = broker.execute()
    name = await first.begin_one()
    first.call.cancel()
    second = broker.dial()
    [verdict] = (await second.hello(instance_id="instance-2", unacked_ids=[name])).verdicts
    assert (verdict.command_id, verdict.action) == (name, wire.VERDICT_ACTION_KEEP)
    await second.send(frames.output(name, 0, b"from disk"), frames.finished(name))
    assert (await asked).result.stdout == b"from disk"
    assert (await second.expect("result_ack")).command_id == name
    await broker.inside.nothing_left()


async def test_a_restart_loses_what_ran(broker: Any, frames: Any) -> None:
    """EXECUTOR_LOST with executed=unknown, at the new Hello."""
    first = await broker.executor()
    asked = broker.execute()
    execute = await first.expect("execute")
    await first.send(frames.accepted(execute.command_id))
    await broker.executor(instance_id="instance-2")
    with pytest.raises(OpenlineError) as lost:
        await asked
    assert lost.value.reason is Reason.EXECUTOR_LOST
    assert lost.value.error.executed == command_pb2.EXECUTED_UNKNOWN


async def test_after_the_grace_a_command_is_lost(start_broker: Any, frames: Any) -> None:
    async with start_broker(reconnect_grace=0.2) as broker:
        executor = await broker.executor()
        asked = broker.execute()
        await executor.expect("execute")
        executor.call.cancel()
        with pytest.raises(OpenlineError) as lost:
            await asked
        assert lost.value.reason is Reason.EXECUTOR_LOST


async def test_a_replaced_connection_is_ended(broker: Any, frames: Any) -> None:
    """The newest wins; the old one is told why, and its end does not hurt the new one."""
    old = await broker.executor()
    new = await broker.executor()
    with pytest.raises(OpenlineError, match="newer connection"):
        await old.next()
    assert await old.call.code() is grpc.StatusCode.ABORTED
    asked = broker.execute()
    await new.run_one(b"x")
    await asked


async def test_two_processes_with_one_executor_id_are_told_of(broker: Any, log_lines: list[dict[str, Any]]) -> None:
    """Each takes the other's place and comes again: one line for all of it, with what to do."""
    for _ in range(5):
        for instance_id in ("instance-1", "instance-2"):
            await broker.executor(instance_id=instance_id)
    await until(lambda: sum("newer connection" in str(line.get("why")) for line in log_lines) == 9)
    [line] = [line for line in log_lines if line["event"] == "executor.id_shared"]
    assert (line["log_level"], line["executor_id"]) == ("warning", "exec-1")
    assert sorted(line["instance_ids"]) == ["instance-1", "instance-2"]


async def test_the_hello_of_a_stream_that_was_given_up_is_refused(broker: Any, frames: Any) -> None:
    """It may be read after that of the process's next stream, on which its commands are."""
    executor = await broker.executor(attempt=2)
    asked = broker.execute()
    name = await executor.begin_one()
    await executor.sync()
    with pytest.raises(OpenlineError, match="a later stream"):
        await broker.dial().hello(attempt=1)
    await executor.send(frames.finished(name, exit_code=3))
    assert (await asked).result.exit_code == 3


async def test_a_replaced_connection_ends_even_if_it_does_not_read(
    broker: Any, frames: Any, log_lines: list[dict[str, Any]]
) -> None:
    """A stream that is half dead is the usual reason for a new one: its writer waits for a peer that is gone."""
    await flooded(broker)
    await broker.executor(instance_id="instance-2")
    await until(lambda: any("newer connection" in str(line.get("why")) for line in log_lines))


async def flooded(broker: Any) -> Any:
    """An executor on whose stream there is far more than the transport takes without being read."""
    commands = 60
    executor = await broker.executor(max_concurrency=commands)
    [connection] = broker.inside.ledger.connections
    pipe = await broker.pipe()
    # Each Execute carries 60 KiB of arguments.
    request = command_service_pb2.ExecuteRequest(cluster_id="prod", argv=["x" * 15_000] * 4, timeout_s=60)
    for call_id in range(1, commands + 1):
        await pipe.send(command_service_pb2.CallerFrame(call_id=call_id, execute=request))
        await executor.send(wire.ExecutorFrame(heartbeat=wire.Heartbeat()))
    async with asyncio.timeout(PATIENCE_S):
        while len(connection.commands) < commands:
            # It is silent only when it has all of them.
            await executor.send(wire.ExecutorFrame(heartbeat=wire.Heartbeat()))
            await asyncio.sleep(0.01)
    return executor


async def test_a_frozen_executor_is_noticed(
    broker: Any, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]
) -> None:
    """It keeps its socket open, and neither reads nor says anything."""
    monkeypatch.setattr(limits, "IDLE_HEARTBEAT_TIMEOUT_S", 0.3)
    await broker.executor()
    await until(lambda: any("no frame for 0.3 s" in str(line.get("why")) for line in log_lines))
    assert (await broker.refused()).reason is Reason.CLUSTER_OFFLINE


async def test_a_frozen_executor_with_a_full_window_is_noticed(
    broker: Any, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]
) -> None:
    """What waits to be written to it does not hold up its end."""
    monkeypatch.setattr(limits, "IDLE_HEARTBEAT_TIMEOUT_S", 1.0)
    await flooded(broker)
    await until(
        lambda: any(line["event"] == "connection.closed" and "no frame for" in line["why"] for line in log_lines)
    )
    assert (await broker.refused()).reason is Reason.CLUSTER_OFFLINE


async def test_a_lost_executor_is_no_defect(broker: Any, log_lines: list[dict[str, Any]]) -> None:
    """A connection that breaks while much is written to it is one line, not a traceback."""
    executor = await flooded(broker)
    executor.call.cancel()
    await until(lambda: any(line["event"] == "connection.closed" for line in log_lines))
    assert [line for line in log_lines if line.get("log_level") == "error"] == []


async def test_an_executor_that_ends_its_stream(broker: Any, log_lines: list[dict[str, Any]]) -> None:
    """One line when a connection opens, one when it closes; both with its ids."""
    executor = await broker.executor()
    await executor.call.done_writing()
    with pytest.raises(EOFError, match="OK"):
        await executor.next()
    await until(lambda: any(line["event"] == "connection.closed" for line in log_lines))
    lines = [line for line in log_lines if line["event"].startswith("connection.")]
    assert [line["event"] for line in lines] == ["connection.opened", "connection.closed"]
    assert all(line["cluster_id"] == "prod" and line["executor_id"] == "exec-1" for line in lines)
    assert lines[1]["why"] == "ended by the executor"


async def test_a_draining_executor_gets_no_more_commands(broker: Any, frames: Any) -> None:
    """What runs is finished."""
    executor = await broker.executor()
    asked = broker.execute()
    execute = await executor.expect("execute")
    await executor.send(wire.ExecutorFrame(draining=wire.Draining()), *frames.ran(execute.command_id))
    await asked
    assert (await broker.refused()).reason is Reason.CLUSTER_OFFLINE


async def test_a_credential_in_band_takes_the_place_of_the_token(broker: Any) -> None:
    """Only if it is the cluster's: otherwise the stream goes by the one before."""
    executor = await broker.executor()
    for token in ("the-second-token-of-prod", "the-token-of-staging", "wrong", ""):
        await executor.send(wire.ExecutorFrame(credential=wire.Credential(token=token)))
    await executor.sync()
    [connection] = broker.inside.ledger.connections
    assert connection.token == digest("the-second-token-of-prod")


# Activity


async def test_the_first_command_is_followed_by_activity(broker: Any, frames: Any) -> None:
    """Behind it, so that it costs the command nothing; then not again for 15 s, however many commands come."""
    executor = await broker.executor()
    asked = broker.execute()
    raw = [frame async for frame in _raw(executor, 2)]
    assert [frame.WhichOneof("frame") for frame in raw] == ["execute", "activity"]
    assert 59 < raw[1].activity.active_for_s <= 60
    await executor.send(*frames.ran(raw[0].execute.command_id))
    await asked
    await executor.expect("result_ack")
    for _ in range(5):
        asked = broker.execute()
        await executor.run_one()
        await asked
        await executor.expect("result_ack")
    await executor.sync()
    assert executor.activities == []


async def _raw(executor: Any, count: int) -> Any:
    """The next frames, also of those kinds that are kept apart."""
    while count > 0:
        for frame in (await executor.call.read()).frames:
            count -= 1
            yield frame


async def test_activity_is_told_again_while_it_lasts(broker: Any, frames: Any, later: Any) -> None:
    """Every 15 s of a cluster in use, and to every executor of the cluster, and of no other."""
    executor = await broker.executor()
    beside = await broker.executor(executor_id="exec-2")
    other = broker.dial(token="the-token-of-staging")
    await other.hello(cluster_id="staging")
    for _ in range(3):
        asked = [broker.execute() for _ in range(2)]
        running = [(one, await one.begin_one()) for one in (executor, beside)]
        for one, name in running:
            await one.send(frames.finished(name))
            await one.expect("result_ack")
        await asyncio.gather(*asked)
        later(broker, 15.0)
    for one in (executor, beside, other):
        await one.sync()
    assert (len(executor.activities), len(beside.activities), len(other.activities)) == (3, 3, 0)


async def test_an_executor_that_comes_while_its_cluster_is_active_is_told(broker: Any) -> None:
    """Asked for while nobody was there: it is wanted, for the rest of the minute. One that nobody asked for is not."""
    assert (await broker.refused()).reason is Reason.CLUSTER_OFFLINE
    asked = broker.execute(wait_for_cluster_s=20)
    await broker.inside.until_called(1)
    for instance_id in ("instance-1", "instance-2"):
        executor = await broker.executor(instance_id=instance_id)
        if instance_id == "instance-1":
            await executor.run_one()
            await executor.expect("result_ack")
        await executor.sync()
        [activity] = executor.activities
        assert 40 < activity.active_for_s < 60
    await asked
    unwanted = broker.dial(token="the-token-of-staging")
    await unwanted.hello(cluster_id="staging")
    await unwanted.sync()
    assert unwanted.activities == []


async def test_the_hello_of_a_killed_process_comes_late(broker: Any) -> None:
    """It is refused, and the process after it keeps its connection and its command."""
    older, newer = (f"0000000{n}-0000-7000-8000-000000000000" for n in (1, 2))
    executor = await broker.executor(instance_id=newer)
    asked = broker.execute()
    late = broker.dial()
    with pytest.raises(OpenlineError):
        await late.hello(instance_id=older)
    assert await late.call.code() is grpc.StatusCode.ABORTED
    await executor.run_one(b"x")
    assert (await asked).result.stdout == b"x"


@pytest.mark.parametrize("last_epoch", [2**64 - 1, 2**60])
async def test_an_executor_that_has_seen_no_such_epoch_is_not_believed(broker: Any, last_epoch: int) -> None:
    """It would leave no higher one for whoever comes after it."""
    executor = await broker.executor(last_epoch=last_epoch)
    assert executor.welcome.epoch < 2**53


async def test_an_epoch_follows_that_of_a_replica_whose_clock_is_ahead(broker: Any) -> None:
    last_epoch = time.time_ns() // 1000 + 3600 * 1_000_000
    first = await broker.executor(last_epoch=last_epoch)
    assert first.welcome.epoch == last_epoch + 1
    # Of this executor only.
    second = await broker.executor(executor_id="exec-2")
    assert second.welcome.epoch < last_epoch


async def test_an_executor_without_end_of_places_is_bounded(broker: Any) -> None:
    await broker.executor(max_concurrency=2**32 - 1)
    [connection] = broker.inside.ledger.connections.of_cluster("prod")
    assert connection.max_concurrency == 4096


async def test_presence_comes_and_goes_with_the_connection(broker: Any, redis: Any) -> None:
    executor = await broker.executor()
    await broker.inside.presence_told()
    [cluster] = await broker.store.clusters.get(["prod"])
    assert [(one.executor_id, one.replica_id) for one in cluster.executors] == [("exec-1", "replica-1")]
    await executor.call.done_writing()
    with pytest.raises(EOFError):
        await executor.next()
    await broker.inside.presence_told()
    [cluster] = await broker.store.clusters.get(["prod"])
    assert list(cluster.executors) == []
    assert cluster.HasField("last_seen")
