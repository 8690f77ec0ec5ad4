"""What is done for each method: a message is a command, a task is what became of one.

Nothing is kept here. A task's id is its command's, so any gateway finds it where commands are found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi import Request, Response

from gateway.a2a.asking import Look, Sending
from gateway.a2a.failures import NO_TASK, end_of, listing, looking_at
from gateway.a2a.forms import Form, Json
from gateway.a2a.listing import LOOKED_AT, Listing
from gateway.a2a.requesting import request_of
from gateway.a2a.rpc import Call, Code, RpcError, answered
from gateway.a2a.shown import TaskShown, event_of
from gateway.a2a.tasks import Task
from gateway.a2a.telling import own, task_of
from gateway.callers import Caller
from gateway.calling_off import cancel_one
from gateway.command_answers import done
from gateway.commands import LONGEST_WATCH_S
from gateway.deferring import run_or_leave
from gateway.event_text import EventText
from gateway.executing import REPLAYED, run, run_live
from gateway.following import CommandStream
from gateway.leaving import while_there
from gateway.resuming import resume
from gateway.stubs import Stubs
from openline.errors import OpenlineError
from openline.pipes import Pipes
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ExecuteRequest, ExecuteResponse, ListCommandsRequest

# So long a cancelled task's end is waited for: kubectl is given a moment to end by itself.
CANCEL_WAIT_S = 5.0
# So often brokers are asked for what a list is made of: twice what a thousand can take that have the most to say.
MOST_PAGES = 12


@dataclass(frozen=True, slots=True)
class Asking:
    """A request: in which form, by whom, over which connection."""

    call: Call
    form: Form
    caller: Caller
    http: Request

    def answer(self, result: Json, *, headers: Mapping[str, str] | None = None) -> Response:
        return Response(answered(self.call.id, result), headers=headers, media_type="application/json")


class Agent:
    """Every method raises RpcError, OpenlineError for what is wrong with the key, and CallerGone."""

    def __init__(self, pipes: Pipes, stubs: Stubs, *, ping_s: float) -> None:
        self._pipes = pipes
        self._stubs = stubs
        self._ping_s = ping_s

    async def send(self, asking: Asking) -> Response:
        """Answers at the command's end, or as soon as an executor has it where that was asked for."""
        sending = Sending.read(asking.call.params)
        begun = await self._request(sending, asking)
        task = begun if isinstance(begun, Task) else await self._run(begun, asking, leaves=sending.returns_at_once)
        return asking.answer(asking.form.sent(task), headers=_headers(task))

    async def stream(self, asking: Asking) -> Response:
        begun = await self._request(Sending.read(asking.call.params), asking)
        if isinstance(begun, Task):
            return _ended(begun, asking)
        shown = TaskShown(asking.form, asking.call.id, begun)
        try:
            return await CommandStream.open(
                run_live(self._pipes, begun, asking.caller),
                asking.http,
                shown=shown,
                request=begun,
                ping_s=self._ping_s,
            )
        except OpenlineError as failure:
            return _ended(await end_of(failure, begun, asking.caller.exchange), asking)

    async def get(self, asking: Asking) -> Response:
        command = await self._find(Look.read(asking.call.params).id, asking)
        return asking.answer(asking.form.task(await task_of(command)))

    async def list(self, asking: Asking) -> Response:
        """Tasks of the key's owner: each command is one, however it was asked for."""
        wish = Listing.read(asking.call.params)
        # Before the brokers are asked: what ends while their answer is on its way has changed since then.
        now = datetime.now(UTC)
        with listing():
            async with while_there(asking.http.receive):
                page = wish.page(await self._newest(wish.request(), asking))
                commands = page.commands
                if wish.includeArtifacts:
                    commands = [each for listed in commands if (each := await self._whole(listed, asking))]
        tasks = [await task_of(command, now=now) for command in commands]
        return asking.answer(
            {
                "tasks": [asking.form.task(task, with_artifacts=wish.includeArtifacts) for task in tasks],
                "nextPageToken": page.next_token,
                "pageSize": page.size,
                "totalSize": page.total,
            }
        )

    async def cancel(self, asking: Asking) -> Response:
        """Answers with the task as it is when its process has been stopped, which may take a moment."""
        task_id = Look.read(asking.call.params).id
        with looking_at(task_id):
            await self._check(task_id, asking)
            cancelled = await cancel_one(self._pipes, task_id, asking.caller)
        if cancelled.state == command_pb2.COMMAND_STATE_DONE:
            raise RpcError(Code.TASK_NOT_CANCELABLE, "The task had ended before, and stays as it is")
        try:
            command = await self._find(task_id, asking, wait_s=CANCEL_WAIT_S)
        except (OpenlineError, RpcError):
            # It is taken, whatever becomes of the look; and whoever may cancel need not be allowed to look.
            command = command_pb2.Command(
                command_id=task_id, state=cancelled.state, correlation_id=cancelled.correlation_id
            )
        return asking.answer(asking.form.task(await task_of(command)))

    async def subscribe(self, asking: Asking) -> Response:
        """Everything from the beginning on: what the client has of it is not known here."""
        command = await self._find(Look.read(asking.call.params).id, asking)
        if command.HasField("result"):
            raise RpcError(Code.UNSUPPORTED_OPERATION, "The task has ended, and nothing more comes: get it instead")
        request = ExecuteRequest(
            command_id=command.command_id, cluster_id=command.cluster_id, correlation_id=command.correlation_id
        )
        events = resume(
            self._pipes,
            command.command_id,
            asking.caller,
            text=EventText(command.command_id),
            seen=-1,
            timeout_s=LONGEST_WATCH_S,
        )
        shown = TaskShown(asking.form, asking.call.id, request, begun=await task_of(command))
        with looking_at(command.command_id):
            return await CommandStream.open(
                events,
                asking.http,
                shown=shown,
                ping_s=self._ping_s,
                for_s=asking.caller.wait_s,
                opening=shown.begin(),
            )

    async def _request(self, sending: Sending, asking: Asking) -> ExecuteRequest | Task:
        """The command that a message asks for, or the task that says what is wrong with it."""
        message, caller = sending.message, asking.caller
        exchange = caller.exchange
        exchange.offer_correlation_id(message.contextId)
        key = sending.idempotency_key(exchange.given_correlation_id)
        # A conversation that has no name gets one, for the client to go on with: the same for the same message.
        exchange.offer_correlation_id(key[:36])
        if message.taskId:
            await self._find(message.taskId, asking)
            raise RpcError(Code.UNSUPPORTED_OPERATION, "A task takes one message: leave taskId out for the next one")
        return await request_of(sending, caller, self._stubs, key=key)

    async def _run(self, request: ExecuteRequest, asking: Asking, *, leaves: bool) -> Task:
        try:
            if leaves:
                begun = await run_or_leave(self._pipes, request, asking.caller, asking.http, wait_s=0)
            else:
                begun = await run(self._pipes, request, asking.caller, asking.http)
        except OpenlineError as failure:
            return await end_of(failure, request, asking.caller.exchange)
        command = done(begun.result, request) if isinstance(begun, ExecuteResponse) else begun
        asking.caller.exchange.facts["command_id"] = command.command_id
        return own(await task_of(command, context_id=request.correlation_id), request)

    async def _find(self, task_id: str, asking: Asking, *, wait_s: float = 0.0) -> command_pb2.Command:
        with looking_at(task_id):
            await self._check(task_id, asking)
            async with while_there(asking.http.receive):
                command = await self._stubs.get_command(task_id, asking.caller, wait_s=wait_s)
        asking.caller.exchange.concerns(task_id, command.correlation_id)
        return command

    async def _newest(self, request: ListCommandsRequest, asking: Asking) -> Sequence[command_pb2.Command]:
        """As many as a list is made of, by as many pages as it takes; those of a broker have room for so much each."""
        found: list[command_pb2.Command] = []
        for _ in range(MOST_PAGES):
            page = await self._stubs.list_commands(request, asking.caller)
            found += page.commands
            if not page.next_page_token or len(found) >= LOOKED_AT:
                break
            request.page_token, request.page_size = page.next_page_token, LOOKED_AT - len(found)
        return found

    async def _whole(self, listed: command_pb2.Command, asking: Asking) -> command_pb2.Command | None:
        """With its output; None when that has expired meanwhile."""
        try:
            return await self._stubs.get_command(listed.command_id, asking.caller)
        except OpenlineError as failure:
            if failure.reason in NO_TASK:
                return None
            raise

    async def _check(self, task_id: str, asking: Asking) -> None:
        await self._stubs.check_command_id(task_id, asking.caller)
        asking.caller.exchange.facts["command_id"] = task_id


def _ended(task: Task, asking: Asking) -> Response:
    """A stream about a task that has ended before it began."""
    said = event_of(answered(asking.call.id, asking.form.sent(task)))
    headers = {"Cache-Control": "no-store"} | _headers(task)
    return Response(said, media_type="text/event-stream", headers=headers)


def _headers(task: Task) -> dict[str, str]:
    return REPLAYED if task.is_replayed else {}
