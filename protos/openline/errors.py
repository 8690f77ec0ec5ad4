"""Errors as Python exceptions: one class that carries a reason of the table, made into and from gRPC statuses.

This is the seam: grpc's exceptions come in here and leave as `OpenlineError`. What each reason means is in `reasons`.
"""

from collections.abc import Iterable, Mapping

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from openline.next_steps import NEXT_STEPS
from openline.reasons import EXECUTED_TEXT, MEANING, ExecutedText, Reason, reason_of
from openline.v1 import command_pb2

DOMAIN = "openline"
STATUS_TRAILER = "grpc-status-details-bin"
# A status travels in HTTP/2 trailers, which peers bound at about 8 KiB; output so far goes along only when it fits.
MAX_RESULT_IN_STATUS_BYTES = 4096
# Of all trailers together, with room for what gRPC adds; what does not fit is left out, the reason never.
MAX_STATUS_BYTES = 6144
MAX_DETAILS_CHARACTERS = 300
# In an error's metadata: what to do about it, where that is not what its reason's always is; and see `hint`.
NEXT_STEP = "next_step"
HINT = "hint"
# In the metadata of CANCELLED: of what more the command was one, all of which was meant. Brokers alone say it.
CANCELLED_WITH = "cancelled_with"
# Why a command is cancelled because of its call, which it is one of then.
TAKEN_BACK = "its call was cancelled by the caller"

_TEXT_TO_EXECUTED: dict[str, command_pb2.Executed.ValueType] = {
    text: executed for executed, text in EXECUTED_TEXT.items()
}


class OpenlineError(Exception):
    """Something that was asked could not be done; `reason` says why.

    `result` is the result of a command that ended without an exit code, when there is one.
    """

    def __init__(self, error: command_pb2.Error, *, result: command_pb2.CommandResult | None = None) -> None:
        super().__init__(f"{error.reason}: {error.message}")
        self.error = error
        self.result = result

    @property
    def reason(self) -> Reason:
        return reason_of(self.error)

    @property
    def executed(self) -> ExecutedText:
        """Whether the command's process was started: what decides if it is safe to ask again."""
        return EXECUTED_TEXT.get(self.error.executed, "unknown")

    @property
    def retry_after_s(self) -> float:
        """When asking again makes sense; zero when it does not, or when that is not known."""
        return self.error.retry_after_s

    @property
    def metadata(self) -> Mapping[str, str]:
        """What more there is to say, as docs/errors.md names it for each reason."""
        return self.error.metadata

    @property
    def next_step(self) -> str:
        """What to do about it, in a sentence or two for a person or a model."""
        return next_step(self.error)

    @property
    def hint(self) -> str:
        """That the same was asked for again and again, to the same end; empty where it was not."""
        return self.error.metadata.get(HINT, "")

    @property
    def command_id(self) -> str:
        """The command that this is about; empty for none."""
        return (self.result.command_id if self.result is not None else "") or self.error.metadata.get("command_id", "")


def why_of_all(error: command_pb2.Error) -> str | None:
    """Why more was meant than this command alone; None where it was not cancelled, or by itself."""
    return error.message if error.reason == Reason.CANCELLED and CANCELLED_WITH in error.metadata else None


def error(
    reason: Reason,
    message: str,
    *,
    executed: command_pb2.Executed.ValueType | None = None,
    retry_after_s: float = 0.0,
    metadata: Mapping[str, str] | None = None,
    violations: Iterable[tuple[str, str]] = (),
) -> command_pb2.Error:
    """An Error of the given reason; `violations` are (field, description) pairs."""
    return command_pb2.Error(
        reason=reason,
        message=message,
        executed=MEANING[reason].executed if executed is None else executed,
        retry_after_s=retry_after_s,
        metadata=metadata or {},
        violations=[command_pb2.FieldViolation(field=f, description=d) for f, d in violations],
    )


def next_step(failure: command_pb2.Error) -> str:
    """What whoever asked can do about it: as the one who raised it says, or else as it is for any of its reason."""
    return failure.metadata.get(NEXT_STEP, "") or NEXT_STEPS[reason_of(failure)]


