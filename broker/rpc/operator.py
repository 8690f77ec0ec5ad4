"""The other end of AdminService: what the operator's command line asks a running broker."""

import grpc

from broker.rpc.peer import A, Method, Q
from openline.errors import from_rpc_error

# Nothing that is asked takes longer; a broker that waits for Redis says so before.
TIMEOUT_S = 10.0


class Operator:
    """Somebody with an admin's key."""

    def __init__(self, channel: grpc.aio.Channel, *, key: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {key}"),)

    async def ask(self, method: Method[Q, A], request: Q) -> A:
        """Raises OpenlineError."""
        try:
            return await method(self._channel)(request, metadata=self._metadata, timeout=TIMEOUT_S)
        except grpc.RpcError as status:
            raise from_rpc_error(status) from status
