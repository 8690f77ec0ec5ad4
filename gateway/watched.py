"""Overviews as they come from whichever broker replica can be reached: when one breaks off, another one is asked."""

import asyncio
import random
from collections.abc import AsyncGenerator
from time import monotonic
from typing import cast

import grpc

from gateway.callers import Caller
from openline.calls import broker_unavailable
from openline.errors import OpenlineError, from_rpc_error
from openline.lookups import CORRELATION_ID, PAUSE_S, TIMEOUT_S
from openline.pipes import Pipes
from openline.reasons import NO, Reason
from openline.v1 import overview_pb2
from openline.v1.admin_service_pb2_grpc import AdminServiceStub

Overviews = AsyncGenerator[overview_pb2.Overview, None]

# A replica that says nothing for so long beyond an interval is frozen, or might as well be.
SILENCE_S = 3.0
# What another replica may not say; what can be remedied by waiting is told first.
OF_ONE_REPLICA = (Reason.QUOTA_EXCEEDED, Reason.NOT_BUILT)


async def overviews(pipes: Pipes, caller: Caller, *, interval_s: float) -> Overviews:
    """Never ends by itself. Raises what a replica says, or BROKER_UNAVAILABLE when none answers for three seconds.

    Of a replica that has no place left, or does not know of overviews yet, the refusal counts when no other one tells.
    """
    heard_at = monotonic()
    while True:
        replicas, refusals = pipes.in_order(), []
        for replica in replicas:
            try:
                async for overview in _of_replica(replica.channel, caller, interval_s):
                    yield overview
                    heard_at = monotonic()
            except OpenlineError as failure:
                if failure.reason in OF_ONE_REPLICA:
                    refusals.append(failure)
                elif failure.reason is not Reason.BROKER_UNAVAILABLE:
                    raise
        is_late = monotonic() - heard_at > TIMEOUT_S
        if refusals and (is_late or len(refusals) == len(replicas)):
            raise min(refusals, key=lambda failure: OF_ONE_REPLICA.index(failure.reason))
        if is_late:
            raise broker_unavailable("no broker replica answers", executed=NO)
        await asyncio.sleep(random.uniform(0, PAUSE_S))  # noqa: S311  (jitter)


async def _of_replica(channel: grpc.aio.Channel, caller: Caller, interval_s: float) -> Overviews:
    metadata = [("authorization", f"Bearer {caller.api_key}")]
    if given := caller.exchange.given_correlation_id:
        metadata.append((CORRELATION_ID, given))
    request = overview_pb2.WatchOverviewRequest(interval_s=interval_s)
    call = AdminServiceStub(channel).WatchOverview(request, metadata=metadata)
    try:
        while True:
            async with asyncio.timeout(interval_s + SILENCE_S):
                message = await call.read()
            if message is grpc.aio.EOF:
                return
            yield cast(overview_pb2.WatchOverviewResponse, message).overview
    except grpc.aio.AioRpcError as status:
        raise from_rpc_error(status) from status
    except TimeoutError:
        raise broker_unavailable("the broker replica has fallen silent", executed=NO) from None
    except asyncio.CancelledError:
        # Also what grpc.aio raises when the channel is closed, as another one takes its place.
        if (task := asyncio.current_task()) is None or task.cancelling():
            raise
        raise broker_unavailable("the channel was closed", executed=NO) from None
    finally:
        call.cancel()
