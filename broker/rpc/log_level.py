"""SetLogLevel of AdminService: on this replica, on another one, or on all of them."""

from typing import Any

import grpc

from broker.core.patterns import EVERY
from broker.core.proof import Proof
from broker.rpc.audited import Audited, check
from broker.rpc.callers import is_replica
from broker.rpc.everywhere import ask_one, set_log_level
from broker.rpc.peers import Peers
from openline.loudness import LOUDNESS, MAX_S, USUAL_S, LogLevel
from openline.v1 import admin_service_pb2 as pb
from openline.v1.admin_service_pb2_grpc import AdminServiceStub

# None is the level of the start.
LEVELS: dict[int, LogLevel | None] = {
    pb.LOG_LEVEL_UNSPECIFIED: None,
    pb.LOG_LEVEL_DEBUG: "debug",
    pb.LOG_LEVEL_INFO: "info",
    pb.LOG_LEVEL_WARNING: "warning",
    pb.LOG_LEVEL_ERROR: "error",
}

Context = grpc.aio.ServicerContext[Any, Any]


class SetLogLevelMethod:
    def __init__(self, peers: Peers, proof: Proof, audited: Audited, *, replica_id: str) -> None:
        self._peers = peers
        self._proof = proof
        self._audited = audited
        self._replica_id = replica_id

    async def SetLogLevel(  # noqa: N802
        self, request: pb.SetLogLevelRequest, context: Context
    ) -> pb.SetLogLevelResponse:
        """Which replicas have changed it. Raises BROKER_UNAVAILABLE for one that is named and does not answer."""
        if is_replica(self._proof, context):
            # Of a version that knows more levels, it may be one of those.
            if request.level in LEVELS:
                self._here(request, by="another replica")
            return pb.SetLogLevelResponse(replica_ids=[self._replica_id])
        with self._audited(context, "set_log_level") as action:
            # What is logged concerns every cluster.
            action.caller.require_cover(EVERY)
            check(
                ("level", request.level in LEVELS, "must be a level that there is"),
                # Written so that NaN is refused as well.
                ("for_s", 0 <= request.for_s <= MAX_S, f"must be 0..{MAX_S:.0f}"),
                ("replica_id", self._is_there(request.replica_id), "is none of a replica that there is"),
            )
            action.detail = f"{LEVELS[request.level] or 'as started'} on {request.replica_id or 'every replica'}"
            done, unreached = await self._where_it_is_due(request, owner=action.caller.owner)
            return pb.SetLogLevelResponse(replica_ids=sorted(done), unreached_replica_ids=sorted(unreached))

    async def _where_it_is_due(self, request: pb.SetLogLevelRequest, *, owner: str) -> tuple[set[str], set[str]]:
        replica_id = request.replica_id
        if replica_id not in ("", self._replica_id):
            await ask_one(self._peers, replica_id, lambda channel: AdminServiceStub(channel).SetLogLevel, request)
            return {replica_id}, set()
        self._here(request, by=owner)
        if replica_id:
            return {replica_id}, set()
        done, unreached = await set_log_level(self._peers, request)
        return done | {self._replica_id}, unreached

    def _is_there(self, replica_id: str) -> bool:
        return replica_id in ("", self._replica_id) or replica_id in self._peers.known

    def _here(self, request: pb.SetLogLevelRequest, *, by: str) -> None:
        LOUDNESS.change(LEVELS[request.level], for_s=request.for_s or USUAL_S, by=by)
