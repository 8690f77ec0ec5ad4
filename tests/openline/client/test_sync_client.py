"""Client against fake channels: what goes out, how answers and refusals are read, whom it asks and for how long."""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from openline.client import (
    BrokerUnavailable,
    Cancelled,
    ClusterOffline,
    CommandState,
    CommandTimeout,
    Gap,
    InvalidCommand,
    OpenlineError,
    Output,
    Result,
    SessionUnknown,
    lines,
    sync_client,
)
from openline.client.errors import CLASSES
from openline.errors import CANCELLED_WITH
from openline.reasons import NO, UNKNOWN, Reason
from openline.v1 import cluster_service_pb2, command_pb2, session_service_pb2
from openline.v1 import command_service_pb2 as pb

pytestmark = pytest.mark.timeout(30)

MakeStage = Callable[..., Any]


def exited(stdout: bytes = b"", **fields: Any) -> command_pb2.CommandResult:
    return command_pb2.CommandResult(outcome=command_pb2.OUTCOME_EXITED, stdout=stdout, **fields)


def answered(stdout: bytes = b"") -> pb.ExecuteResponse:
    return pb.ExecuteResponse(result=exited(stdout))


def output(seq: int, data: bytes) -> command_pb2.Output:
    return command_pb2.Output(command_id="told", seq=seq, source=command_pb2.OUTPUT_SOURCE_STDOUT, data=data)


def failure_of(call: Any) -> OpenlineError:
    with pytest.raises(OpenlineError) as caught:
        call.result(20)
    return caught.value


def test_execute_asks_once_and_reads_the_result(stage: MakeStage) -> None:
    """With the key as a bearer token, and no longer than the command may take and a little."""
    s = stage(timeout_s=5)
    call = s.call(s.client.execute, "prod", "get", "pods", wait_for_cluster_s=2)
    asked = s.take("Execute")
    assert ("authorization", "Bearer the-key") in [tuple(pair) for pair in asked.metadata]
    assert (asked.request.cluster_id, list(asked.request.argv)) == ("prod", ["get", "pods"])
    assert (asked.request.timeout_s, asked.request.wait_for_cluster_s) == (
        pytest.approx(5, abs=0.5),
        pytest.approx(2, abs=0.5),
    )
    assert not asked.request.attach
    asked.answer(pb.ExecuteResponse(result=exited(b"pod-1"), replayed=True))
    result = call.result(20)
    assert (result.text, result.exit_code, result.replayed) == ("pod-1", 0, True)
    assert (result.command_id, result.cluster_id) == (asked.request.command_id, "prod")
    assert s.channels[0].timeouts["Execute"] == [pytest.approx(8.6, abs=0.5)]


def test_what_cannot_be_meant_is_not_sent(stage: MakeStage) -> None:
    """It is told at once."""
    s = stage()
    with pytest.raises(InvalidCommand):
        s.client.execute("prod")
    assert s.channels[0].timeouts == {}


def test_a_command_is_looked_up_and_waited_for(stage: MakeStage) -> None:
    """A broker waits a minute at most, so it is asked until the command is done."""
    s = stage()
    call = s.call(s.client.get, "the-id", wait_s=100)
    first = s.take("GetCommand")
    assert (first.request.command_id, first.request.wait_s) == ("the-id", 60)
    first.answer(pb.GetCommandResponse(command=command_pb2.Command(command_id="the-id")))
    second = s.take("GetCommand")
    assert second.request.wait_s == 60
    second.answer(pb.GetCommandResponse(command=command_pb2.Command(command_id="the-id", result=exited(b"x"))))
    command = call.result(20)
    assert (command.done, command.result.text) == (True, "x")
    assert s.channels[0].timeouts["GetCommand"] == [pytest.approx(63, abs=0.5)] * 2


def test_a_look_without_a_wait_is_one_look(stage: MakeStage) -> None:
    """Also when the command still runs."""
    s = stage()
    call = s.call(s.client.get, "the-id")
    running = command_pb2.Command(command_id="the-id", state=command_pb2.COMMAND_STATE_RUNNING)
    s.take("GetCommand").answer(pb.GetCommandResponse(command=running))
    assert call.result(20).state is CommandState.RUNNING


def test_cancel_says_the_state_it_found(stage: MakeStage) -> None:
    """And passes on why."""
    s = stage()
    call = s.call(s.client.cancel, "the-id", why="enough")
    asked = s.take("CancelCommand")
    assert (asked.request.command_id, asked.request.why) == ("the-id", "enough")
    asked.answer(pb.CancelCommandResponse(state=command_pb2.COMMAND_STATE_RUNNING))
    assert call.result(20) is CommandState.RUNNING


