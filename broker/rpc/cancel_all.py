"""CancelAll of AdminService: the kill switch, for admins and for the replicas that one of them has asked."""

from typing import Any

import grpc

from broker.core.credentials import PEER, Caller
from broker.core.proof import Proof
from broker.core.whose import Whose
from broker.killing import Killing
from broker.registry import Registry
from broker.rpc.audited import Audited, check, check_patterns, check_reason
from broker.rpc.callers import is_replica
from openline.ids import is_cluster_id, is_name, is_token
from openline.v1 import admin_service_pb2 as pb

Context = grpc.aio.ServicerContext[Any, Any]


class CancelAllMethod:
    def __init__(self, killing: Killing, registry: Registry, proof: Proof, audited: Audited) -> None:
        self._killing = killing
        self._registry = registry
        self._proof = proof
        self._audited = audited

    async def CancelAll(self, request: pb.CancelAllRequest, context: Context) -> pb.CancelAllResponse:  # noqa: N802
        """How many had not ended, of all replicas that could be reached. Raises CLUSTER_UNKNOWN."""
        if is_replica(self._proof, context):
            ids = await self._killing.here(_whose(request, PEER), why=request.reason)
            return pb.CancelAllResponse(cancelled=len(ids), command_ids=ids)
        with self._audited(context, "cancel_all", cluster_id=request.cluster_id) as action:
            whose = _whose(request, action.caller)
            why = request.reason or "an operator has stopped it"
            action.detail = f"{whose}: {why}"
            if whose.cluster_id:
                self._registry.require(whose.cluster_id, action.caller)
            killed = await self._killing.everywhere(whose, why=why)
            action.detail = killed.told(whose, why)
        return pb.CancelAllResponse(cancelled=len(killed.command_ids), unreached_replica_ids=killed.unreached)


def _whose(request: pb.CancelAllRequest, caller: Caller) -> Whose:
    """Raises INVALID_COMMAND, or SCOPE_MISSING for patterns that the caller's own do not cover."""
    within, clusters = check_patterns(request.clusters, usual=caller.clusters)
    is_good = {"session_id": is_token, "owner": is_name, "cluster_id": is_cluster_id}
    kind = request.WhichOneof("whose")
    talk = request.conversation
    check(
        ("whose", kind is not None, f"must be one of {', '.join(is_good)}, conversation"),
        (kind or "whose", kind not in is_good or is_good[kind](getattr(request, kind)), "is none that there can be"),
        ("conversation", kind != "conversation" or _is_conversation(talk), "has no id, or what can be none"),
        clusters,
        check_reason(request.reason),
    )
    caller.require_cover(within)
    if kind == "conversation":
        return Whose(session_id=talk.session_id, correlation_id=talk.correlation_id, owner=talk.owner, within=within)
    return Whose(session_id=request.session_id, owner=request.owner, cluster_id=request.cluster_id, within=within)


def _is_conversation(said: pb.Conversation) -> bool:
    ids = [each for each in (said.session_id, said.correlation_id) if each]
    return bool(ids) and all(map(is_token, ids)) and (not said.owner or is_name(said.owner))
