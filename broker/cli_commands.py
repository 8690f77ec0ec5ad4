"""What `openline-broker token`, `… key` and `… log-level` ask, and what they have to show for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from broker import cli_settings as settings
from broker.rpc.operator import Operator
from openline.v1 import admin_service_pb2 as pb
from openline.v1.admin_service_pb2_grpc import AdminServiceStub

USUAL = "usual"
LOG_LEVELS = {
    "debug": "Everything is logged, what becomes of each command step by step.",
    "info": "A line for each command and for each connection, and what is above.",
    "warning": "What somebody should look at.",
    "error": "What is wrong.",
    USUAL: "Each replica logs as it was started.",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """The answer for a program, and the lines for a person."""

    record: Any
    # For stdout.
    lines: Sequence[str] = ()
    # For stderr: what would be in the way of who reads a secret from stdout.
    aside: str = ""
    # For stdout as well: a table, with the names of its columns.
    rows: Sequence[Sequence[str]] = ()


async def create_token(given: settings.TokenCreateSettings, operator: Operator) -> Shown:
    request = pb.CreateExecutorTokenRequest(cluster_id=given.cluster_id, ttl_s=given.ttl)
    made = await operator.ask(lambda channel: AdminServiceStub(channel).CreateExecutorToken, request)
    token = made.executor_token
    aside = f"token {token.token_id} of cluster {token.cluster_id}, expires {_when(token.expires_at)}"
    return Shown({"token": made.token, **record(token)}, [made.token], aside)


async def list_tokens(given: settings.TokenListSettings, operator: Operator) -> Shown:
    request = pb.ListExecutorTokensRequest(cluster_id=given.cluster_id)
    pages = operator.pages(lambda channel: AdminServiceStub(channel).ListExecutorTokens, request)
    tokens = [token async for page in pages for token in page.executor_tokens]
    rows = [(each.token_id, each.cluster_id, _made(each.created_at), _when(each.expires_at)) for each in tokens]
    return Shown([record(token) for token in tokens], rows=[("TOKEN ID", "CLUSTER", "CREATED", "EXPIRES"), *rows])


async def revoke_token(given: settings.TokenRevokeSettings, operator: Operator) -> Shown:
    request = pb.RevokeExecutorTokenRequest(cluster_id=given.cluster_id, token_id=given.token_id)
    revoked = (await operator.ask(lambda channel: AdminServiceStub(channel).RevokeExecutorToken, request)).revoked
    return Shown({"revoked": revoked}, [f"revoked {revoked} of cluster {given.cluster_id}"])


async def create_key(given: settings.KeyCreateSettings, operator: Operator) -> Shown:
    quota = None
    if given.commands_per_minute is not None or given.in_flight is not None:
        quota = pb.KeyQuota(commands_per_minute=given.commands_per_minute or 0, in_flight=given.in_flight or 0)
    request = pb.CreateApiKeyRequest(
        owner=given.owner, scopes=given.scopes, clusters=given.clusters, ttl_s=given.ttl, quota=quota
    )
    made = await operator.ask(lambda channel: AdminServiceStub(channel).CreateApiKey, request)
    key = made.api_key
    aside = f"key {key.key_id} of {key.owner}, expires {_when(key.expires_at)}"
    return Shown({"key": made.key, **record(key)}, [made.key], aside)


async def list_keys(given: settings.KeyListSettings, operator: Operator) -> Shown:
    request = pb.ListApiKeysRequest(owner=given.owner)
    pages = operator.pages(lambda channel: AdminServiceStub(channel).ListApiKeys, request)
    keys = [key async for page in pages for key in page.api_keys]
    head = ("KEY ID", "OWNER", "SCOPES", "CLUSTERS", "CREATED", "EXPIRES", "A MINUTE", "IN FLIGHT")
    return Shown([record(key) for key in keys], rows=[head, *map(_row, keys)])


async def revoke_key(given: settings.KeyRevokeSettings, operator: Operator) -> Shown:
    await operator.ask(
        lambda channel: AdminServiceStub(channel).RevokeApiKey, pb.RevokeApiKeyRequest(key_id=given.key_id)
    )
    return Shown({"revoked": 1}, [f"revoked {given.key_id}"])


async def set_log_level(name: str, given: settings.LogLevelSettings, operator: Operator) -> Shown:
    level = pb.LOG_LEVEL_UNSPECIFIED if name == USUAL else pb.LogLevel.Value(f"LOG_LEVEL_{name.upper()}")
    request = pb.SetLogLevelRequest(level=level, for_s=given.for_s, replica_id=given.replica_id)
    answer = await operator.ask(lambda channel: AdminServiceStub(channel).SetLogLevel, request)
    now = "as it was started" if name == USUAL else f"{name} for {given.for_s:g} s"
    lines = [f"{replica_id} logs {now}" for replica_id in answer.replica_ids]
    unreached = ", ".join(answer.unreached_replica_ids)
    return Shown(record(answer), lines, f"not reached: {unreached}" if unreached else "")


def _row(key: pb.ApiKey) -> Sequence[str]:
    quota = (key.quota.commands_per_minute, key.quota.in_flight)
    limits = [str(limit or "no limit") if key.HasField("quota") else "usual" for limit in quota]
    scopes, clusters = "+".join(key.scopes), "|".join(key.clusters) or "*"
    return (key.key_id, key.owner, scopes, clusters, _made(key.created_at), _when(key.expires_at), *limits)


def record(message: Message) -> dict[str, Any]:
    """Its fields under their names; times as RFC 3339 has them, those that are not set left out."""
    record: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return record


def _when(stamp: Timestamp) -> str:
    return _seconds(stamp) if stamp.ByteSize() else "never"


def _made(stamp: Timestamp) -> str:
    return _seconds(stamp) if stamp.ByteSize() else "at start"


def _seconds(stamp: Timestamp) -> str:
    return Timestamp(seconds=stamp.seconds).ToJsonString()