def test_clusters_are_all_pages(stage: MakeStage) -> None:
    """One after the other."""
    s = stage()
    call = s.call(s.client.clusters)
    pages = [(["a", "b"], "b"), (["c"], "")]
    for ids, token in pages:
        asked = s.take("ListClusters")
        clusters = [cluster_service_pb2.Cluster(cluster_id=name, connected=name == "a") for name in ids]
        asked.answer(cluster_service_pb2.ListClustersResponse(clusters=clusters, next_page_token=token))
    assert asked.request.page_token == "b"
    assert [(c.cluster_id, c.connected) for c in call.result(20)] == [("a", True), ("b", False), ("c", False)]


def test_a_session_is_made_used_and_ended(stage: MakeStage) -> None:
    """Its id goes along with its commands. One that has expired meanwhile is no error."""
    s = stage()

    def use() -> tuple[str, str]:
        with s.client.session("prod", ttl_s=90, user_id="u", correlation_id="t") as session:
            return session.session_id, session.execute("get", "pods").text

    call = s.call(use)
    made = s.take("CreateSession")
    assert (made.request.cluster_id, made.request.ttl_s) == ("prod", 90)
    assert (made.request.user_id, made.request.correlation_id) == ("u", "t")
    session = session_service_pb2.Session(session_id="s1", cluster_id="prod")
    made.answer(session_service_pb2.CreateSessionResponse(session=session))
    asked = s.take("Execute")
    assert (asked.request.session_id, asked.request.cluster_id) == ("s1", "prod")
    asked.answer(answered(b"x"))
    ended = s.take("DeleteSession")
    assert ended.request.session_id == "s1"
    ended.refuse(Reason.SESSION_UNKNOWN)
    assert call.result(20) == ("s1", "x")


def test_a_kept_session_is_not_ended(stage: MakeStage) -> None:
    """It expires by itself, and its id can be used with any client."""
    s = stage()

    def use() -> str:
        with s.client.session("prod", keep=True) as session:
            return str(session.session_id)

    call = s.call(use)
    session = session_service_pb2.Session(session_id="s1")
    s.take("CreateSession").answer(session_service_pb2.CreateSessionResponse(session=session))
    assert call.result(20) == "s1"
    assert "DeleteSession" not in s.channels[0].timeouts


def test_a_session_that_cannot_be_made_says_why(stage: MakeStage) -> None:
    """In the class of its reason."""
    s = stage()
    call = s.call(s.client.session("prod").__enter__)
    s.take("CreateSession").refuse(Reason.CLUSTER_UNKNOWN)
    assert type(failure_of(call)) is CLASSES[Reason.CLUSTER_UNKNOWN]


@pytest.mark.parametrize("reason", sorted(set(Reason) - {Reason.BROKER_UNAVAILABLE}))
def test_every_refusal_is_final_and_in_its_class(stage: MakeStage, reason: Reason) -> None:
    """With all that the rich status says. No other replica is asked."""
    s = stage(replicas=2)
    call = s.call(s.client.execute, "prod", "get")
    asked = s.take("Execute")
    asked.refuse(reason, retry_after_s=1.5, metadata={"rule": "r"}, executed=NO, violations=[("f", "wrong")])
    failure = failure_of(call)
    assert type(failure) is CLASSES[reason]
    assert (failure.reason, failure.executed, failure.retry_after_s) == (reason, "no", 1.5)
    assert (failure.metadata["rule"], failure.command_id) == ("r", asked.request.command_id)
    assert isinstance(failure.__cause__, grpc.RpcError)
    assert s.channels[1].timeouts == {}


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("GetCommand", lambda client: client.get("the-id")),
        ("CancelCommand", lambda client: client.cancel("the-id")),
        ("ListClusters", lambda client: client.clusters()),
        ("CreateSession", lambda client: client.session("prod").__enter__()),
        ("ExecuteStream", lambda client: list(client.stream("prod", "get"))),
        ("WatchCommand", lambda client: list(client.watch("the-id"))),
    ],
)
def test_the_other_methods_refuse_alike_and_ask_the_next_alike(stage: MakeStage, method: str, call: Any) -> None:
    """A replica that breaks off is followed by the next one, and what that one says is final."""
    s = stage(replicas=2)
    running = s.call(call, s.client)
    first = s.take(method)
    assert ("authorization", "Bearer the-key") in [tuple(pair) for pair in first.metadata]
    first.break_off()
    # A stream that may have left is attached to rather than asked for anew.
    s.take("WatchCommand" if method == "ExecuteStream" else method, 1).refuse(Reason.UNAUTHENTICATED)
    assert type(failure_of(running)) is CLASSES[Reason.UNAUTHENTICATED]


