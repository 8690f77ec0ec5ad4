"""The table of reasons."""

from pathlib import Path

import grpc

from openline.reasons import EXECUTED_TEXT, MEANING, Reason, reason_of
from openline.v1 import command_pb2


def test_the_table_is_whole() -> None:
    """Every reason has a meaning in each protocol."""
    assert set(MEANING) == set(Reason)
    for reason, meaning in MEANING.items():
        assert grpc.StatusCode[meaning.grpc] is not grpc.StatusCode.OK, reason
        assert 400 <= meaning.http <= 599, reason
        assert meaning.executed in EXECUTED_TEXT, reason


def test_what_may_have_run_is_never_said_to_be_unavailable() -> None:
    """Generic retriers send UNAVAILABLE again: a lost command must not run twice."""
    assert MEANING[Reason.EXECUTOR_LOST].grpc == "UNKNOWN"
    assert not MEANING[Reason.EXECUTOR_LOST].retryable


def test_the_design_has_these_rows() -> None:
    """The rows that clients are written against."""
    rows = {
        "CLUSTER_UNKNOWN": ("NOT_FOUND", 404, "no"),
        "CLUSTER_OFFLINE": ("UNAVAILABLE", 503, "no"),
        "CLUSTER_BUSY": ("RESOURCE_EXHAUSTED", 429, "no"),
        "QUOTA_EXCEEDED": ("RESOURCE_EXHAUSTED", 429, "no"),
        "POLICY_DENIED": ("PERMISSION_DENIED", 403, "no"),
        "INVALID_COMMAND": ("INVALID_ARGUMENT", 422, "no"),
        "UNAUTHENTICATED": ("UNAUTHENTICATED", 401, "no"),
        "SCOPE_MISSING": ("PERMISSION_DENIED", 403, "no"),
        "SESSION_UNKNOWN": ("NOT_FOUND", 404, "no"),
        "SESSION_MISMATCH": ("INVALID_ARGUMENT", 400, "no"),
        "IDEMPOTENCY_CONFLICT": ("ALREADY_EXISTS", 422, "no"),
        "EXECUTOR_LOST": ("UNKNOWN", 502, "unknown"),
        "COMMAND_TIMEOUT": ("DEADLINE_EXCEEDED", 504, "yes"),
        "RESULT_EXPIRED": ("NOT_FOUND", 410, "yes"),
    }
    for name, (status, http, executed) in rows.items():
        meaning = MEANING[Reason(name)]
        assert (meaning.grpc, meaning.http, EXECUTED_TEXT[meaning.executed]) == (status, http, executed), name


def test_a_reason_of_a_newer_version_counts_as_internal() -> None:
    """An unknown reason is no reason to fail."""
    assert reason_of(command_pb2.Error(reason="MOON_PHASE")) is Reason.INTERNAL


def test_the_page_of_errors_shows_the_table() -> None:
    """docs/errors.md has a row for each reason, with what it is in each protocol."""
    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    rows = {
        cells[0].strip("`"): cells
        for cells in (line[2:-2].split(" | ") for line in page.splitlines())
        if len(cells) == 6
    }
    assert set(Reason) <= set(rows)
    for reason, meaning in MEANING.items():
        assert rows[reason][2:4] == [meaning.grpc, str(meaning.http)], reason
