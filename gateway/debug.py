"""/debug/execute and /debug/session: commands, and the sessions they may belong to."""

from fastapi import APIRouter, Request, Response

from gateway.answers import execute_answer, session_answer
from gateway.callers import Asking
from gateway.documentation import EVENTS
from gateway.event_text import EventText
from gateway.executing import replay_headers, run, run_live
from gateway.models import ExecuteAnswer, ExecuteBody, SessionAnswer, SessionBody
from gateway.problems import PROBLEMS, problem
from gateway.requests import execute_request, session_request
from gateway.sse import EventStream
from gateway.stubs import Stubs
from openline.ids import is_cluster_id
from openline.pipes import Pipes


def debug_routes(pipes: Pipes, stubs: Stubs, *, ping_s: float) -> APIRouter:
    routes = APIRouter(prefix="/debug", tags=["debug"], responses=PROBLEMS)

    @routes.post("/execute", operation_id="execute", response_model=ExecuteAnswer, responses=EVENTS)
    async def execute(body: ExecuteBody, caller: Asking, http: Request) -> Response:
        """Runs a kubectl command in a cluster and answers with its output.

        A command that fails, runs out of time or is cancelled is a 200 with that `status`; one that could not be run is
        a problem. With `Prefer: handling=strict` running out of time is a 504, with the same fields. With `Accept:
        text/event-stream` the output comes as events while the command runs, and the same answer as the last one.
        """
        request = execute_request(body, caller)
        facts = caller.exchange.facts
        facts.update(cluster_id=request.cluster_id, command_id=request.command_id)
        if not is_cluster_id(request.cluster_id):
            raise await stubs.no_such_cluster(request.cluster_id, caller)
        if caller.takes_events:
            return await EventStream.open(
                run_live(pipes, request, caller),
                http,
                text=EventText(request.command_id),
                end=lambda result: execute_answer(result, request),
                ping_s=ping_s,
            )
        response = await run(pipes, request, caller, http)
        answer = execute_answer(response.result, request)
        facts["outcome"] = answer.status
        if answer.status == "timeout" and caller.is_strict:
            return problem(
                http.scope,
                504,
                answer.error or "the command ran out of time",
                failure=response.result.error,
                members=answer.model_dump(mode="json"),
                headers={**replay_headers(response), "Preference-Applied": "handling=strict"},
            )
        return Response(answer.model_dump_json(), media_type="application/json", headers=replay_headers(response))

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