def test_what_could_not_leave_goes_to_the_next_as_it_was(stage: MakeStage) -> None:
    """Surely not run: nothing to attach to."""
    s = stage(replicas=2)
    s.channels[0].is_reachable = False
    call = s.call(s.client.execute, "prod", "get")
    asked = s.take("Execute", 1)
    assert not asked.request.attach
    asked.answer(answered(b"x"))
    assert call.result(20).text == "x"
    assert s.channels[0].timeouts == {}


def test_what_may_have_left_is_attached_to(stage: MakeStage) -> None:
    """The same command on the next replica, with what is left of its time; and on all that follow."""
    s = stage(replicas=3, timeout_s=5)
    call = s.call(s.client.execute, "prod", "get")
    first = s.take("Execute", 0)
    time.sleep(0.3)
    first.break_off()
    second = s.take("Execute", 1)
    second.refuse(Reason.BROKER_UNAVAILABLE, executed=NO)
    third = s.take("Execute", 2)
    assert {asked.request.command_id for asked in (first, second, third)} == {first.request.command_id}
    assert [asked.request.attach for asked in (first, second, third)] == [False, True, True]
    assert second.request.timeout_s < 4.8
    assert s.channels[1].timeouts["Execute"][0] < 6.4
    third.answer(answered(b"x"))
    assert call.result(20).text == "x"


def test_a_replica_that_surely_did_not_run_it_is_followed_by_the_next(stage: MakeStage) -> None:
    """It says so, and the next one is asked as the first one was."""
    s = stage(replicas=2)
    call = s.call(s.client.execute, "prod", "get")
    s.take("Execute", 0).refuse(Reason.BROKER_UNAVAILABLE, executed=NO)
    asked = s.take("Execute", 1)
    assert not asked.request.attach
    asked.answer(answered())
    assert call.result(20).ok


def test_what_a_replica_says_unseen_leaves_unknown_what_is_unknown(stage: MakeStage) -> None:
    """The first one may have run it, whatever the second thinks of the key."""
    s = stage(replicas=2)
    call = s.call(s.client.execute, "prod", "get")
    s.take("Execute", 0).break_off()
    s.take("Execute", 1).refuse(Reason.UNAUTHENTICATED)
    assert failure_of(call).executed == "unknown"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The client's clock: each look finds a second more, so that time is up after as many of them on any machine."""
    looks = itertools.count()
    for module in (lines, sync_client):
        monkeypatch.setattr(module, "monotonic", lambda: next(looks))
    return looks


def test_nobody_reached_in_time_means_not_run(stage: MakeStage, looks: Iterator[int]) -> None:
    """Told when the command's own time is up, after all have been tried again and again."""
    s = stage(replicas=2, timeout_s=12)
    for channel in s.channels:
        channel.is_reachable = False
    failure = failure_of(s.call(s.client.execute, "prod", "get"))
    assert next(looks) - 12 in range(4)
    assert (type(failure), failure.executed, bool(failure.command_id)) == (BrokerUnavailable, "no", True)
    assert all(channel.knocks > 1 for channel in s.channels)


@pytest.mark.usefixtures("looks")
def test_nobody_heard_of_in_time_means_unknown(stage: MakeStage) -> None:
    """It had left. The command can be looked for by its id."""
    s = stage(replicas=1, timeout_s=6)
    call = s.call(s.client.execute, "prod", "get")
    asked = s.take("Execute")
    s.channels[0].is_reachable = False
    asked.break_off()
    failure = failure_of(call)
    assert (type(failure), failure.executed) == (BrokerUnavailable, "unknown")
    assert failure.command_id == asked.request.command_id


def test_a_replica_that_is_back_is_asked_again(stage: MakeStage) -> None:
    """Within the deadline."""
    s = stage()
    s.channels[0].is_reachable = False
    call = s.call(s.client.execute, "prod", "get")
    while s.channels[0].knocks < 2:
        time.sleep(0.01)
    s.channels[0].is_reachable = True
    s.take("Execute").answer(answered(b"x"))
    assert call.result(20).text == "x"


def test_the_replica_that_answered_is_preferred(stage: MakeStage) -> None:
    """Until it breaks off: one that does not answer is not tried first, call after call."""
    s = stage(replicas=2)
    s.channels[0].is_reachable = False
    for _ in range(3):
        call = s.call(s.client.execute, "prod", "get")
        s.take("Execute", 1).answer(answered())
        assert call.result(20).ok
    assert (s.channels[0].knocks, s.channels[1].knocks) == (1, 1)


