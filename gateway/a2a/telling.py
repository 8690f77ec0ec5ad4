"""Commands as tasks: which state, and what is said of it to a model and to a program."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.a2a.asking import USAGE
from gateway.a2a.tasks import REPLAYED, Artifact, State, Status, Task
from gateway.answers import instant, stopped_early
from gateway.command_answers import done, state_name
from gateway.command_models import CommandAnswer
from gateway.fanout import OF_THE_KEY
from gateway.mcp.advising import NEXT
from gateway.mcp.telling import MAX_NAMES, command_fields, failure_fields, failure_text, remarks
from gateway.showing import show
from openline.errors import OpenlineError, error
from openline.policy.denial import Rule
from openline.reasons import Reason
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ExecuteRequest
from openline.words import Unacceptable

# Where there is no tool that MCP's advice would lead to.
ADVICE: Mapping[Reason | Rule, str] = NEXT | {
    Reason.CLUSTER_UNKNOWN: "Nothing was run. Name another cluster.",
    Reason.INVALID_COMMAND: f"Nothing was run. {USAGE}",
    Reason.IDEMPOTENCY_CONFLICT: "Nothing was run. Give each message a messageId of its own.",
    Reason.RESULT_EXPIRED: "Its output is not kept any more. Send it again with a new messageId.",
    Rule.STREAMING: "Nothing was run. Leave -w or -f out, or stream the message.",
    Reason.COMMAND_TIMEOUT: "Give a longer timeout_seconds in a data part, or ask for less.",
}
# How a command's state is shown before its end; any other is of an executor that has it.
_BEFORE = frozenset({"queued", "forwarded", "written"})
# Every other one has failed.
_ENDS: Mapping[command_pb2.Outcome.ValueType, State] = {
    command_pb2.OUTCOME_CANCELLED: State.CANCELED,
    command_pb2.OUTCOME_REJECTED: State.REJECTED,
}
_SENT_BEFORE = "replayed: this message was sent before, and had this task then; with a new messageId it is run anew"
# Of a text that cannot be read: so many characters are searched for clusters.
MOST_LOOKED_AT = 1000
# Of a command that may run on nevertheless: that we do not know is not how it ended.
_OF_THE_WAY = OF_THE_KEY | {Reason.BROKER_UNAVAILABLE, Reason.STORE_UNAVAILABLE, Reason.INTERNAL}


def state_of(state: str) -> State:
    """Of a command that has not ended, by how REST names where it is."""
    return State.SUBMITTED if state in _BEFORE else State.WORKING


def state_now(command: command_pb2.Command) -> State:
    if not command.HasField("result"):
        return state_of(state_name(command.state))
    result = command.result
    if result.outcome == command_pb2.OUTCOME_EXITED:
        return State.FAILED if result.exit_code else State.COMPLETED
    return _ENDS.get(result.outcome, State.FAILED)


def ended_at(command: command_pb2.Command) -> datetime | None:
    """None for one that runs.

    By the broker's clock alone: executors' may be off by anything, and who polls goes on from the newest that it saw.
    """
    if not command.HasField("result"):
        return None
    result = command.result
    created_at = instant(command.created_at) or instant(result.created_at) or datetime.now(UTC)
    return created_at + timedelta(seconds=result.timings.total_s)


async def task_of(command: command_pb2.Command, *, context_id: str = "", now: datetime | None = None) -> Task:
    """Running or done. `context_id` is for a command that has none of its own; `now` is the time of one that runs."""
    answer = await show(command)
    context_id = answer.correlation_id or context_id
    facts = _facts(answer)
    state, at = state_now(command), ended_at(command) or now or datetime.now(UTC)
    if not command.HasField("result"):
        return Task(answer.command_id, context_id, Status(state, facts=facts, at=at))
    result = command.result
    text = f"exit code {answer.exit_code}" if answer.outcome == "exited" else "how it ended is not known"
    if answer.outcome != "exited" and result.error.reason:
        facts |= failure_fields(OpenlineError(result.error), ADVICE)
        text = failure_text(facts)
    text = "; ".join([text, *remarks(facts)])
    return Task(answer.command_id, context_id, Status(state, text, facts, at), _artifacts(answer))


async def task_of_failure(failure: OpenlineError, request: ExecuteRequest) -> Task | None:
    """Of a command that could not be run, or was stopped; None where it may be running for all we know."""
    try:
        result = stopped_early(failure)
    except OpenlineError:
        if failure.result is None:
            if failure.executed != "no" and failure.reason in _OF_THE_WAY:
                return None
            return refused(failure, request.command_id, request.correlation_id, cluster=request.cluster_id)
        result = failure.result
    return await task_of(done(result, request), context_id=request.correlation_id)


def own(task: Task, request: ExecuteRequest) -> Task:
    """As whoever asked is to be told of it: that of a message which was sent before has the id of then, and says so."""
    if task.id == request.command_id:
        return task
    status = task.status
    text = "; ".join(filter(None, [status.text, _SENT_BEFORE]))
    status = replace(status, text=text, facts={**status.facts, REPLAYED: True})
    return replace(task, status=status)


def refused(failure: OpenlineError, task_id: str, context_id: str, *, cluster: str = "") -> Task:
    fields = failure_fields(failure, ADVICE)
    state = State.REJECTED if failure.executed == "no" else State.FAILED
    # What was rejected here never became a command that could be asked for.
    known = {"command_id": task_id if state is State.FAILED else "", "cluster": cluster}
    facts = {name: value for name, value in known.items() if value} | fields
    return Task(task_id, context_id, Status(state, failure_text(facts), facts))


def unacceptable(wrong: Unacceptable) -> OpenlineError:
    return OpenlineError(error(Reason.INVALID_COMMAND, f"{wrong.field}: {wrong}"))


def unreadable(why: str, text: str, clusters: Sequence[str]) -> OpenlineError:
    """With the clusters that there are; those first that the text names."""
    beginning = text[:MOST_LOOKED_AT]
    named = sorted(clusters, key=lambda name: (name not in beginning, name))[:MAX_NAMES]
    message = f"the message cannot be read: {why}"
    return OpenlineError(error(Reason.INVALID_COMMAND, message, metadata={"available": ",".join(named)}))


def _facts(answer: CommandAnswer) -> dict[str, Any]:
    """Without what the task itself says."""
    fields = command_fields(answer, ADVICE)
    return {name: value for name, value in fields.items() if name not in ("state", "stdout", "stderr")}


def _artifacts(answer: CommandAnswer) -> tuple[Artifact, ...]:
    """What was rejected has written nothing; of any other, what it wrote is known to be all."""
    if answer.outcome == "rejected":
        return ()
    streams = (("stdout", answer.stdout or ""), ("stderr", answer.stderr or ""))
    return tuple(Artifact(name, text) for name, text in streams if text or name == "stdout")
