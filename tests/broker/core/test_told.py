"""What an executor says of the end of a command."""

import math

import pytest

from broker.core.told import duration, is_end, told
from openline import errors
from openline.reasons import NO, UNKNOWN, YES, Reason
from openline.v1 import command_pb2


def test_every_outcome_but_the_unspecified_is_an_end() -> None:
    """An outcome that is added to the contract has to be thought of here."""
    ends = {outcome for outcome in command_pb2.Outcome.values() if is_end(outcome)}
    assert ends == set(command_pb2.Outcome.values()) - {command_pb2.OUTCOME_UNSPECIFIED}
    assert not is_end(99)


@pytest.mark.parametrize("said_s", [math.nan, math.inf, -math.inf, -0.001])
def test_a_duration_that_is_none_is_zero(said_s: float) -> None:
    assert duration(said_s) == 0.0
    assert duration(1.5) == 1.5


def test_what_is_well_said_is_passed_on() -> None:
    said = errors.error(
        Reason.POLICY_DENIED,
        "no `delete` here",
        executed=NO,
        retry_after_s=2.0,
        metadata={"rule": "verbs"},
        violations=[("argv[0]", "not allowed")],
    )
    assert told(said, command_pb2.OUTCOME_REJECTED) == said


def test_an_executor_ends_nothing_in_other_clusters() -> None:
    """What more was cancelled with a command is for the broker to say."""
    said = errors.error(Reason.CANCELLED, "x", metadata={errors.CANCELLED_WITH: "owner", "rule": "r"})
    assert dict(told(said, command_pb2.OUTCOME_CANCELLED).metadata) == {"rule": "r"}


@pytest.mark.parametrize("reason", ["", "NEVER_HEARD_OF", "x" * 1_000_000])
def test_a_reason_that_is_not_of_the_table_is_the_usual_one(reason: str) -> None:
    """`executed` is then that reason's own, and a sentence is always there."""
    error = told(command_pb2.Error(reason=reason), command_pb2.OUTCOME_LOST)
    assert (error.reason, error.executed) == (Reason.EXECUTOR_LOST, UNKNOWN)
    assert error.message == "the executor gave no reason"


@pytest.mark.parametrize(
    "reason",
    [Reason.UNAUTHENTICATED, Reason.SCOPE_MISSING, Reason.BROKER_UNAVAILABLE, Reason.CLUSTER_OFFLINE, Reason.INTERNAL],
)
def test_a_reason_that_is_not_for_executors_to_give_is_the_usual_one(reason: Reason) -> None:
    """Of keys, replicas and Redis: callers and replicas act on these for more than this command."""
    error = told(errors.error(reason, "x", executed=NO), command_pb2.OUTCOME_REJECTED)
    assert (error.reason, error.message) == (Reason.EXECUTOR_FAILED, "x")


def test_whether_it_was_executed_is_the_executors_to_say() -> None:
    for executed in (NO, YES, UNKNOWN):
        error = told(errors.error(Reason.CANCELLED, "x", executed=executed), command_pb2.OUTCOME_CANCELLED)
        assert error.executed == executed


@pytest.mark.parametrize("said_s", [math.nan, math.inf, -5.0, 1e300])
def test_when_to_ask_again_is_within_reason(said_s: float) -> None:
    error = told(command_pb2.Error(retry_after_s=said_s), command_pb2.OUTCOME_REJECTED)
    assert 0.0 <= error.retry_after_s <= 3600.0


def test_a_novel_is_cut_everywhere() -> None:
    """Message, metadata and violations: together they fit where statuses travel."""
    said = command_pb2.Error(
        reason=Reason.POLICY_DENIED,
        message="ä" * 100_000,
        metadata={"a": "short", "b" * 5000: "", "c": "x" * 100_000},
        violations=[command_pb2.FieldViolation(field="f" * 9999, description="d" * 9999)] * 1000,
    )
    error = told(said, command_pb2.OUTCOME_REJECTED)
    assert error.ByteSize() < 8192
    assert error.metadata == {"a": "short"}
    assert len(error.violations) == 10
