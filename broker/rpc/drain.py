"""Drain of AdminService: this replica sends its executors away, or the one that the request names is asked to."""

from typing import Any

import grpc

from broker.core.patterns import EVERY
from broker.core.proof import Proof
from broker.draining import Draining
from broker.rpc import everywhere
from broker.rpc.audited import Audited, check, check_reason
from broker.rpc.callers import is_replica
from broker.rpc.peers import Peers
from openline.calls import broker_unavailable
from openline.errors import OpenlineError
from openline.reasons import NO, Reason
from openline.v1 import admin_service_pb2 as pb
from openline.v1.admin_service_pb2_grpc import AdminServiceStub

MAX_SPREAD_S = 3600.0

Context = grpc.aio.ServicerContext[Any, Any]


class DrainMethod:
    def __init__(self, draining: Draining, peers: Peers, proof: Proof, audited: Audited, *, replica_id: str) -> None:
        self._draining = draining
        self._peers = peers
        self._proof = proof
        self._audited = audited
        self._replica_id = replica_id

    async def Drain(self, request: pb.DrainRequest, context: Context) -> pb.DrainResponse:  # noqa: N802
        """One hop: what another replica asks for is done here."""
        if is_replica(self._proof, context):
            told = await self._draining.begin(request.reason, spread_s=request.spread_s)
            return pb.DrainResponse(executors=told)
        reason = request.reason or "the replica is drained"
        with self._audited(context, "drain", detail=reason) as action:
            # It moves executors of every cluster, and tells how many there are.
            action.caller.require_cover(EVERY)
            replica_id = request.replica_id or self._replica_id
            is_here = replica_id == self._replica_id
            check(
                ("spread_s", 0 <= request.spread_s <= MAX_SPREAD_S, f"must be 0..{MAX_SPREAD_S:g}"),
                check_reason(reason),
                ("replica_id", is_here or replica_id in self._peers.known, "is none of a replica that there is"),
            )
            action.detail = f"{replica_id}: {reason}"
            if is_here:
                told = await self._draining.begin(reason, spread_s=request.spread_s)
                return pb.DrainResponse(executors=told)
            return await self._elsewhere(replica_id, pb.DrainRequest(reason=reason, spread_s=request.spread_s))

    async def _elsewhere(self, replica_id: str, request: pb.DrainRequest) -> pb.DrainResponse:
        """Raises BROKER_UNAVAILABLE, as that replica does, or because it does not answer."""
        try:
            return await everywhere.ask_one(
                self._peers, replica_id, lambda channel: AdminServiceStub(channel).Drain, request
            )
        except OpenlineError as failure:
            if failure.reason is Reason.UNAUTHENTICATED:
                # It is no fault of the caller's key.
                older = f"replica {replica_id} is of a version that is drained at its own address only"
                raise broker_unavailable(older, executed=NO) from None
            raise
