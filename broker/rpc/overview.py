"""GetOverview and WatchOverview of AdminService: what there is now, everywhere, for whoever operates it."""

from typing import Any

import grpc

from broker.core.credentials import Caller, Credentials
from broker.core.patterns import EVERY, Patterns
from broker.core.proof import Proof
from broker.lasting import LastingCalls
from broker.rpc.audited import check, check_patterns
from broker.rpc.callers import admitted, is_replica
from broker.rpc.places import Places
from broker.survey import Survey
from broker.views import MAX_ANSWER_S, MAX_INTERVAL_S, MIN_INTERVAL_S, USUAL_INTERVAL_S, Views
from openline.v1 import overview_pb2 as pb

# Each asks every replica by itself; whoever wants it again and again watches.
MAX_LOOKS = 20
# What one owner leaves to the others.
MAX_LOOKS_OF_OWNER = 10

Context = grpc.aio.ServicerContext[Any, Any]


class OverviewMethods:
    def __init__(
        self, survey: Survey, views: Views, credentials: Credentials, lasting: LastingCalls, proof: Proof
    ) -> None:
        self._survey = survey
        self._views = views
        self._credentials = credentials
        self._lasting = lasting
        self._proof = proof
        self._looks = Places(MAX_LOOKS, of_owner=MAX_LOOKS_OF_OWNER, full="too many look at the overview")

    async def GetOverview(  # noqa: N802
        self, request: pb.GetOverviewRequest, context: Context
    ) -> pb.GetOverviewResponse:
        """One hop: another replica is told of this one alone."""
        if is_replica(self._proof, context):
            within, clusters = check_patterns(request.clusters, usual=EVERY)
            check(clusters)
            return pb.GetOverviewResponse(overview=self._survey.own(within))
        caller = admitted(self._credentials, context, "AdminService.GetOverview")
        within = _within(request, caller)
        with self._looks.one(caller.owner):
            return pb.GetOverviewResponse(overview=await self._survey.gather(within, timeout_s=MAX_ANSWER_S))

    async def WatchOverview(self, request: pb.WatchOverviewRequest, context: Context) -> None:  # noqa: N802
        """Writes an overview each interval, to a caller who may read as slowly as it likes."""
        caller = admitted(self._credentials, context, "AdminService.WatchOverview")
        interval_s = request.interval_s or USUAL_INTERVAL_S
        check(
            (
                "interval_s",
                MIN_INTERVAL_S <= interval_s <= MAX_INTERVAL_S,
                f"must be {MIN_INTERVAL_S:g}..{MAX_INTERVAL_S:g}",
            )
        )
        within = _within(request, caller)
        watching = self._views.watch(within, owner=caller.owner, interval_s=interval_s)
        async with self._lasting.of(caller), watching as overviews:
            async for overview in overviews:
                await context.write(pb.WatchOverviewResponse(overview=overview))


def _within(request: pb.GetOverviewRequest | pb.WatchOverviewRequest, caller: Caller) -> Patterns:
    """Raises INVALID_COMMAND, or SCOPE_MISSING for patterns that the caller's own do not cover."""
    within, clusters = check_patterns(request.clusters, usual=caller.clusters)
    check(clusters)
    caller.require_cover(within)
    return within
