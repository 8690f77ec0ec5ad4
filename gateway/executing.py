"""Running a command for a REST caller: until its answer, or until the caller leaves, whichever is first.

A command whose caller left runs on, unless it was to be cancelled then; the broker sees to that.
"""

from contextlib import aclosing

from fastapi import Request
from pydantic import BaseModel
from starlette.types import Scope

from gateway.answers import stopped_early
from gateway.callers import Caller
from gateway.freshness import age_headers
from gateway.leaving import while_there
from gateway.problems import ProblemResponse, problem
from gateway.rate_limits import rate_limit_headers
from openline import watching
from openline.errors import OpenlineError
from openline.events import CommandEvents
from openline.limits import DEADLINE_ALLOWANCE_S
from openline.pipes import Pipes
from openline.reasons import MEANING, reason_of
from openline.tracing.calls import calling
from openline.v1.command_service_pb2 import ExecuteRequest, ExecuteResponse

# The broker allows the executor so long after the deadline; the gateway allows the broker the same on top.
WAIT_ALLOWANCE_S = 2 * DEADLINE_ALLOWANCE_S
# Of an answer that is an earlier request's.
REPLAYED = {"Idempotency-Replayed": "true"}


def patience_s(request: ExecuteRequest) -> float:
    """How long to wait for the broker, all told."""
    return request.timeout_s + request.wait_for_cluster_s + WAIT_ALLOWANCE_S


async def run(pipes: Pipes, request: ExecuteRequest, caller: Caller, http: Request) -> ExecuteResponse:
    """The result, also of a command that ended in time-out or cancel before an executor had it.

    Raises OpenlineError for any other that has none, and CallerGone.
    """
    async with while_there(http.receive):
        return await execute(pipes, request, caller)


async def execute(pipes: Pipes, request: ExecuteRequest, caller: Caller) -> ExecuteResponse:
    """The same, whether the caller is still there or not."""
    try:
        with calling("CommandService/Execute", request, server=pipes.addresses) as call:
            response = await pipes.execute(request, api_key=caller.api_key, timeout_s=patience_s(request))
            call.result(response.result)
            return response
    except OpenlineError as failure:
        return ExecuteResponse(result=stopped_early(failure))


async def run_live(pipes: Pipes, request: ExecuteRequest, caller: Caller) -> CommandEvents:
    """The events, to be owned by whoever shows them."""
    with calling("CommandService/ExecuteStream", request, server=pipes.addresses) as call:
        asked = watching.execute_stream(pipes, request, api_key=caller.api_key, timeout_s=patience_s(request))
        async with aclosing(asked) as events:
            async for event in events:
                if event.HasField("result"):
                    call.result(event.result)
                yield event


def answer_headers(response: ExecuteResponse) -> dict[str, str]:
    """What an answer says beside the command: whose it is, and what is left of the key's quotas."""
    replayed = REPLAYED if response.replayed else {}
    return replayed | age_headers(response.result) | rate_limit_headers(response.quotas)


def answered_problem(scope: Scope, response: ExecuteResponse, answer: BaseModel) -> ProblemResponse:
    """A command that was stopped, as an error with everything that its answer has."""
    failure = response.result.error
    members = answer.model_dump(mode="json")
    return problem(
        scope,
        MEANING[reason_of(failure)].http,
        failure.message or "the command was stopped",
        failure=failure,
        members=members,
        headers=answer_headers(response),
    )
