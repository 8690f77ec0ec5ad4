"""The other end of AdminService: what the operator's command line asks a running broker."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, cast

import grpc

from broker.rpc.peer import A, Method, Q
from openline.calls import broker_unavailable
from openline.errors import from_rpc_error
from openline.lookups import MAX_PAGES
from openline.reasons import NO

Watching = Callable[[grpc.aio.Channel], grpc.aio.UnaryStreamMultiCallable[Q, A]]

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

    async def watch(self, method: Watching[Q, A], request: Q, *, silence_s: float) -> AsyncGenerator[A, None]:
        """What comes until the broker ends it. Raises OpenlineError, also when it says nothing for so long."""
        call = method(self._channel)(request, metadata=self._metadata)
        try:
            while True:
                async with asyncio.timeout(silence_s):
                    message = await call.read()
                if message is grpc.aio.EOF:
                    return
                yield cast(A, message)
        except grpc.RpcError as status:
            raise from_rpc_error(status) from status
        except TimeoutError:
            raise broker_unavailable("the broker has fallen silent", executed=NO) from None
        finally:
            call.cancel()

    async def pages(self, method: Method[Any, A], request: Any) -> AsyncIterator[A]:
        """The answers to a request that has a `page_token`, from the first page to the last. Raises OpenlineError."""
        for _ in range(MAX_PAGES):
            page: Any = await self.ask(method, request)
            yield page
            request.page_token = page.next_page_token
            if not request.page_token:
                break