def test_output_that_did_not_fit_into_the_status_is_fetched(stage: MakeStage) -> None:
    """A status is small. Where it cannot be had, the failure is what it was."""
    s = stage()
    call = s.call(s.client.execute, "prod", "get")
    s.take("Execute").refuse(Reason.COMMAND_TIMEOUT, metadata={"command_id": "told"})
    look = s.take("GetCommand")
    assert look.request.command_id == "told"
    ended = command_pb2.CommandResult(outcome=command_pb2.OUTCOME_TIMED_OUT, stdout=b"much")
    look.answer(pb.GetCommandResponse(command=command_pb2.Command(command_id="told", result=ended)))
    failure = failure_of(call)
    assert isinstance(failure, CommandTimeout)
    assert failure.text == "much"

    call = s.call(s.client.execute, "prod", "get")
    s.take("Execute").refuse(Reason.COMMAND_TIMEOUT)
    s.take("GetCommand").refuse(Reason.SCOPE_MISSING)
    failure = failure_of(call)
    assert (type(failure), failure.text if isinstance(failure, CommandTimeout) else None) == (CommandTimeout, "")


def test_output_in_the_status_is_not_fetched(stage: MakeStage) -> None:
    """It is there."""
    s = stage()
    call = s.call(s.client.execute, "prod", "get")
    ended = command_pb2.CommandResult(command_id="told", outcome=command_pb2.OUTCOME_TIMED_OUT, stdout=b"so far")
    s.take("Execute").refuse(Reason.COMMAND_TIMEOUT, result=ended)
    failure = failure_of(call)
    assert isinstance(failure, CommandTimeout)
    assert (failure.text, failure.command_id) == ("so far", "told")
    assert "GetCommand" not in s.channels[0].timeouts


def test_events_come_and_the_result_is_the_last(stage: MakeStage) -> None:
    """As they are sent, not when all are there."""
    s = stage(timeout_s=5)
    events = s.client.stream("prod", "logs", "-f", "web")
    first = s.call(next, events)
    asked = s.take("ExecuteStream")
    assert list(asked.request.execute.argv) == ["logs", "-f", "web"]
    asked.event(output=output(0, b"one"))
    assert first.result(20) == Output("told", 0, "stdout", b"one", "one")
    rest = s.call(list, events)
    asked.event(result=exited(b"one"))
    asked.end()
    [result] = rest.result(20)
    assert isinstance(result, Result)
    assert result.text == "one"


def test_a_stream_that_breaks_is_attached_to_from_where_it_was(stage: MakeStage) -> None:
    """On the next replica, which may begin behind: then the caller is shown a gap. Nothing is run again."""
    s = stage(replicas=2)
    events = s.client.stream("prod", "logs", "-f", "web")
    first = s.call(next, events)
    asked = s.take("ExecuteStream", 0)
    asked.event(output=output(0, b"one"))
    assert first.result(20).text == "one"
    call = s.call(list, events)
    asked.break_off()
    again = s.take("WatchCommand", 1)
    assert (again.request.command_id, again.request.from_seq) == ("told", 1)
    again.event(output=output(3, b"four"))
    again.event(result=exited())
    again.end()
    seen = call.result(20)
    assert [type(event) for event in seen] == [Gap, Output, Result]
    assert seen[0].next_seq == 3


def test_a_stream_that_could_not_leave_is_asked_for_again(stage: MakeStage) -> None:
    """And not attached to."""
    s = stage(replicas=2)
    s.channels[0].is_reachable = False
    call = s.call(list, s.client.stream("prod", "logs"))
    asked = s.take("ExecuteStream", 1)
    assert not asked.request.execute.attach
    asked.event(result=exited())
    asked.end()
    assert len(call.result(20)) == 1


def test_a_stream_that_ends_without_an_exit_code_raises(stage: MakeStage) -> None:
    """After all output, with what was kept of it."""
    s = stage()
    events = s.client.stream("prod", "logs")
    first = s.call(next, events)
    asked = s.take("ExecuteStream")
    asked.event(output=output(0, b"one"))
    first.result(20)
    ended = command_pb2.CommandResult(
        outcome=command_pb2.OUTCOME_TIMED_OUT,
        stdout=b"one",
        error=command_pb2.Error(reason=Reason.COMMAND_TIMEOUT, message="late"),
    )
    asked.event(result=ended)
    asked.end()
    failure = failure_of(s.call(next, events))
    assert isinstance(failure, CommandTimeout)
    assert failure.text == "one"


