"""What to do about a refusal: a table that is whole, and how it reaches whoever was refused."""

from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from openline import errors
from openline.errors import OpenlineError, error, from_rpc_error, to_status
from openline.next_steps import NEXT_STEPS
from openline.reasons import Reason
from openline.v1 import command_pb2

OWN = "Ask again with prod."


class Refused(grpc.aio.AioRpcError):
    """A status as it arrives."""

    def __init__(self, status: status_pb2.Status) -> None:
        trailers = grpc.aio.Metadata((errors.STATUS_TRAILER, status.SerializeToString()))
        super().__init__(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), trailers, details=status.message)


def info_of(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


def test_every_reason_has_a_next_step() -> None:
    """One or two sentences, which a model pays for by the word."""
    assert set(NEXT_STEPS) == set(Reason)
    for reason, step in NEXT_STEPS.items():
        assert step.isprintable(), reason
        assert step[0].isupper(), reason
        assert step.endswith("."), reason
        assert 20 <= len(step) <= 200, reason


def test_the_page_of_errors_shows_them() -> None:
    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    rows = [line[2:-2].split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert [tuple(cells) for cells in rows if len(cells) == 2] == [(f"`{r}`", NEXT_STEPS[r]) for r in Reason]


@pytest.mark.parametrize("reason", Reason)
def test_a_status_has_it(reason: Reason) -> None:
    """In the metadata of ErrorInfo, for clients in any language; what arrives is the error that was sent."""
    failure = error(reason, "no", metadata={"near": "prod"})
    assert info_of(to_status(failure)).metadata["next_step"] == NEXT_STEPS[reason]
    back = from_rpc_error(Refused(to_status(failure)))
    assert back.error == failure
    assert back.next_step == NEXT_STEPS[reason]


def test_who_refuses_may_know_better() -> None:
    failure = error(Reason.CLUSTER_UNKNOWN, "no", metadata={errors.NEXT_STEP: OWN})
    assert info_of(to_status(failure)).metadata["next_step"] == OWN
    back = from_rpc_error(Refused(to_status(failure)))
    assert (back.next_step, back.error) == (OWN, failure)


def test_a_reason_of_a_newer_version_has_one_too() -> None:
    """Its own, as the broker says it; and without, that of a defect."""
    newer = command_pb2.Error(reason="NEWER")
    assert OpenlineError(newer).next_step == NEXT_STEPS[Reason.INTERNAL]
    newer.metadata[errors.NEXT_STEP] = OWN
    assert OpenlineError(newer).next_step == OWN


def test_a_hint_is_said_where_there_is_one() -> None:
    assert OpenlineError(error(Reason.POLICY_DENIED, "no")).hint == ""
    assert OpenlineError(error(Reason.POLICY_DENIED, "no", metadata={errors.HINT: "again"})).hint == "again"
