"""AdminService: executor tokens made, listed and revoked, this replica drained, the audit trail. No API keys yet."""

import contextlib
import heapq
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from broker.audit import Audit
from broker.core.credentials import Caller, Credentials
from broker.core.tokens import Token
from broker.draining import Draining
from broker.registry import Registry
from broker.rpc.audit import AuditEntries
from broker.rpc.service import credential, shown
from broker.tokens import Tokens
from openline import errors
from openline.ids import is_cluster_id
from openline.lookups import CORRELATION_ID
from openline.reasons import Reason
from openline.v1 import admin_service_pb2 as pb

MAX_PAGE = 1000
MAX_TTL_S = 10 * 365 * 24 * 3600.0
MAX_SPREAD_S = 3600.0
MAX_REASON_CHARACTERS = 200
# What fits into a header and into every tool: of Base64's alphabet for URLs, and long enough not to be guessed.
CHOSEN_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,128}")

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(slots=True)
class Action:
    """What an admin does, as the audit trail will say it."""

    caller: Caller
    detail: str


class AdminService:
    def __init__(
        self,
        tokens: Tokens,
        credentials: Credentials,
        registry: Registry,
        draining: Draining,
        trail: AuditEntries,
        audit: Audit,
    ) -> None:
        self._tokens = tokens
        self._credentials = credentials
        self._registry = registry
        self._draining = draining
        self._audit = audit
        self.ListAuditEntries = trail.ListAuditEntries

    async def CreateExecutorToken(  # noqa: N802
        self, request: pb.CreateExecutorTokenRequest, context: Context
    ) -> pb.CreateExecutorTokenResponse:
        """The one time that a token is answered."""
        with self._audited(context, "create_executor_token", cluster_id=request.cluster_id) as action:
            _check(
                ("cluster_id", is_cluster_id(request.cluster_id), "must match [a-z0-9]([a-z0-9-]*[a-z0-9])?"),
                (
                    "token",
                    not request.token or CHOSEN_TOKEN.fullmatch(request.token),
                    "must be 32..128 of [A-Za-z0-9_-]",
                ),
                # Written so that NaN is refused as well.
                ("ttl_s", 0 <= request.ttl_s <= MAX_TTL_S, f"must be 0..{MAX_TTL_S:.0f}"),
            )
            token, secret = await self._tokens.create(request.cluster_id, chosen=request.token, ttl_s=request.ttl_s)
            action.detail = f"token {token.token_id}"
        return pb.CreateExecutorTokenResponse(executor_token=_shown(token), token=secret)

    async def ListExecutorTokens(  # noqa: N802
        self, request: pb.ListExecutorTokensRequest, context: Context
    ) -> pb.ListExecutorTokensResponse:
        """A page of them; its token is where the page before ended."""
        caller = self._credentials.caller(credential(context), clock_s=time.time())
        caller.require("admin")
        if request.cluster_id:
            self._registry.require(request.cluster_id, caller)
        size = min(request.page_size or MAX_PAGE, MAX_PAGE)
        after = tuple(request.page_token.split(" ", 1))
        left = (token for token in self._tokens.listed(request.cluster_id) if _place(token) > after)
        # Not all of them are sorted for a page, and they may be many.
        page = heapq.nsmallest(size + 1, left, key=_place)
        has_more = len(page) > size
        return pb.ListExecutorTokensResponse(
            executor_tokens=map(_shown, page[:size]),
            next_page_token=" ".join(_place(page[size - 1])) if has_more else "",
        )

    async def RevokeExecutorToken(  # noqa: N802
        self, request: pb.RevokeExecutorTokenRequest, context: Context
    ) -> pb.RevokeExecutorTokenResponse:
        """Raises CLUSTER_UNKNOWN for a cluster without any, TOKEN_UNKNOWN for one that has none of this id."""
        detail = f"token {request.token_id}" if request.token_id else "all tokens"
        with self._audited(context, "revoke_executor_token", cluster_id=request.cluster_id, detail=detail) as action:
            revoked = await self._tokens.revoke(request.cluster_id, request.token_id) if request.cluster_id else []
            if not revoked:
                self._registry.require(request.cluster_id, action.caller)
                raise errors.OpenlineError(errors.error(Reason.TOKEN_UNKNOWN, "the cluster has no token of this id"))
        return pb.RevokeExecutorTokenResponse(revoked=len(revoked))

    async def Drain(self, request: pb.DrainRequest, context: Context) -> pb.DrainResponse:  # noqa: N802
        reason = request.reason or "the replica is drained"
        with self._audited(context, "drain", detail=reason):
            _check(
                ("spread_s", 0 <= request.spread_s <= MAX_SPREAD_S, f"must be 0..{MAX_SPREAD_S:g}"),
                (
                    "reason",
                    len(reason) <= MAX_REASON_CHARACTERS and reason.isprintable(),
                    f"must have at most {MAX_REASON_CHARACTERS} characters, all of them printable",
                ),
            )
            return pb.DrainResponse(executors=self._draining.begin(reason, spread_s=request.spread_s))

    @contextlib.contextmanager
    def _audited(self, context: Context, name: str, *, cluster_id: str = "", detail: str = "") -> Iterator[Action]:
        """What is done within goes into the audit trail, done or refused. Raises UNAUTHENTICATED, SCOPE_MISSING."""
        caller = self._credentials.caller(credential(context), clock_s=time.time())
        action = Action(caller, detail)
        correlation_id = shown(context, CORRELATION_ID) or ""
        tell = partial(self._audit.admin, name, caller, cluster_id=cluster_id, correlation_id=correlation_id)
        try:
            caller.require("admin")
            yield action
        except errors.OpenlineError as refusal:
            tell(detail=action.detail, error=refusal.error)
            raise
        tell(detail=action.detail)


def _check(*fields: tuple[str, object, str]) -> None:
    """Raises INVALID_COMMAND unless every field (its name, whether it is good, what it must be) is good."""
    wrong: Sequence[tuple[str, str]] = [(name, description) for name, good, description in fields if not good]
    if wrong:
        raise errors.OpenlineError(errors.error(Reason.INVALID_COMMAND, "the request is not valid", violations=wrong))


def _place(token: Token) -> tuple[str, str]:
    """Where it stands in a list."""
    return token.cluster_id, token.token_id


def _shown(token: Token) -> pb.ExecutorToken:
    shown = pb.ExecutorToken(token_id=token.token_id, cluster_id=token.cluster_id)
    if token.created_at is not None:
        shown.created_at.FromMilliseconds(round(token.created_at * 1000))
    if token.expires_at is not None:
        shown.expires_at.FromMilliseconds(round(token.expires_at * 1000))
    return shown
