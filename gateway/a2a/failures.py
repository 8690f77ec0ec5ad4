"""What has gone wrong with a task, or with a look at one, in the protocol's words."""

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.a2a.rpc import Code, RpcError
from gateway.a2a.tasks import Task
from gateway.a2a.telling import own, task_of_failure
from gateway.exchange import Exchange
from gateway.fanout import OF_THE_KEY
from openline.errors import OpenlineError
from openline.reasons import Reason
from openline.v1.command_service_pb2 import ExecuteRequest

NO_TASK = frozenset({Reason.COMMAND_UNKNOWN, Reason.RESULT_EXPIRED})


async def end_of(failure: OpenlineError, request: ExecuteRequest, exchange: Exchange) -> Task:
    """The task that it is the end of. Raises OpenlineError for what is wrong with the key, and RpcError."""
    exchange.facts["reason"] = failure.reason
    # These answer the request, not the message, unless the command may have begun.
    if failure.reason in OF_THE_KEY and failure.executed == "no":
        raise failure
    task = await task_of_failure(failure, request)
    if task is None:
        raise not_known(failure, request.command_id)
    return own(task, request)


@contextmanager
def looking_at(task_id: str) -> Iterator[None]:
    """Raises OpenlineError for what is wrong with the key, and RpcError for all else."""
    try:
        yield
    except OpenlineError as failure:
        if failure.reason in OF_THE_KEY:
            raise
        if failure.reason in NO_TASK:
            raise RpcError(Code.TASK_NOT_FOUND, f"{failure.reason}: {failure.error.message}") from None
        raise not_known(failure, task_id) from None


@contextmanager
def listing() -> Iterator[None]:
    """Raises OpenlineError for what is wrong with the key, and RpcError for all else."""
    try:
        yield
    except OpenlineError as failure:
        if failure.reason in OF_THE_KEY:
            raise
        text = f"{failure.reason}: {failure.error.message}. Ask again in a moment"
        raise RpcError(Code.INTERNAL_ERROR, text, known={"reason": str(failure.reason)}) from None


def not_known(failure: OpenlineError, task_id: str) -> RpcError:
    """What became of a task cannot be said."""
    how = "with a good key" if failure.reason in OF_THE_KEY else "in a moment"
    text = f"{failure.reason}: {failure.error.message}. Ask for task {task_id} {how}: it may be running"
    known = {"reason": str(failure.reason), "executed": failure.executed, "task_id": task_id}
    return RpcError(Code.INTERNAL_ERROR, text, known=known)
