"""The other end of AdminService: what the operator's command line asks a running broker."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from broker.rpc.peer import A, Method, Q
from openline.errors import from_rpc_error
from openline.lookups import MAX_PAGES

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

    async def pages(self, method: Method[Any, A], request: Any) -> AsyncIterator[A]:
        """The answers to a request that has a `page_token`, from the first page to the last. Raises OpenlineError."""
        for _ in range(MAX_PAGES):
            page: Any = await self.ask(method, request)
            yield page
            request.page_token = page.next_page_token
            if not request.page_token:
                break