def status_code(reason: Reason) -> grpc.StatusCode:
    return grpc.StatusCode[MEANING[reason].grpc]


def short(message: str) -> str:
    """A message as a status carries it beside its details: percent-encoded, so up to nine bytes a character."""
    return message if len(message) <= MAX_DETAILS_CHARACTERS else message[: MAX_DETAILS_CHARACTERS - 1] + "…"


def to_status(failure: command_pb2.Error, *, result: command_pb2.CommandResult | None = None) -> status_pb2.Status:
    """The rich status of an error: ErrorInfo always, RetryInfo, BadRequest and the result where there is one."""
    info = error_details_pb2.ErrorInfo(reason=failure.reason, domain=DOMAIN, metadata=failure.metadata)
    info.metadata[NEXT_STEP] = next_step(failure)
    info.metadata["executed"] = EXECUTED_TEXT.get(failure.executed, "unknown")
    details = [info]
    if failure.retry_after_s:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(max(1, round(failure.retry_after_s * 1000)))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if failure.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
                    for v in failure.violations
                ]
            )
        )
    if result is not None and result.ByteSize() <= MAX_RESULT_IN_STATUS_BYTES:
        details.append(result)
    status = status_pb2.Status(
        code=code_pb2.Code.Value(MEANING[reason_of(failure)].grpc), message=short(failure.message)
    )
    _fit(info)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        if status.ByteSize() + packed.ByteSize() <= MAX_STATUS_BYTES:
            status.details.append(packed)
    return status


def _fit(info: error_details_pb2.ErrorInfo) -> None:
    """Leaves out the largest of the metadata until the reason and the rest surely fit."""
    while info.ByteSize() > MAX_STATUS_BYTES // 2 and info.metadata:
        del info.metadata[max(info.metadata, key=lambda name: len(info.metadata[name].encode()))]


def from_rpc_error(failure: grpc.RpcError) -> OpenlineError:
    """The OpenlineError that a broker's status says, or BROKER_UNAVAILABLE for a status that is not openline's."""
    status = _rich_status(failure)
    code = failure.code() if isinstance(failure, grpc.Call | grpc.aio.AioRpcError) else grpc.StatusCode.UNKNOWN
    text = failure.details() if isinstance(failure, grpc.Call | grpc.aio.AioRpcError) else str(failure)
    if status is not None:
        received = command_pb2.Error(reason=Reason.INTERNAL, message=status.message)
        result: command_pb2.CommandResult | None = None
        info = error_details_pb2.ErrorInfo()
        retry = error_details_pb2.RetryInfo()
        bad = error_details_pb2.BadRequest()
        stored = command_pb2.CommandResult()
        for detail in status.details:
            if detail.Unpack(info):
                received.reason = info.reason
                received.metadata.update(info.metadata)
                received.executed = _TEXT_TO_EXECUTED.get(
                    received.metadata.pop("executed", ""), command_pb2.EXECUTED_UNKNOWN
                )
            elif detail.Unpack(retry):
                received.retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
            elif detail.Unpack(bad):
                for violation in bad.field_violations:
                    received.violations.add(field=violation.field, description=violation.description)
            elif detail.Unpack(stored):
                result = stored
        if info.domain == DOMAIN:
            if received.metadata.get(NEXT_STEP) == NEXT_STEPS[reason_of(received)]:
                del received.metadata[NEXT_STEP]
            return OpenlineError(received, result=result)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return OpenlineError(error(Reason.NOT_BUILT, text or "not built in this version"))
    return OpenlineError(
        error(Reason.BROKER_UNAVAILABLE, f"no usable answer from the broker: {code.name.lower()}: {text}")
    )


def is_answer(failure: grpc.RpcError) -> bool:
    """Whether a broker has said this, and not a connection to one, or the time that was up."""
    return _rich_status(failure) is not None


def _rich_status(failure: grpc.RpcError) -> status_pb2.Status | None:
    """The google.rpc.Status in the trailers, if there is a well-formed one."""
    if not isinstance(failure, grpc.Call | grpc.aio.AioRpcError):
        return None
    for key, value in failure.trailing_metadata() or ():
        if key == STATUS_TRAILER and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None
