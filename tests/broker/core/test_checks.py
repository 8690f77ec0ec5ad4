"""What a request must look like."""

import math
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from broker.core.checks import check_argv, check_execute
from broker.core.command import Ask
from broker.core.credentials import Caller
from openline import ids, limits
from openline.errors import OpenlineError
from openline.reasons import Reason
from openline.v1 import command_service_pb2

CALLER = Caller(owner="alice", scopes=("execute",))
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

GOOD_ID = "01a22410-98dd-7667-b37d-b9bf5344cb38"


def check(**fields: Any) -> Ask:
    usual: dict[str, Any] = {"cluster_id": "prod", "argv": ["get", "pods"]}
    return check_execute(command_service_pb2.ExecuteRequest(**(usual | fields)), CALLER, max_output_bytes=1 << 20)


def wrong(**fields: Any) -> list[str]:
    """The names of the fields that are refused."""
    with pytest.raises(OpenlineError) as refusal:
        check(**fields)
    assert refusal.value.reason is Reason.INVALID_COMMAND
    return [violation.field for violation in refusal.value.error.violations]


def test_what_was_left_out_has_its_default() -> None:
    """A new command id, ten seconds, the broker's output limit."""
    asked = check()
    assert ids.is_command_id(asked.command_id)
    assert asked.timeout_s == limits.DEFAULT_TIMEOUT_S
    assert asked.max_output_bytes == 1 << 20
    assert (asked.owner, asked.scopes) == ("alice", ("execute",))


def test_what_was_given_is_kept() -> None:
    command_id = ids.new_id()
    asked = check(
        command_id=command_id,
        timeout_s=1.5,
        session_id="s",
        correlation_id="c",
        traceparent=TRACE,
        output_limits={"max_bytes": 100},
    )
    assert (asked.command_id, asked.timeout_s, asked.max_output_bytes) == (command_id, 1.5, 100)
    assert (asked.session_id, asked.correlation_id, asked.traceparent) == ("s", "c", TRACE)


def test_what_is_asked_for_live_is_live() -> None:
    """Only a streaming call says so; how long it may wait for its cluster is kept apart from its timeout."""
    request = command_service_pb2.ExecuteRequest(cluster_id="prod", argv=["logs", "-f", "x"], wait_for_cluster_s=300)
    asked = check_execute(request, CALLER, max_output_bytes=1024, live=True)
    assert (asked.live, asked.wait_for_cluster_s, asked.timeout_s) == (True, 300.0, limits.DEFAULT_TIMEOUT_S)
    assert not check().live
    assert wrong(wait_for_cluster_s=limits.MAX_WAIT_FOR_CLUSTER_S + 0.001) == ["wait_for_cluster_s"]


def test_a_wish_for_more_output_is_bounded() -> None:
    assert check(output_limits={"max_bytes": 1 << 60}).max_output_bytes == 1 << 20


@pytest.mark.parametrize("field", ["timeout_s", "wait_for_cluster_s"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.001, 1e300, 3600.001])
def test_times_out_of_range(field: str, value: float) -> None:
    """NaN compares as false with everything, so the check is written to refuse it."""
    assert wrong(**{field: value}) == [field]


def test_times_at_the_edge() -> None:
    assert check(timeout_s=limits.MAX_TIMEOUT_S).timeout_s == limits.MAX_TIMEOUT_S
    assert check(timeout_s=-0.0).timeout_s == limits.DEFAULT_TIMEOUT_S
    assert check(timeout_s=5e-324).timeout_s > 0


@pytest.mark.parametrize(
    "command_id",
    [
        "x",
        "0af76519-16cd-43dd-8448-eb211c80319c",  # version 4
        GOOD_ID.upper(),
        "{" + GOOD_ID + "}",
        GOOD_ID.replace("-", ""),
        GOOD_ID + "\n",
        "urn:uuid:" + GOOD_ID,
        "9" * 100_000,
    ],
)
def test_command_ids_that_are_none(command_id: str) -> None:
    """One form only, or the same command would have two ids."""
    assert wrong(command_id=command_id) == ["command_id"]


@pytest.mark.parametrize("field", ["session_id", "correlation_id", "idempotency_key"])
@pytest.mark.parametrize("value", ["a b", "a\n", "\0", "é", "x" * 201])
def test_ids_that_cannot_be_shown(field: str, value: str) -> None:
    """They go into headers and log lines."""
    assert wrong(**{field: value}) == [field]
    assert check(**{field: "x" * 200}) is not None


@pytest.mark.parametrize("value", ["x", TRACE.upper(), TRACE + "-1", TRACE + "\n", TRACE[:-1]])
def test_trace_contexts_that_are_none(value: str) -> None:
    assert wrong(traceparent=value) == ["traceparent"]


def test_arguments_at_the_edge_and_over_it() -> None:
    """How many, how long each, how long together; bytes, not characters."""
    assert check_argv(["x"] * limits.MAX_ARGUMENTS) == []
    assert [field for field, _ in check_argv(["x"] * (limits.MAX_ARGUMENTS + 1))] == ["argv"]
    assert check_argv(["x" * limits.MAX_ARGUMENT_BYTES]) == []
    assert [field for field, _ in check_argv(["x", "é" * (limits.MAX_ARGUMENT_BYTES // 2) + "x"])] == ["argv[1]"]
    full = ["x" * limits.MAX_ARGUMENT_BYTES] * (limits.MAX_ARGV_BYTES // limits.MAX_ARGUMENT_BYTES)
    assert check_argv(full) == []
    assert [field for field, _ in check_argv([*full, "x"])] == ["argv"]
    assert [field for field, _ in check_argv([])] == ["argv"]
    assert [field for field, _ in check_argv(["get", "a\0b"])] == ["argv[1]"]


def test_an_empty_argument_is_an_argument() -> None:
    """`kubectl get pods -l ''` is a command."""
    assert check(argv=["get", "pods", "-l", ""]).argv == ("get", "pods", "-l", "")


def test_everything_that_is_wrong_is_said_at_once() -> None:
    assert wrong(argv=[], timeout_s=-1, traceparent="x") == [
        "argv",
        "timeout_s",
        "traceparent",
    ]


def test_lone_surrogates_cannot_occur() -> None:
    """protobuf lets no string in that is not UTF-8, from either side."""
    with pytest.raises(ValueError, match="surrogates"):
        command_service_pb2.ExecuteRequest(argv=["\udc80"])
    # Field 2, three bytes: the surrogate U+DC80 as UTF-8 would have it.
    with pytest.raises(DecodeError):
        command_service_pb2.ExecuteRequest.FromString(b"\x12\x03\xed\xb2\x80")
