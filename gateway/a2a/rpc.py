"""JSON-RPC 2.0 as A2A uses it: a request to a POST, and its answer. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import orjson

RequestId = str | int | None


class Code(IntEnum):
    """Of JSON-RPC, and of A2A's specification (in 1.0: 9.5)."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603
    TASK_NOT_FOUND = -32001
    TASK_NOT_CANCELABLE = -32002
    PUSH_NOTIFICATION_NOT_SUPPORTED = -32003
    UNSUPPORTED_OPERATION = -32004
    CONTENT_TYPE_NOT_SUPPORTED = -32005
    EXTENDED_AGENT_CARD_NOT_CONFIGURED = -32007
    VERSION_NOT_SUPPORTED = -32009


class RpcError(Exception):
    """What is answered instead of a result. `known` is said for programs."""

    def __init__(
        self, code: Code, message: str, *, known: Mapping[str, str] | None = None, number: RequestId = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.known = known or {}
        # Of the request, where it has one and is none otherwise.
        self.number = number


@dataclass(frozen=True, slots=True)
class Call:
    """A request."""

    id: RequestId
    method: str
    params: Mapping[str, Any]


def read_call(body: bytes) -> Call:
    """Raises RpcError. What has no id is no request: every method here has an answer."""
    try:
        said = orjson.loads(body)
    except ValueError:
        raise RpcError(Code.PARSE_ERROR, "The body is not JSON") from None
    if isinstance(said, list):
        raise RpcError(Code.INVALID_REQUEST, "Batches are not taken: send one request")
    if not isinstance(said, dict) or said.get("jsonrpc") != "2.0":
        raise RpcError(Code.INVALID_REQUEST, 'The body is no request of JSON-RPC 2.0 ("jsonrpc": "2.0")')
    number, method, params = said.get("id"), said.get("method"), said.get("params", {})
    if not isinstance(number, str | int) or isinstance(number, bool):
        raise RpcError(Code.INVALID_REQUEST, "id: must be a string or an integer")
    if not isinstance(method, str):
        raise RpcError(Code.INVALID_REQUEST, "method: must be a string", number=number)
    if not isinstance(params, dict):
        raise RpcError(Code.INVALID_PARAMS, "params: must be an object", number=number)
    return Call(number, method, params)


def answered(number: RequestId, result: Mapping[str, Any]) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": number, "result": result})


def refused(number: RequestId, why: RpcError) -> bytes:
    """With details as 1.0 has them, which are as good as any others in 0.3."""
    details = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": why.code.name,
        "domain": "a2a-protocol.org",
        "metadata": dict(why.known),
    }
    failure = {"code": int(why.code), "message": str(why), "data": [details]}
    return orjson.dumps({"jsonrpc": "2.0", "id": number, "error": failure})
