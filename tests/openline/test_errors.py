"""Errors, into statuses and back."""

from dataclasses import dataclass

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from openline import errors
from openline.reasons import MEANING, NO, Reason
from openline.v1 import command_pb2


def received(status: grpc.StatusCode, text: str, trailers: tuple[tuple[str, bytes], ...] = ()) -> AioRpcError:
    return AioRpcError(status, Metadata(), Metadata(*trailers), text, "")


def sent(error: command_pb2.Error, result: command_pb2.CommandResult | None = None) -> AioRpcError:
    """What a caller receives when a broker sends this."""
    status = errors.to_status(error, result=result)
    code = errors.status_code(Reason(error.reason))
    return received(code, error.message, ((errors.STATUS_TRAILER, status.SerializeToString()),))


@pytest.mark.parametrize("reason", list(Reason))
def test_an_error_survives_the_wire(reason: Reason) -> None:
    """Everything that is said of an error arrives."""
    error = errors.error(
        reason, "no", retry_after_s=2.5, metadata={"cluster_id": "local"}, violations=[("argv[0]", "empty")]
    )
    back = errors.from_rpc_error(sent(error))
    assert back.error == error
    assert back.reason is reason
    assert back.error.executed == MEANING[reason].executed


def test_output_so_far_goes_along_when_it_fits() -> None:
    """Trailers are small: a large result is fetched by its id instead."""
    error = errors.error(Reason.COMMAND_TIMEOUT, "too slow")
    small = command_pb2.CommandResult(command_id="x", stdout=b"so far")
    assert errors.from_rpc_error(sent(error, small)).result == small
    large = command_pb2.CommandResult(command_id="x", stdout=b"x" * 10_000)
    assert errors.from_rpc_error(sent(error, large)).result is None


def test_a_status_that_is_not_ours_is_the_brokers_absence() -> None:
    """A proxy's or gRPC's own status never claims to know whether something ran."""
    back = errors.from_rpc_error(received(grpc.StatusCode.UNAVAILABLE, "connection refused"))
    assert back.reason is Reason.BROKER_UNAVAILABLE
    assert back.error.executed == command_pb2.EXECUTED_UNKNOWN
    garbage = ((errors.STATUS_TRAILER, b"\xff\xff\xff"),)
    assert errors.from_rpc_error(received(grpc.StatusCode.INTERNAL, "", garbage)).reason is Reason.BROKER_UNAVAILABLE


def test_a_method_of_a_newer_contract_is_not_built() -> None:
    """UNIMPLEMENTED from an older broker says so, and that nothing ran."""
    back = errors.from_rpc_error(received(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"))
    assert (back.reason, back.error.executed) == (Reason.NOT_BUILT, NO)


@dataclass
class Bare(grpc.RpcError):
    """An RpcError without the interface of a call, as some of grpc's own are."""


def test_a_bare_rpc_error_is_understood() -> None:
    """Not every RpcError has a code."""
    assert errors.from_rpc_error(Bare()).reason is Reason.BROKER_UNAVAILABLE
