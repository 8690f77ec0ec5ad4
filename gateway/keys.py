"""/admin/keys: API keys made, listed and revoked. For admins."""

from typing import Annotated

from fastapi import APIRouter, Query

from gateway.answers import instant
from gateway.callers import Asking
from gateway.key_models import KeyAnswer, KeyBody, KeyListed, KeyPage, KeyQuotaShape
from gateway.problems import KEY_PROBLEMS, PROBLEMS
from gateway.stubs import Stubs
from openline.v1 import admin_service_pb2

MAX_LIMIT = 1000


def key_routes(stubs: Stubs) -> APIRouter:
    routes = APIRouter(prefix="/admin/keys", tags=["admin"], responses=PROBLEMS)

    @routes.post("", operation_id="create_key", status_code=201, responses=KEY_PROBLEMS)
    async def create_key(caller: Asking, body: KeyBody) -> KeyAnswer:
        """Makes an API key for an owner, or takes the one that is given. The key is answered this once.

        It has no scope that the asking key has not, and sees no cluster that the asking one does not see. A given key
        that there is, or was before it was revoked, is a 409.
        """
        request = admin_service_pb2.CreateApiKeyRequest(
            owner=body.owner,
            scopes=body.scopes,
            clusters=body.clusters,
            ttl_s=body.ttl_seconds or 0.0,
            key=body.key or "",
            quota=None if body.quota is None else admin_service_pb2.KeyQuota(**body.quota.model_dump()),
        )
        created = await stubs.create_key(request, caller)
        return KeyAnswer(key=created.key, **key_listed(created.api_key).model_dump())

    @routes.get("", operation_id="list_keys")
    async def list_keys(
        caller: Asking,
        owner: Annotated[str, Query(max_length=200, description="Only of this owner.")] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many at most.")] = MAX_LIMIT,
        cursor: Annotated[str, Query(max_length=400, description="The `next_cursor` of the answer before.")] = "",
    ) -> KeyPage:
        """Lists the API keys that are good, with what each may do, and never the key."""
        request = admin_service_pb2.ListApiKeysRequest(owner=owner, page_size=limit, page_token=cursor)
        page = await stubs.list_keys(request, caller)
        keys = [key_listed(key) for key in page.api_keys]
        return KeyPage(keys=keys, count=len(keys), next_cursor=page.next_page_token or None)

    @routes.delete("/{key_id}", operation_id="revoke_key", status_code=204)
    async def revoke_key(key_id: str, caller: Asking) -> None:
        """Revokes an API key. It is refused within a second, and what it watches ends; its commands run on."""
        await stubs.revoke_key(key_id, caller)

    return routes


def key_listed(key: admin_service_pb2.ApiKey) -> KeyListed:
    quota = key.quota
    return KeyListed(
        key_id=key.key_id,
        owner=key.owner,
        scopes=list(key.scopes),
        clusters=list(key.clusters),
        created_at=instant(key.created_at),
        expires_at=instant(key.expires_at),
        quota=KeyQuotaShape(commands_per_minute=quota.commands_per_minute, in_flight=quota.in_flight)
        if key.HasField("quota")
        else None,
    )
