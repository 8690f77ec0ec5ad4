"""Errors as HTTP: one table from reasons to status codes, and the problem documents of RFC 9457.

`detail` stays what callers of the old API read: a string, and for 422 a list as FastAPI makes it.
"""

import http
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import Scope

from gateway.argv import Unacceptable
from gateway.exchange import Exchange
from gateway.leaving import CallerGone
from gateway.models import Problem
from gateway.rate_limits import RATE_LIMIT_HEADERS, headers_of_error
from openline.errors import OpenlineError, next_step
from openline.reasons import EXECUTED_TEXT, MEANING, NO, UNKNOWN, Reason, reason_of
from openline.v1 import command_pb2

# What the old API said, word for word; its callers compare. CLUSTER_UNKNOWN names the clusters that there are.
DROP_IN_DETAIL: dict[Reason, str] = {
    Reason.UNAUTHENTICATED: "Invalid API key",
    Reason.SESSION_UNKNOWN: "Session not found",
    Reason.SESSION_MISMATCH: "Session cluster mismatch",
}


def _described(statuses: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """What routes may answer instead, for their documentation."""
    return {status: {"model": Problem, "description": description} for status, description in statuses.items()}


RETRY_AFTER = {"description": "Seconds.", "schema": {"type": "integer"}}
# Of every route.
PROBLEMS = _described(
    {
        400: "The session is for another cluster, a time (of /audit) is none, or the request is no HTTP.",
        401: "No API key, or one that is not known.",
        403: "The key lacks a scope, or the policy forbids it.",
        404: "No such cluster, session or command.",
        408: "The body did not come in time.",
        413: "The body is too large.",
        422: "The request is not valid.",
        429: "The cluster is busy, or a quota of the key is used up.",
        431: "The request's head is too large.",
        500: "A defect of the gateway's or the broker's.",
        501: "The broker does not do this yet.",
        502: "Its executor is lost, or could not start the command.",
        503: "No executor of the cluster is connected (CLUSTER_OFFLINE), or no broker replica.",
    }
)
PROBLEMS[401]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
PROBLEMS[429]["headers"] = {"Retry-After": RETRY_AFTER} | RATE_LIMIT_HEADERS
PROBLEMS[503]["headers"] = {"Retry-After": RETRY_AFTER}
COMMAND_PROBLEMS = PROBLEMS | _described(
    {
        409: "The command has not ended (of its output).",
        410: "Its result has expired.",
        499: "The command was cancelled (when it is run).",
        504: "The command ran out of time (when it is run).",
    }
)

# Of /debug/execute, where a command that was stopped is an ordinary answer as a rule.
EXECUTE_PROBLEMS = _described(
    {
        410: "The result of the command that has this idempotency key has expired.",
        499: "The command was cancelled before there was anything to stream.",
        504: "The command ran out of time (with `Prefer: handling=strict`).",
    }
)

KEY_PROBLEMS = _described({409: "There is this very key, or was."})
TOKEN_PROBLEMS = _described({409: "The cluster has this very token, or had it."})

# Where a caller wrote what a broker finds wrong, if not under the same name in the body.
_PLACES = {"idempotency_key": ("header", "Idempotency-Key"), "page_token": ("query", "cursor")}

# What a path may have in it unencoded (RFC 3986, 3.3).
_IN_PATHS = "/:@!$&'()*+,;=~"

Detail = str | list[dict[str, Any]]


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


def problem(
    scope: Scope,
    status: int,
    detail: Detail,
    *,
    failure: command_pb2.Error | None = None,
    executed: command_pb2.Executed.ValueType = NO,
    members: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> ProblemResponse:
    """The answer for something that could not be done: `failure` is the broker's error, where it was the broker.

    Without one, `executed` says whether the command's process was started.
    """
    exchange = Exchange.of(scope)
    told = failure or command_pb2.Error(executed=executed)
    reason = reason_of(told) if failure else None
    # A look and a cancel run nothing, whatever became of the command that they are about.
    harmless = told.executed == NO or scope["method"] in ("GET", "DELETE")
    retryable = reason is not None and MEANING[reason].retryable and harmless
    content: dict[str, Any] = {
        "type": f"urn:openline:problem:{reason.lower()}" if reason else "about:blank",
        "title": _title(status, reason),
        "status": status,
        "detail": detail,
        "instance": quote(scope["path"], safe=_IN_PATHS),
        "reason": reason,
        "executed": EXECUTED_TEXT.get(told.executed, "unknown"),
        "retryable": retryable,
        "next_step": next_step(told) if reason else None,
        "request_id": exchange.request_id,
        "correlation_id": exchange.correlation_id,
    }
    out = dict(headers or {})
    if reason:
        exchange.facts["reason"] = reason
    if told.executed == UNKNOWN and "command_id" in exchange.facts:
        # Where to look whether it ran; the broker that would have said so may not have answered.
        content["command_id"] = exchange.facts["command_id"]
    if reason is Reason.CLUSTER_OFFLINE:
        content["last_seen"] = told.metadata.get("last_seen")
    if retryable:
        out["Retry-After"] = str(max(1, math.ceil(told.retry_after_s)))
    if reason is Reason.QUOTA_EXCEEDED:
        out |= headers_of_error(told.metadata)
    if status == 401:
        out["WWW-Authenticate"] = "Bearer"
    # What is above stands, whatever a broker's metadata or an answer call theirs.
    known = {name: value for name, value in sorted(told.metadata.items()) if value}
    return ProblemResponse({**known, **(members or {}), **content}, status_code=status, headers=out)


def problem_of(scope: Scope, failure: OpenlineError) -> ProblemResponse:
    """What a broker answered, or that none did."""
    reason = failure.reason
    status = MEANING[reason].http
    detail = DROP_IN_DETAIL.get(reason, failure.error.message)
    if reason is Reason.CLUSTER_UNKNOWN:
        detail = _no_cluster(failure.error)
    if status == 422:
        wrong = [_wrong(_PLACES.get(v.field, ("body", v.field)), v.description) for v in failure.error.violations]
        return _invalid(scope, wrong or [_wrong(("body",), failure.error.message)], failure=failure.error)
    return problem(scope, status, detail, failure=failure.error)


async def on_openline_error(request: Request, failure: OpenlineError) -> ProblemResponse:
    return problem_of(request.scope, failure)


async def on_caller_gone(_request: Request, _failure: CallerGone) -> Response:
    """For the log line: nobody reads it."""
    return Response(status_code=499)


async def on_unacceptable(request: Request, failure: Unacceptable) -> ProblemResponse:
    return _invalid(request.scope, [_wrong((failure.where, failure.field), str(failure))])


async def on_validation_error(request: Request, failure: RequestValidationError) -> ProblemResponse:
    """FastAPI's list, without the input: it may hold anything."""
    return _invalid(request.scope, [_found(error) for error in failure.errors()])


async def on_http_exception(request: Request, failure: HTTPException) -> ProblemResponse:
    """What the framework refuses: no such route or method, a body that is not JSON."""
    if failure.status_code == 400 and isinstance(failure.__cause__, ValueError | RecursionError):
        # Neither UTF-8 nor sane: for the caller the same as any other body that is not JSON.
        return _invalid(request.scope, [_wrong(("body",), "JSON decode error", kind="json_invalid")])
    headers = dict(failure.headers or {})
    if failure.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return problem(request.scope, failure.status_code, failure.detail, headers=headers)


async def on_defect(request: Request, _failure: Exception) -> ProblemResponse:
    """A defect of ours; the server logs it."""
    failure = command_pb2.Error(reason=Reason.INTERNAL, executed=MEANING[Reason.INTERNAL].executed)
    return problem(request.scope, 500, "Internal error", failure=failure)


def _methods(request: Request) -> set[str]:
    """What the resource can be asked, by all of its routes: the framework tells of the first one only."""
    routes = iter_route_contexts(request.app.routes)
    here = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return {method for route in here for method in route.methods or ()}


def _invalid(scope: Scope, wrong: list[dict[str, Any]], *, failure: command_pb2.Error | None = None) -> ProblemResponse:
    """FastAPI's list as the detail, for callers of the old API; a sentence, and the list beside it, on /v1."""
    failure = failure or command_pb2.Error(reason=Reason.INVALID_COMMAND, executed=NO)
    if not scope["path"].startswith("/v1/"):
        return problem(scope, 422, wrong, failure=failure)
    told = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in wrong)
    return problem(scope, 422, told, failure=failure, members={"errors": wrong})


def _found(error: Mapping[str, Any]) -> dict[str, Any]:
    """One of pydantic's, which counts "items after validation" of a string that is checked by a function as well."""
    kind, said = error["type"], error["msg"]
    if kind in ("too_short", "too_long") and isinstance(error.get("input"), str):
        kind = f"string_{kind}"
        said = re.sub(r"^Value (.*) item(s?) after .*", r"String \1 character\2", said)
    return _wrong(error["loc"], said, kind=kind)


def _wrong(where: Sequence[str | int], why: str, *, kind: str = "value_error") -> dict[str, Any]:
    return {"type": kind, "loc": list(where), "msg": why}


def _no_cluster(failure: command_pb2.Error) -> str:
    available = ", ".join(filter(None, failure.metadata.get("available", "").split(",")))
    return f"Cluster '{failure.metadata.get('cluster_id', '')}' not found. Available clusters: {available or 'none'}"


def _title(status: int, reason: Reason | None) -> str:
    if reason:
        return reason.replace("_", " ").capitalize()
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"
