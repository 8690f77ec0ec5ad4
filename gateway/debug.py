"""/debug/execute and /debug/session: commands, and the sessions they may belong to."""

from fastapi import APIRouter, Request, Response

from gateway.answers import execute_answer, session_answer, stopped_early
from gateway.callers import Asking
from gateway.models import ExecuteAnswer, ExecuteBody, SessionAnswer, SessionBody
from gateway.problems import PROBLEMS, problem
from gateway.requests import execute_request, session_request
from gateway.stubs import Stubs
from openline.errors import OpenlineError
from openline.ids import is_cluster_id
from openline.limits import DEADLINE_ALLOWANCE_S
from openline.pipes import Pipes

# The broker allows the executor so long after the deadline; the gateway allows the broker the same on top.
WAIT_ALLOWANCE_S = 2 * DEADLINE_ALLOWANCE_S


def debug_routes(pipes: Pipes, stubs: Stubs) -> APIRouter:
    routes = APIRouter(prefix="/debug", tags=["debug"], responses=PROBLEMS)

    @routes.post("/execute", operation_id="execute", response_model=ExecuteAnswer)
    async def execute(body: ExecuteBody, caller: Asking, http: Request) -> Response:
        """Runs a kubectl command in a cluster and answers with its output.

        A command that fails, runs out of time or is cancelled is a 200 with that `status`; one that could not be run is
        a problem. With `Prefer: handling=strict` running out of time is a 504, with the same fields.
        """
        request = execute_request(body, caller)
        facts = caller.exchange.facts
        facts.update(cluster_id=request.cluster_id, command_id=request.command_id)
        if not is_cluster_id(request.cluster_id):
            raise await stubs.no_such_cluster(request.cluster_id, caller)
        timeout_s = request.timeout_s + WAIT_ALLOWANCE_S
        try:
            result = (await pipes.execute(request, api_key=caller.api_key, timeout_s=timeout_s)).result
        except OpenlineError as failure:
            result = stopped_early(failure)
        answer = execute_answer(result, request)
        facts["outcome"] = answer.status
        if answer.status == "timeout" and caller.is_strict:
            return problem(
                http.scope,
                504,
                answer.error or "the command ran out of time",
                failure=result.error,
                members=answer.model_dump(mode="json"),
                headers={"Preference-Applied": "handling=strict"},
            )
        return Response(answer.model_dump_json(), media_type="application/json")

    @routes.post("/session", operation_id="create_session", status_code=201)
    async def create_session(body: SessionBody, caller: Asking) -> SessionAnswer:
        """Begins a session: a record that commands may name, and that lives on while they do."""
        session = await stubs.create_session(session_request(body, caller), caller)
        caller.exchange.facts.update(cluster_id=session.cluster_id, session_id=session.session_id)
        return session_answer(session)

    @routes.get("/session/{session_id}", operation_id="get_session")
    async def get_session(session_id: str, caller: Asking) -> SessionAnswer:
        """Shows a session. Looking at it does not prolong it."""
        return session_answer(await stubs.get_session(session_id, caller))

    @routes.delete("/session/{session_id}", operation_id="delete_session", status_code=204)
    async def delete_session(session_id: str, caller: Asking) -> None:
        """Ends a session. Commands that run in it run on."""
        await stubs.delete_session(session_id, caller)

    return routes
