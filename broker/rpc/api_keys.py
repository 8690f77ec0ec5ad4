"""The methods of AdminService that make, list and revoke API keys."""

import re
from typing import Any

import grpc

from broker.api_keys import ApiKeys
from broker.core.credentials import SCOPES, Caller, Credentials, Key
from broker.core.patterns import EVERY
from broker.core.quotas import Quota
from broker.paging import MAX_PAGE, page_size, sorted_page
from broker.rpc.audited import CHOSEN, CHOSEN_MEANS, Audited, check, check_patterns, check_ttl, instant
from broker.rpc.callers import admitted
from openline.v1 import admin_service_pb2 as pb

# It is in keys of Redis, logs and URLs.
OWNER = re.compile(r"[A-Za-z0-9._@-]{1,100}")
MAX_COMMANDS_PER_MINUTE = 10_000_000
MAX_IN_FLIGHT = 1_000_000

Context = grpc.aio.ServicerContext[Any, Any]


class ApiKeyMethods:
    def __init__(self, keys: ApiKeys, credentials: Credentials, audited: Audited) -> None:
        self._keys = keys
        self._credentials = credentials
        self._audited = audited

    async def CreateApiKey(  # noqa: N802
        self, request: pb.CreateApiKeyRequest, context: Context
    ) -> pb.CreateApiKeyResponse:
        """The one time that a key is answered."""
        with self._audited(context, "create_api_key") as action:
            wanted = _wanted(request)
            action.detail = f"for {wanted.owner}: {'+'.join(wanted.scopes)} on {'|'.join(wanted.clusters.texts)}"
            key, secret = await self._keys.create(wanted, admin=action.caller, chosen=request.key, ttl_s=request.ttl_s)
            action.detail = f"key {key.caller.key_id} {action.detail}"
        return pb.CreateApiKeyResponse(api_key=_shown(key), key=secret)

    async def ListApiKeys(  # noqa: N802
        self, request: pb.ListApiKeysRequest, context: Context
    ) -> pb.ListApiKeysResponse:
        """A page of them; its token is where the page before ended."""
        admin = admitted(self._credentials, context, "AdminService.ListApiKeys")
        listed = (key for key in self._keys.listed(admin) if request.owner in ("", key.caller.owner))
        size = page_size(request.page_size, usual=MAX_PAGE)
        page = sorted_page(listed, _place, _shown, size=size, token=request.page_token)
        return pb.ListApiKeysResponse(api_keys=page.items, next_page_token=page.next_token)

    async def RevokeApiKey(  # noqa: N802
        self, request: pb.RevokeApiKeyRequest, context: Context
    ) -> pb.RevokeApiKeyResponse:
        """Raises KEY_UNKNOWN, also for one that sees more than the admin's."""
        with self._audited(context, "revoke_api_key", detail=f"key {request.key_id}") as action:
            revoked = await self._keys.revoke(request.key_id, admin=action.caller)
            action.detail = f"key {request.key_id} of {revoked.caller.owner}"
        return pb.RevokeApiKeyResponse()


def _wanted(request: pb.CreateApiKeyRequest) -> Caller:
    """Whom the key is to be for. Raises INVALID_COMMAND."""
    patterns, clusters = check_patterns(request.clusters, usual=EVERY)
    quota = request.quota
    check(
        ("owner", OWNER.fullmatch(request.owner), "must be 1..100 of [A-Za-z0-9._@-]"),
        (
            "scopes",
            request.scopes and SCOPES.issuperset(request.scopes),
            f"must be one of {', '.join(sorted(SCOPES))}, or more",
        ),
        clusters,
        check_ttl(request.ttl_s),
        ("key", not request.key or CHOSEN.fullmatch(request.key), CHOSEN_MEANS),
        (
            "quota.commands_per_minute",
            quota.commands_per_minute <= MAX_COMMANDS_PER_MINUTE,
            f"must be at most {MAX_COMMANDS_PER_MINUTE}",
        ),
        ("quota.in_flight", quota.in_flight <= MAX_IN_FLIGHT, f"must be at most {MAX_IN_FLIGHT}"),
    )
    return Caller(
        owner=request.owner,
        scopes=tuple(sorted(set(request.scopes))),
        clusters=patterns,
        quota=Quota(quota.commands_per_minute, quota.in_flight) if request.HasField("quota") else None,
    )


def _place(key: Key) -> tuple[str, str]:
    """Where it stands in a list."""
    return key.caller.owner, key.caller.key_id


def _shown(key: Key) -> pb.ApiKey:
    caller, quota = key.caller, key.caller.quota
    return pb.ApiKey(
        key_id=caller.key_id,
        owner=caller.owner,
        scopes=caller.scopes,
        clusters=() if caller.clusters.is_every else caller.clusters.texts,
        created_at=instant(key.created_at),
        expires_at=instant(key.expires_at),
        quota=None if quota is None else pb.KeyQuota(commands_per_minute=quota.commands, in_flight=quota.in_flight),
    )
