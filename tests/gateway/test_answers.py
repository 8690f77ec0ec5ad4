"""Answers of a broker that the real one does not give on demand."""

import math
from typing import Any

import pytest

from gateway.answers import execute_answer, stopped_early
from gateway.audit import audit_entry
from gateway.models import ExecuteAnswer
from openline.channels import LONGEST_CALL_S
from openline.errors import OpenlineError, error
from openline.reasons import Reason
from openline.v1 import command_pb2
from openline.v1.admin_service_pb2 import AuditEntry
from openline.v1.command_service_pb2 import ExecuteRequest

REQUEST = ExecuteRequest(cluster_id="local", command_id="c-1")


def answer(**fields: Any) -> ExecuteAnswer:
    return execute_answer(command_pb2.CommandResult(**fields), REQUEST)


def test_an_answer_without_an_outcome_is_not_a_success() -> None:
    """A broker that answers nothing is a defect, not an empty output."""
    with pytest.raises(OpenlineError) as caught:
        answer()
    assert caught.value.reason is Reason.INTERNAL


@pytest.mark.parametrize("outcome", [command_pb2.OUTCOME_LOST, command_pb2.OUTCOME_REJECTED])
def test_what_did_not_end_by_itself_is_an_error(outcome: command_pb2.Outcome.ValueType) -> None:
    """Lost and rejected commands are raised with the error that their result has."""
    why = error(Reason.EXECUTOR_LOST, "gone")
    with pytest.raises(OpenlineError) as caught:
        answer(outcome=outcome, error=why)
    assert caught.value.error == why


def test_cancelled_is_an_answer() -> None:
    """With the output so far and no exit code."""
    told = answer(
        outcome=command_pb2.OUTCOME_CANCELLED, stdout=b"so far", error=error(Reason.CANCELLED, "by its owner")
    )
    assert (told.status, told.output, told.error, told.exit_code) == ("cancelled", "so far", "by its owner", None)


def test_a_timeout_before_anything_ran_has_the_same_shape() -> None:
    """COMMAND_TIMEOUT as an error frame becomes a result without output; any other error stays one."""
    result = stopped_early(OpenlineError(error(Reason.COMMAND_TIMEOUT, "waited in vain")))
    told = execute_answer(result, REQUEST)
    assert (told.status, told.output, told.command_id) == ("timeout", "", "c-1")
    with pytest.raises(OpenlineError):
        stopped_early(OpenlineError(error(Reason.CLUSTER_BUSY, "later")))


def test_cut_output_is_said() -> None:
    """truncated and total_bytes tell what was left out, on either stream."""
    told = answer(
        outcome=command_pb2.OUTCOME_EXITED,
        stdout=b"abc",
        stdout_summary=command_pb2.OutputSummary(total_bytes=3),
        stderr_summary=command_pb2.OutputSummary(total_bytes=100, cut_bytes=90),
    )
    assert (told.truncated, told.total_bytes) == (True, 103)


@pytest.mark.parametrize(
    ("bounded", "truncated"),
    [
        ([], False),
        (["--tail=20"], True),
        (["--limit-bytes=100"], True),
        (["--limit-bytes=101", "--tail=21"], False),
        (["--chunk-size=5", "--timeout=9s", "--tail", "--tail=²", "=", ""], False),
    ],
    ids=range(5),
)
def test_a_log_that_is_as_long_as_it_may_be_is_called_cut(bounded: list[str], truncated: bool) -> None:
    """There may be more of it; that it was bounded is said in any case."""
    told = answer(
        outcome=command_pb2.OUTCOME_EXITED,
        stdout_summary=command_pb2.OutputSummary(total_bytes=100, total_lines=20),
        bounded=bounded,
    )
    assert (told.truncated, told.bounded) == (truncated, bounded)


@pytest.mark.parametrize("said_s", [1e308, math.inf, math.nan, -1.0])
def test_a_duration_that_cannot_be_is_shown_within_bounds(said_s: float) -> None:
    """What brokers of before have stored, in results and in the audit trail, is as executors said it."""
    timings = command_pb2.Timings(queue_s=said_s, run_s=said_s, total_s=said_s)
    shown = answer(outcome=command_pb2.OUTCOME_EXITED, timings=timings)
    entry = audit_entry(AuditEntry(action="execute", timings=timings))
    listed = [shown.execution_time_ms, shown.timings.queue_ms, shown.timings.total_ms, entry.execution_time_ms]
    assert all(each is not None and 0 <= each <= LONGEST_CALL_S * 1000 for each in listed)
