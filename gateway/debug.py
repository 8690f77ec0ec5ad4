"""/debug/execute and /debug/session: commands, and the sessions they may belong to."""

from fastapi import APIRouter, Request, Response

from gateway.answers import check_answerable, execute_answer, session_answer
from gateway.callers import Asking, Caller
from gateway.deferring import run_or_leave
from gateway.documentation import EVENTS, LOCATION
from gateway.event_text import EventText
from gateway.executing import REPLAYED, answer_headers, run, run_live
from gateway.following import CommandShown, CommandStream
from gateway.models import ExecuteAnswer, ExecuteBody, OperationAnswer, SessionAnswer, SessionBody
from gateway.problems import EXECUTE_PROBLEMS, PROBLEMS, RETRY_AFTER, problem
from gateway.requests import execute_request, session_request
from gateway.stubs import Stubs
from openline.pipes import Pipes
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ExecuteRequest, ExecuteResponse


def debug_routes(pipes: Pipes, stubs: Stubs, *, ping_s: float) -> APIRouter:
    routes = APIRouter(prefix="/debug", tags=["debug"], responses=PROBLEMS)

    @routes.post("/execute", operation_id="execute", response_model=ExecuteAnswer, responses=EVENTS | EXECUTE_PROBLEMS)
    async def execute(body: ExecuteBody, caller: Asking, http: Request) -> Response:
        """Runs a kubectl command in a cluster and answers with its output.

        A command that fails, runs out of time or is cancelled is a 200 with that `status`; one that could not be run is
        a problem. With `Prefer: handling=strict` running out of time is a 504, with the same fields. With `Accept:
        text/event-stream` the output comes as events while the command runs, and the same answer as the last one.
        """
        request = execute_request(body, caller)
        caller.exchange.facts.update(cluster_id=request.cluster_id, command_id=request.command_id)
        await stubs.check_ids(request, caller)
        if caller.takes_events:

            async def end(result: command_pb2.CommandResult) -> ExecuteAnswer:
                return execute_answer(result, request)

            return await CommandStream.open(
                run_live(pipes, request, caller),
                http,
                shown=CommandShown(EventText(request.command_id), end),
                request=request,
                ping_s=ping_s,
            )
        return await whole_answer(pipes, request, caller, http)

    @routes.post(
        "/execute/async",
        operation_id="execute_async",
        status_code=202,
        responses={202: {"headers": {"Location": LOCATION, "Retry-After": RETRY_AFTER}}},
    )
    async def execute_async(body: ExecuteBody, caller: Asking, http: Request, response: Response) -> OperationAnswer:
        """Runs a kubectl command and answers as soon as an executor has it; the result can be fetched."""
        request = execute_request(body, caller)
        request.cancel_on_disconnect = False
        caller.exchange.facts.update(cluster_id=request.cluster_id, command_id=request.command_id)
        await stubs.check_ids(request, caller)
        begun = await run_or_leave(pipes, request, caller, http, wait_s=0)
        told = begun.result if isinstance(begun, ExecuteResponse) else begun
        if isinstance(told, command_pb2.CommandResult):
            check_answerable(told)
        operation_id = told.command_id or request.command_id
        if operation_id != request.command_id:
            response.headers.update(REPLAYED)
        poll_url = f"/debug/operations/{operation_id}"
        response.headers.update({"Location": poll_url, "Retry-After": "1"})
        return OperationAnswer(
            operation_id=operation_id,
            status="completed" if isinstance(told, command_pb2.CommandResult) else "pending",
            poll_url=poll_url,
        )

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


async def whole_answer(pipes: Pipes, request: ExecuteRequest, caller: Caller, http: Request) -> Response:
    """Runs a command that was checked and answers when it has ended. Raises OpenlineError and CallerGone."""
    response = await run(pipes, request, caller, http)
    answer = execute_answer(response.result, request)
    caller.exchange.facts["outcome"] = answer.status
    if answer.status == "timeout" and caller.prefers.is_strict:
        return problem(
            http.scope,
            504,
            answer.error or "the command ran out of time",
            failure=response.result.error,
            members=answer.model_dump(mode="json"),
            headers={**answer_headers(response), "Preference-Applied": "handling=strict"},
        )
    return Response(answer.model_dump_json(), media_type="application/json", headers=answer_headers(response))
