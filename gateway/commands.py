"""/v1's commands: run one, look at it, follow it, fetch its output, stop it."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from gateway.answers import check_answerable
from gateway.callers import Asking, Caller, read_last_event_id
from gateway.calling_off import cancel_one
from gateway.cancel_models import CancelCommandsAnswer, CancelCommandsBody
from gateway.command_answers import ALL, Wish, command_answer, done, state_name
from gateway.command_models import CancelAnswer, CommandAnswer, CommandBody, Source
from gateway.deferring import run_or_leave
from gateway.documentation import ACCEPTED, EVENTS, LAST_EVENT_ID, OUTPUT
from gateway.event_text import EventText
from gateway.executing import REPLAYED, answer_headers, answered_problem, run, run_live
from gateway.following import CommandShown, CommandStream
from gateway.leaving import while_there
from gateway.output import MOST_BYTES, not_yet, output_answer
from gateway.problems import COMMAND_PROBLEMS
from gateway.requests import command_request
from gateway.resuming import resume
from gateway.shaping_models import LookFields
from gateway.showing import show
from gateway.stubs import Stubs
from openline.limits import MAX_TIMEOUT_S, MAX_WAIT_FOR_CLUSTER_S
from openline.pipes import Pipes
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import CancelCommandsRequest, ExecuteRequest, ExecuteResponse

# No command lives longer, so nobody watches longer.
LONGEST_WATCH_S = MAX_TIMEOUT_S + MAX_WAIT_FOR_CLUSTER_S + 60.0

CommandId = Annotated[str, Path(description="As it was answered when the command was run.")]
Wait = Annotated[float, Query(ge=0, le=60, description="Seconds to wait for the command's end.")]


def command_routes(pipes: Pipes, stubs: Stubs, *, ping_s: float) -> APIRouter:
    routes = APIRouter(tags=["commands"], responses=COMMAND_PROBLEMS)

    async def check(command_id: str, caller: Caller) -> None:
        await stubs.check_command_id(command_id, caller)
        caller.exchange.facts["command_id"] = command_id

    async def find(command_id: str, caller: Caller, http: Request, wait_s: float) -> command_pb2.Command:
        await check(command_id, caller)
        async with while_there(http.receive):
            command = await stubs.get_command(command_id, caller, wait_s=wait_s)
        caller.exchange.concerns(command_id, command.correlation_id)
        return command

    @routes.post(
        "/v1/clusters/{cluster_id}/commands",
        operation_id="run_command",
        response_model=CommandAnswer,
        responses=EVENTS | ACCEPTED,
    )
    async def run_command(cluster_id: str, body: CommandBody, caller: Asking, http: Request) -> Response:
        """Runs a kubectl command in a cluster and answers when it has ended.

        A command that failed is a 200 with its exit code; one that ran out of time is a 504 and one that was cancelled
        a 499, with the same fields and the output so far. With `Prefer: respond-async, wait=5` one that takes longer is
        a 202, and runs on; its result is at `Location`. With `Accept: text/event-stream` the output comes as events
        while the command runs, and the same answer as the last one.
        """
        wish = Wish(shaping=body.shaping("body"), unchanged_since=body.unchanged_since)
        request = command_request(cluster_id, body, caller)
        caller.exchange.facts.update(cluster_id=cluster_id, command_id=request.command_id)
        await stubs.check_ids(request, caller)
        if caller.takes_events:
            return await CommandStream.open(
                run_live(pipes, request, caller),
                http,
                shown=CommandShown(EventText(request.command_id), partial(_end, request, wish)),
                request=request,
                ping_s=ping_s,
            )
        # What is to be cancelled with its caller has one that waits.
        if caller.prefers.respond_async and not request.cancel_on_disconnect:
            wait_s = caller.prefers.wait_s or 0
            begun = await run_or_leave(pipes, request, caller, http, wait_s=wait_s)
            if not isinstance(begun, ExecuteResponse):
                return _accepted(begun, caller, is_replayed=begun.command_id != request.command_id)
            response = begun
        else:
            response = await run(pipes, request, caller, http)
        answer = await _end(request, wish, response.result)
        caller.exchange.facts["outcome"] = answer.outcome or ""
        if response.result.outcome != command_pb2.OUTCOME_EXITED:
            return answered_problem(http.scope, response, answer)
        return Response(answer.model_dump_json(), media_type="application/json", headers=answer_headers(response))

    @routes.get("/v1/commands/{command_id}", operation_id="get_command", response_model=CommandAnswer)
    @routes.get("/debug/operations/{command_id}", operation_id="get_operation", response_model=CommandAnswer)
    async def get_command(
        command_id: CommandId, caller: Asking, http: Request, look: Annotated[LookFields, Query()]
    ) -> Response:
        """Shows a command, running or done, until its result expires; `wait` waits for its end.

        Its output can be shaped anew with each look: the whole of it is kept.
        """
        shaping, offset = look.page(command_id)
        command = await find(command_id, caller, http, look.wait)
        answer = await show(command, Wish(shaping=shaping, offset=offset, unchanged_since=look.unchanged_since))
        return Response(answer.model_dump_json(), media_type="application/json")

    @routes.get(
        "/v1/commands/{command_id}/output", operation_id="get_output", response_class=Response, responses=OUTPUT
    )
    async def get_output(
        command_id: CommandId,
        caller: Asking,
        http: Request,
        source: Source = "stdout",
        offset: Annotated[int, Query(ge=0, description="Into what is kept.")] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_BYTES)] = MOST_BYTES,
        wait: Wait = 0,
    ) -> Response:
        """Gives the bytes that a command wrote, exactly as they were, as far as they were kept.

        The headers say how many there were and how many are missing, and where. A command that runs has none yet: 409.
        """
        command = await find(command_id, caller, http, wait)
        if not command.HasField("result"):
            return not_yet(http.scope, command)
        return output_answer(command.result, source, offset=offset, limit=limit)

    @routes.get(
        "/v1/commands/{command_id}/events",
        operation_id="watch_command",
        response_class=Response,
        responses=EVENTS,
        openapi_extra=LAST_EVENT_ID,
    )
    async def watch_command(command_id: CommandId, caller: Asking, http: Request) -> Response:
        """Attaches to a command: its events from the beginning, or after `Last-Event-ID`, to its result."""
        await check(command_id, caller)
        text = EventText(command_id)
        seen = read_last_event_id(http)
        return await CommandStream.open(
            resume(pipes, command_id, caller, text=text, seen=seen, timeout_s=LONGEST_WATCH_S),
            http,
            shown=CommandShown(text, partial(_end, ExecuteRequest(command_id=command_id), ALL)),
            ping_s=ping_s,
            for_s=caller.wait_s,
        )

    @routes.delete(
        "/v1/commands/{command_id}",
        operation_id="cancel_command",
        responses={202: {"model": CancelAnswer, "description": "It will end."}},
    )
    async def cancel_command(command_id: CommandId, caller: Asking, response: Response) -> CancelAnswer:
        """Stops a command: 202 while it runs, 200 when it is done, and then nothing changes. May be repeated."""
        await check(command_id, caller)
        cancelled = await cancel_one(pipes, command_id, caller)
        response.status_code = 200 if cancelled.state == command_pb2.COMMAND_STATE_DONE else 202
        return CancelAnswer(command_id=command_id, state=state_name(cancelled.state))

    @routes.post("/v1/commands:cancel", operation_id="cancel_commands")
    async def cancel_commands(body: CancelCommandsBody, caller: Asking) -> CancelCommandsAnswer:
        """Stops every command of a session or a conversation of the key's owner, on every broker replica.

        Those that run are stopped, those that wait are not run. What is asked for afterwards runs. May be repeated.
        """
        request = CancelCommandsRequest(**body.model_dump(exclude_unset=True))
        answer = await stubs.cancel_commands(request, caller)
        return CancelCommandsAnswer(
            cancelled=answer.cancelled,
            incomplete=answer.incomplete,
            unreached_replica_ids=sorted(answer.unreached_replica_ids),
        )

    return routes


async def _end(request: ExecuteRequest, wish: Wish, result: command_pb2.CommandResult) -> CommandAnswer:
    check_answerable(result)
    return await show(done(result, request), wish)


def _accepted(command: command_pb2.Command, caller: Caller, *, is_replayed: bool) -> Response:
    """The command runs on, and this is where it is found."""
    answer = command_answer(command)
    caller.exchange.facts["command_id"] = command.command_id
    wait_s = caller.prefers.wait_s
    applied = "respond-async" if wait_s is None else f"respond-async, wait={wait_s}"
    headers = {"Location": answer.links.self, "Retry-After": "1", "Preference-Applied": applied}
    if is_replayed:
        headers |= REPLAYED
    return Response(answer.model_dump_json(), 202, headers, media_type="application/json")