def test_a_stream_that_is_left_is_cancelled(stage: MakeStage) -> None:
    """So that the broker knows that nobody reads any more."""
    s = stage()
    events = s.client.stream("prod", "logs")
    first = s.call(next, events)
    asked = s.take("ExecuteStream")
    asked.event(output=output(0, b"one"))
    first.result(20)
    events.close()
    asked.rpc.cancelled()


def test_watching_begins_where_it_is_told(stage: MakeStage) -> None:
    """With the command's id."""
    s = stage()
    call = s.call(list, s.client.watch("the-id", from_seq=7, timeout_s=9))
    asked = s.take("WatchCommand")
    assert (asked.request.command_id, asked.request.from_seq) == ("the-id", 7)
    asked.event(result=exited())
    asked.end()
    assert len(call.result(20)) == 1
    assert s.channels[0].timeouts["WatchCommand"] == [pytest.approx(9, abs=0.5)]


def test_many_clusters_are_asked_at_once(stage: MakeStage) -> None:
    """Each gets its own answer, whatever becomes of the others."""
    s = stage()
    call = s.call(s.client.fan_out, ["a", "b", "c"], "get", "nodes", idempotency_key="once")
    for asked in [s.take("Execute") for _ in range(3)]:
        assert asked.request.idempotency_key == f"once/{asked.request.cluster_id}"
        if asked.request.cluster_id == "b":
            asked.refuse(Reason.CLUSTER_OFFLINE)
        else:
            asked.answer(answered(b"same"))
    answers = call.result(20)
    assert [group.cluster_ids for group in answers.groups()] == [("a", "c"), ("b",)]
    assert isinstance(answers["b"], ClusterOffline)


def test_a_kill_switch_ends_a_fan_out(stage: MakeStage) -> None:
    """One cancel means that command alone; a kill switch what has not begun as well."""
    s = stage()
    call = s.call(s.client.fan_out, ["a", "b", "c", "d"], "get", "nodes", concurrency=1)
    s.take("Execute").refuse(Reason.CANCELLED, executed=NO)
    s.take("Execute").refuse(Reason.CANCELLED, executed=NO, metadata={CANCELLED_WITH: "owner"})
    answers = call.result(20)
    assert [type(answer) for answer in answers.values()] == [Cancelled] * 4
    assert [answers[each].executed for each in "cd"] == ["no", "no"]


def test_one_client_serves_many_threads(stage: MakeStage) -> None:
    """Each gets its own answer."""
    s = stage()
    with ThreadPoolExecutor(16) as threads:
        calls = {n: threads.submit(s.client.execute, "prod", "get", str(n)) for n in range(16)}
        for _ in calls:
            asked = s.take("Execute")
            asked.answer(answered(asked.request.argv[1].encode()))
        assert {n: int(call.result(20).text) for n, call in calls.items()} == {n: n for n in calls}


def test_a_closed_client_asks_nobody(stage: MakeStage) -> None:
    """Whoever waits for a replica is told, as is whoever comes later; channels are closed with it."""
    s = stage(timeout_s=20)
    s.channels[0].is_reachable = False
    with s.client:
        call = s.call(s.client.execute, "prod", "get")
        while not s.channels[0].knocks:
            time.sleep(0.01)
    begun = time.monotonic()
    assert failure_of(call).executed == "no"
    assert time.monotonic() - begun < 5
    assert s.channels[0].is_closed
    with pytest.raises(BrokerUnavailable):
        s.client.execute("prod", "get")
    with pytest.raises(BrokerUnavailable):
        s.client.clusters()


def test_looks_take_turns_while_there_is_time(stage: MakeStage) -> None:
    """A replica that may be frozen leaves time for another one."""
    s = stage(replicas=2)
    call = s.call(s.client.clusters)
    s.take("ListClusters", 0).break_off()
    s.take("ListClusters", 1).answer(cluster_service_pb2.ListClustersResponse())
    assert call.result(20) == []
    assert s.channels[0].timeouts["ListClusters"] == [pytest.approx(1.5, abs=0.3)]


def test_a_session_error_inside_goes_through(stage: MakeStage) -> None:
    """The session is ended all the same, and its end does not hide what happened."""
    s = stage()

    def use() -> None:
        with s.client.session("prod") as session:
            session.execute("get", "pods")

    call = s.call(use)
    session = session_service_pb2.Session(session_id="s1")
    s.take("CreateSession").answer(session_service_pb2.CreateSessionResponse(session=session))
    s.take("Execute").refuse(Reason.SESSION_UNKNOWN, executed=UNKNOWN)
    s.take("DeleteSession").refuse(Reason.STORE_UNAVAILABLE)
    assert type(failure_of(call)) is SessionUnknown
