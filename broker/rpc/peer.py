"""One other replica, and the pipe to it while there is one."""

import asyncio
from dataclasses import dataclass

from openline.channels import FreshChannel
from openline.pipe import Pipe
from openline.pipe_state import PipeState
from openline.settings import Address


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

    async def close(self) -> None:
        if self.keeper is not None:
            self.keeper.cancel()
            await asyncio.gather(self.keeper, return_exceptions=True)
        await self.way.close()
