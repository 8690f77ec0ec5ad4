"""/admin: executor tokens, what is known of each cluster's executor, and the kill switch. For admins."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from gateway.admin_answers import agent_listed, agent_status, token_answer, token_listed
from gateway.admin_models import (
    AgentsAnswer,
    AgentStatusAnswer,
    TokenAnswer,
    TokenBody,
    TokensAnswer,
)
from gateway.callers import Asking
from gateway.cancel_models import CancelAllAnswer, CancelAllBody
from gateway.problems import PROBLEMS, TOKEN_PROBLEMS
from gateway.stubs import Stubs
from openline.v1 import admin_service_pb2

# What a cluster may be called, for one that is registered by its first token.
NewClusterId = Annotated[str, Path(min_length=1, max_length=100, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]


def admin_routes(stubs: Stubs) -> APIRouter:
    routes = APIRouter(prefix="/admin", tags=["admin"], responses=PROBLEMS)

    @routes.post("/agents/{cluster_id}/token", operation_id="create_token", responses=TOKEN_PROBLEMS)
    async def create_token(cluster_id: NewClusterId, caller: Asking, body: TokenBody | None = None) -> TokenAnswer:
        """Makes another executor token for a cluster, or takes the one that is given, and so registers the cluster.

        The cluster's other tokens stay valid until they are revoked, so that one can be replaced without a gap. A given
        token that the cluster has, or had before it was revoked, is a 409. The token is answered this once.
        """
        caller.exchange.facts.update(cluster_id=cluster_id)
        request = admin_service_pb2.CreateExecutorTokenRequest(cluster_id=cluster_id)
        if body is not None:
            request.token = body.token or ""
            request.ttl_s = body.ttl_seconds or 0.0
        return token_answer(await stubs.create_token(request, caller))

    @routes.get("/agents/{cluster_id}/tokens", operation_id="list_tokens")
    async def list_tokens(cluster_id: str, caller: Asking) -> TokensAnswer:
        """Lists a cluster's executor tokens that are good, and never the tokens themselves."""
        caller.exchange.facts.update(cluster_id=cluster_id)
        tokens = [token_listed(token) for token in await stubs.list_tokens(cluster_id, caller)]
        return TokensAnswer(tokens=tokens, count=len(tokens))

    @routes.delete("/agents/{cluster_id}/token", operation_id="revoke_token", status_code=204)
    async def revoke_token(
        cluster_id: str,
        caller: Asking,
        token_id: Annotated[str, Query(max_length=200, description="Only the token of this id.")] = "",
    ) -> None:
        """Revokes all of a cluster's executor tokens. Its open streams close within a second, and it is not known any
        more; results of its commands are."""
        caller.exchange.facts.update(cluster_id=cluster_id)
        await stubs.revoke_tokens(cluster_id, caller, token_id=token_id)

    @routes.get("/agents", operation_id="list_agents")
    async def list_agents(caller: Asking) -> AgentsAnswer:
        """Lists every registered cluster, sorted, and whether its executor is connected."""
        await stubs.require_admin(caller)
        clusters = [agent_listed(cluster) for cluster in await stubs.list_all_clusters(caller)]
        return AgentsAnswer(clusters=clusters, count=len(clusters))

    @routes.get("/agents/{cluster_id}/status", operation_id="get_agent_status")
    async def get_agent_status(cluster_id: str, caller: Asking) -> AgentStatusAnswer:
        """Says what is known of a cluster's executor."""
        await stubs.require_admin(caller)
        return agent_status(await stubs.get_cluster(cluster_id, caller))

    @routes.post("/cancel", operation_id="cancel_all")
    async def cancel_all(caller: Asking, body: CancelAllBody) -> CancelAllAnswer:
        """Cancels every command of a session, an owner, a cluster or a conversation, on every broker replica.

        Those that run are stopped, those that wait are not run. It is no ban: what is asked for afterwards runs. Revoke
        the key first of whoever is to ask no more. It may be asked again, as long as there are some left.
        """
        whose = body.model_dump(exclude_unset=True)
        if body.correlation_id:
            whose.pop("owner", None)
            correlation_id = whose.pop("correlation_id")
            whose["conversation"] = admin_service_pb2.Conversation(correlation_id=correlation_id, owner=body.owner)
        request = admin_service_pb2.CancelAllRequest(**whose)
        answer = await stubs.cancel_all(request, caller)
        return CancelAllAnswer(cancelled=answer.cancelled, unreached_replica_ids=sorted(answer.unreached_replica_ids))

    return routes
