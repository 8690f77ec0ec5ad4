"""One other replica, and the pipe to it while there is one."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc

from openline.calls import broker_unavailable
from openline.channels import FreshChannel
from openline.errors import from_rpc_error
from openline.pipe import Pipe
from openline.pipe_state import PipeState
from openline.reasons import NO
from openline.settings import Address

Q = TypeVar("Q")
A = TypeVar("A")
Method = Callable[[grpc.aio.Channel], grpc.aio.UnaryUnaryMultiCallable[Q, A]]


@dataclass(slots=True, eq=False)
class Peer:
    replica_id: str
    address: Address
    way: FreshChannel
    # Opens the pipe, again and again.
    keeper: "asyncio.Task[None] | None" = None
    # It has said that it is stopping.
    has_left: bool = False
    pipe: Pipe | None = None

    @property
    def open_pipe(self) -> Pipe | None:
        """The pipe, if it takes calls and has been heard of lately: a replica that is frozen is not asked."""
        pipe = self.pipe
        return pipe if pipe is not None and pipe.state is PipeState.OPEN and not pipe.is_quiet else None

    async def ask(
        self, method: Method[Q, A], request: Q, *, metadata: tuple[tuple[str, str], ...], timeout_s: float
    ) -> A:
        """A unary method of this replica. Raises OpenlineError."""
        try:
            return await method(self.way.channel)(request, metadata=metadata, timeout=timeout_s)
        except grpc.RpcError as status:
            raise from_rpc_error(status) from status
        except grpc.aio.UsageError:  # the channel is closed
            raise broker_unavailable(f"replica {self.replica_id} is out of reach", executed=NO) from None
        except asyncio.CancelledError:
            # Also what grpc.aio raises when the channel is closed because the peer is not known any more.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            raise broker_unavailable(f"replica {self.replica_id} is out of reach", executed=NO) from None

    async def close(self) -> None:
        if self.keeper is not None:
            self.keeper.cancel()
            await asyncio.gather(self.keeper, return_exceptions=True)
        await self.way.close()
