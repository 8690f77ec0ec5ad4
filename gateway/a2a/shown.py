"""A command's events as A2A streams them: the task, then what becomes of it, each as an answer of JSON-RPC."""

import codecs
from dataclasses import replace
from typing import Any

from starlette.types import Scope

from gateway.a2a.failures import not_known
from gateway.a2a.forms import Form
from gateway.a2a.rpc import RequestId, answered, refused
from gateway.a2a.tasks import Artifact, State, Status, Task
from gateway.a2a.telling import own, state_of, task_of, task_of_failure
from gateway.command_answers import done, state_name
from gateway.following import tell_end
from openline.errors import OpenlineError
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ExecuteRequest

_SOURCES = {command_pb2.OUTPUT_SOURCE_STDOUT: "stdout", command_pb2.OUTPUT_SOURCE_STDERR: "stderr"}


class TaskShown:
    """Of one command, for one request."""

    def __init__(self, form: Form, number: RequestId, request: ExecuteRequest, *, begun: Task | None = None) -> None:
        """`begun` is the task as far as it is known, where it was there before."""
        self._form = form
        self._number = number
        self._request = request
        self._task = begun or Task(request.command_id, request.correlation_id, Status(State.SUBMITTED))
        self._is_told = False
        self._streams: dict[str, codecs.IncrementalDecoder] = {}

    def begin(self, command_id: str = "") -> bytes:
        """The task, once, which comes before all else; it is an earlier one where the message was sent before."""
        if self._is_told:
            return b""
        self._is_told = True
        self._task = own(replace(self._task, id=command_id or self._task.id), self._request)
        return self._said(self._form.sent(self._task))

    async def event(self, event: command_pb2.CommandEvent, scope: Scope) -> bytes:
        match event.WhichOneof("event"):
            case "state":
                return self.begin(event.command_id) + self._reach(state_of(state_name(event.state)))
            case "output":
                output = event.output
                name = _SOURCES.get(output.source, "stdout")
                return self.begin(output.command_id) + self._write(name, output.data)
            case "gap":
                return self.begin() + self._miss(event.gap.missed_bytes)
            case "result":
                tell_end(event.result, scope)
                command = done(event.result, self._request)
                return self.begin(event.result.command_id) + self._end(
                    await task_of(command, context_id=self._task.context_id)
                )
            case _:
                return b""  # of a newer version of the contract

    async def failure(self, failure: OpenlineError, scope: Scope) -> bytes:
        """Where the command may run on for all we know, that is no state of its task."""
        task = await task_of_failure(failure, self._request)
        begun = self.begin()
        if task is None:
            return begun + event_of(refused(self._number, not_known(failure, self._task.id)))
        return begun + self._end(replace(task, id=self._task.id, context_id=self._task.context_id))

    def _reach(self, state: State) -> bytes:
        if state == self._task.status.state:
            return b""
        self._task = replace(self._task, status=Status(state))
        return self._said(self._form.status_update(self._task))

    def _write(self, name: str, data: bytes) -> bytes:
        """Half a character waits for its other half."""
        decoder = self._streams.get(name)
        text = (decoder or self._open(name)).decode(data)
        return self._piece(name, text, append=decoder is not None) if text or decoder is None else b""

    def _open(self, name: str) -> codecs.IncrementalDecoder:
        decoder = self._streams[name] = codecs.getincrementaldecoder("utf-8")("replace")
        return decoder

    def _miss(self, missed_bytes: int) -> bytes:
        """Said as a status: whoever puts the pieces together must not take it for output."""
        text = f"{missed_bytes or 'some'} bytes of output are missing here; the task at its end has what was kept"
        status = replace(self._task.status, text=text, facts={"missed_bytes": missed_bytes})
        rests = b"".join(self._piece(name, text) for name, text in self._rests() if text)
        return rests + self._said(self._form.status_update(replace(self._task, status=status)))

    def _end(self, task: Task) -> bytes:
        """Both streams are over, and then the task is."""
        self._task = task = own(task, self._request)
        pieces = [self._piece(name, text, last=True) for name, text in self._rests()]
        # Whole, where nothing of it came before: it had ended by then, or wrote nothing.
        pieces += [
            self._piece(each.name, each.text, append=False, last=True)
            for each in task.artifacts
            if each.name not in self._streams
        ]
        return b"".join(pieces) + self._said(self._form.status_update(task))

    def _rests(self) -> list[tuple[str, str]]:
        """Halves of characters of which the other half does not come."""
        rests = [(name, decoder.decode(b"", final=True)) for name, decoder in self._streams.items()]
        for decoder in self._streams.values():
            decoder.reset()
        return rests

    def _piece(self, name: str, text: str, *, append: bool = True, last: bool = False) -> bytes:
        return self._said(self._form.artifact_update(self._task, Artifact(name, text), append=append, last=last))

    def _said(self, result: dict[str, Any]) -> bytes:
        return event_of(answered(self._number, result))


def event_of(answer: bytes) -> bytes:
    """As Server-Sent Events: JSON is one line."""
    return b"data: %b\n\n" % answer
