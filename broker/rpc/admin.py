"""AdminService: executor tokens made, listed and revoked; and the methods that others have."""

from typing import Any

import grpc

from broker.core.credentials import Credentials
from broker.core.tokens import Token
from broker.paging import MAX_PAGE, page_size, sorted_page
from broker.registry import Registry
from broker.rpc.api_keys import ApiKeyMethods
from broker.rpc.audit import AuditEntries
from broker.rpc.audited import CHOSEN, CHOSEN_MEANS, Audited, check, check_ttl, instant
from broker.rpc.callers import admitted
from broker.rpc.cancel_all import CancelAllMethod
from broker.rpc.drain import DrainMethod
from broker.rpc.log_level import SetLogLevelMethod
from broker.rpc.overview import OverviewMethods
from broker.tokens import Tokens
from openline import errors
from openline.ids import is_cluster_id
from openline.reasons import Reason
from openline.v1 import admin_service_pb2 as pb

Context = grpc.aio.ServicerContext[Any, Any]


class AdminService:
    def __init__(
        self,
        tokens: Tokens,
        credentials: Credentials,
        registry: Registry,
        keys: ApiKeyMethods,
        killing: CancelAllMethod,
        draining: DrainMethod,
        overviews: OverviewMethods,
        trail: AuditEntries,
        audited: Audited,
        logs: SetLogLevelMethod,
    ) -> None:
        self._tokens = tokens
        self._credentials = credentials
        self._registry = registry
        self._audited = audited
        self.CreateApiKey = keys.CreateApiKey
        self.ListApiKeys = keys.ListApiKeys
        self.RevokeApiKey = keys.RevokeApiKey
        self.CancelAll = killing.CancelAll
        self.Drain = draining.Drain
        self.GetOverview = overviews.GetOverview
        self.WatchOverview = overviews.WatchOverview
        self.ListAuditEntries = trail.ListAuditEntries
        self.SetLogLevel = logs.SetLogLevel

    async def CreateExecutorToken(  # noqa: N802
        self, request: pb.CreateExecutorTokenRequest, context: Context
    ) -> pb.CreateExecutorTokenResponse:
        """The one time that a token is answered."""
        with self._audited(context, "create_executor_token", cluster_id=request.cluster_id) as action:
            check(
                ("cluster_id", is_cluster_id(request.cluster_id), "must match [a-z0-9]([a-z0-9-]*[a-z0-9])?"),
                ("token", not request.token or CHOSEN.fullmatch(request.token), CHOSEN_MEANS),
                check_ttl(request.ttl_s),
            )
            # A new cluster need not be there yet; one that the key would not see is none, whether it is there or not.
            if not action.caller.sees(request.cluster_id):
                self._registry.require(request.cluster_id, action.caller)
            token, secret = await self._tokens.create(request.cluster_id, chosen=request.token, ttl_s=request.ttl_s)
            action.detail = f"token {token.token_id}"
        return pb.CreateExecutorTokenResponse(executor_token=_shown(token), token=secret)

    async def ListExecutorTokens(  # noqa: N802
        self, request: pb.ListExecutorTokensRequest, context: Context
    ) -> pb.ListExecutorTokensResponse:
        """A page of them; its token is where the page before ended."""
        caller = admitted(self._credentials, context, "AdminService.ListExecutorTokens")
        if request.cluster_id:
            self._registry.require(request.cluster_id, caller)
        clusters = [request.cluster_id] if request.cluster_id else self._registry.visible(caller)
        size = page_size(request.page_size, usual=MAX_PAGE)
        page = sorted_page(self._tokens.listed(clusters), _place, _shown, size=size, token=request.page_token)
        return pb.ListExecutorTokensResponse(executor_tokens=page.items, next_page_token=page.next_token)

    async def RevokeExecutorToken(  # noqa: N802
        self, request: pb.RevokeExecutorTokenRequest, context: Context
    ) -> pb.RevokeExecutorTokenResponse:
        """Raises CLUSTER_UNKNOWN for a cluster without any, TOKEN_UNKNOWN for one that has none of this id."""
        detail = f"token {request.token_id}" if request.token_id else "all tokens"
        with self._audited(context, "revoke_executor_token", cluster_id=request.cluster_id, detail=detail) as action:
            # One that the key does not see is looked for as one that has none.
            cluster_id = request.cluster_id if action.caller.sees(request.cluster_id) else ""
            revoked = await self._tokens.revoke(cluster_id, request.token_id)
            if not revoked:
                self._registry.require(request.cluster_id, action.caller)
                raise errors.OpenlineError(errors.error(Reason.TOKEN_UNKNOWN, "the cluster has no token of this id"))
        return pb.RevokeExecutorTokenResponse(revoked=len(revoked))


def _place(token: Token) -> tuple[str, str]:
    """Where it stands in a list."""
    return token.cluster_id, token.token_id


def _shown(token: Token) -> pb.ExecutorToken:
    return pb.ExecutorToken(
        token_id=token.token_id,
        cluster_id=token.cluster_id,
        created_at=instant(token.created_at),
        expires_at=instant(token.expires_at),
    )
