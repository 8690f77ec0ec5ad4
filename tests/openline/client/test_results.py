"""What brokers answer, as callers see it."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from openline.client import (
    CommandFailed,
    CommandState,
    CommandTimeout,
    Gap,
    Internal,
    Outcome,
    Output,
    Result,
    Source,
    State,
)
from openline.client.conversations import Reading
from openline.client.events import EventReader
from openline.client.kinds import OUTCOMES, STATES
from openline.client.results import read_answer, read_command, read_result
from openline.errors import OpenlineError, error
from openline.reasons import Reason
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ExecuteRequest, ExecuteResponse, ListCommandsResponse

ASKED = ExecuteRequest(command_id="asked", cluster_id="prod")


def exited(**fields: object) -> command_pb2.CommandResult:
    return command_pb2.CommandResult(outcome=command_pb2.OUTCOME_EXITED, **fields)  # type: ignore[arg-type]


def test_every_state_and_outcome_of_the_contract_has_a_name() -> None:
    """But for the unspecified ones."""
    assert set(OUTCOMES) == set(command_pb2.Outcome.values()) - {0}
    assert set(STATES) == set(command_pb2.CommandState.values()) - {0}
    assert (set(OUTCOMES.values()), set(STATES.values())) == (set(Outcome), set(CommandState))


def test_a_result_has_all_that_the_broker_says() -> None:
    """With exact counts of what was cut, and where the time went."""
    summary = command_pb2.OutputSummary(total_bytes=100, total_lines=9, cut_bytes=90, cut_lines=8)
    timings = command_pb2.Timings(queue_s=1, route_s=2, deliver_s=3, run_s=4, return_s=5, total_s=15)
    answered = exited(
        command_id="c",
        cluster_id="prod",
        executor_id="e",
        session_id="s",
        correlation_id="t",
        exit_code=3,
        stdout=b"out\xff",
        stderr=b"err",
        stdout_summary=summary,
        timings=timings,
        observed_at=Timestamp(seconds=5),
    )
    result = read_answer(ExecuteResponse(result=answered, replayed=True, degraded=True), ASKED)
    assert (result.command_id, result.cluster_id, result.executor_id) == ("c", "prod", "e")
    assert (result.session_id, result.correlation_id, result.outcome, result.exit_code) == ("s", "t", "exited", 3)
    assert (result.stdout, result.text, result.stderr, result.ok) == (b"out\xff", "out�", b"err", False)
    assert (result.stdout_summary.cut_bytes, result.stdout_summary.cut_lines, result.truncated) == (90, 8, True)
    assert (result.stderr_summary.total_bytes, result.timings.run_s, result.timings.total_s) == (0, 4, 15)
    assert result.observed_at is not None
    assert (result.observed_at.timestamp(), result.created_at) == (5, None)
    assert (result.replayed, result.degraded, result.error) == (True, True, None)
    assert str(result) == "exit code 3, 100 bytes of stdout, 0 of stderr"


def test_check_raises_for_a_command_that_failed() -> None:
    """With the first line it complained in; and gives the result of one that did not."""
    good = read_result(exited(), ASKED)
    assert good.check() is good
    bad = read_result(exited(exit_code=1, stderr=b"no such pod\nmore"), ASKED)
    with pytest.raises(CommandFailed, match=r"^exit code 1: no such pod$") as caught:
        bad.check()
    assert caught.value.result is bad


def test_a_result_without_an_exit_code_says_why() -> None:
    """Found by its id it is a result; as the answer of a call it is raised."""
    ended = command_pb2.CommandResult(
        outcome=command_pb2.OUTCOME_TIMED_OUT, stdout=b"so far", error=error(Reason.COMMAND_TIMEOUT, "late")
    )
    result = read_result(ended, ASKED)
    assert (result.outcome, result.exit_code, result.ok) == (Outcome.TIMED_OUT, None, False)
    assert str(result) == "timed_out, 0 bytes of stdout, 0 of stderr"
    with pytest.raises(CommandTimeout) as checked:
        result.check()
    with pytest.raises(CommandTimeout) as answered:
        read_answer(ExecuteResponse(result=ended), ASKED)
    assert {(e.value.text, e.value.command_id) for e in (checked, answered)} == {("so far", "asked")}


def test_a_result_without_an_outcome_is_a_defect_and_no_success() -> None:
    """Whatever its exit code seems to be."""
    with pytest.raises(Internal):
        read_answer(ExecuteResponse(result=command_pb2.CommandResult(exit_code=0)), ASKED)


def test_a_command_is_found_running_or_done() -> None:
    """Done it has its result."""
    running = read_command(command_pb2.Command(command_id="c", state=command_pb2.COMMAND_STATE_RUNNING, argv=["get"]))
    assert (running.state, running.done, running.result, running.argv) == ("running", False, None, ("get",))
    done = read_command(command_pb2.Command(command_id="c", cluster_id="prod", result=exited()))
    assert (done.state, done.done) == ("done", True)
    assert done.result is not None
    assert (done.result.command_id, done.result.cluster_id) == ("c", "prod")


def test_events_are_read_in_order() -> None:
    """Under the command's own id once it is told; a piece of text ends between characters."""
    reader = EventReader(ASKED)

    def output(seq: int, data: bytes, source: command_pb2.OutputSource.ValueType = 1) -> command_pb2.CommandEvent:
        return command_pb2.CommandEvent(output=command_pb2.Output(command_id="told", seq=seq, source=source, data=data))

    stderr = command_pb2.OUTPUT_SOURCE_STDERR
    sent = [
        command_pb2.CommandEvent(state=command_pb2.COMMAND_STATE_RUNNING),
        output(0, b"tw\xc3"),
        output(1, b"oh", stderr),
        output(2, b"\xb6"),
        output(3, b"\xc3"),
        command_pb2.CommandEvent(gap=command_pb2.OutputGap(next_seq=6, missed_bytes=20)),
        output(6, b"\xb6end"),
        command_pb2.CommandEvent(result=exited(command_id="told")),
    ]
    seen = [reader.read(event) for event in sent]
    assert seen[:-1] == [
        State("asked", CommandState.RUNNING),
        Output("told", 0, Source.STDOUT, b"tw\xc3", "tw"),
        Output("told", 1, Source.STDERR, b"oh", "oh"),
        Output("told", 2, Source.STDOUT, b"\xb6", "ö"),
        Output("told", 3, Source.STDOUT, b"\xc3", ""),
        Gap("told", 6, 20),
        Output("told", 6, Source.STDOUT, b"\xb6end", "�end"),
    ]
    assert isinstance(seen[-1], Result)
    assert reader.read(command_pb2.CommandEvent()) is None, "of a newer version"


def test_a_broker_of_before_is_not_believed_to_have_the_order() -> None:
    """It has the newest first whatever is asked, and does not say."""
    page = ListCommandsResponse(commands=[command_pb2.Command(command_id="x")])
    assert not Reading({}).take(page)
    with pytest.raises(OpenlineError) as refused:
        Reading({"oldest_first": True}).take(page)
    assert refused.value.reason is Reason.NOT_BUILT


def test_a_list_is_read_until_there_is_enough() -> None:
    page = ListCommandsResponse(commands=[command_pb2.Command(command_id=name) for name in "ab"], next_page_token="b")
    reading = Reading({"limit": 3})
    assert reading.take(page)
    assert reading.request.page_token == "b"
    assert not reading.take(page)
    assert [command.command_id for command in reading.commands] == ["a", "b", "a"]
