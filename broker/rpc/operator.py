"""The other end of AdminService: what the operator's command line asks a running broker."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import grpc

from openline.errors import from_rpc_error
from openline.v1.admin_service_pb2_grpc import AdminServiceStub

if TYPE_CHECKING:
    from openline.v1.admin_service_pb2_grpc import AdminServiceAsyncStub

Q = TypeVar("Q")
A = TypeVar("A")
Method = Callable[["AdminServiceAsyncStub"], "grpc.aio.UnaryUnaryMultiCallable[Q, A]"]

# Nothing that is asked takes longer; a broker that waits for Redis says so before.
TIMEOUT_S = 10.0


class Operator:
    """Somebody with an admin's key."""

    def __init__(self, channel: grpc.aio.Channel, *, key: str) -> None:
        self._admin = AdminServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {key}"),)

    async def ask(self, method: Method[Q, A], request: Q) -> A:
        """Raises OpenlineError."""
        try:
            return await method(self._admin)(request, metadata=self._metadata, timeout=TIMEOUT_S)
        except grpc.RpcError as status:
            raise from_rpc_error(status) from status
