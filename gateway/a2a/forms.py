"""Tasks in JSON, as each version of the protocol writes them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.a2a.tasks import ENDS, Artifact, State, Status, Task

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Form:
    """Of one version. 0.3 says in each object what kind it is; 1.0 says it by the name of the member that it is in."""

    version: str
    is_named: bool

    def sent(self, task: Task) -> Json:
        """The answer to a message, and the first event of a stream."""
        return self._told("task", self.task(task))

    def task(self, task: Task, *, with_artifacts: bool = True) -> Json:
        facts = task.status.facts
        members: Json = {
            "id": task.id,
            "contextId": task.context_id,
            "status": self._status(task.status, task),
            "metadata": dict(facts),
        }
        if with_artifacts:
            members["artifacts"] = [self._artifact(each, facts) for each in task.artifacts]
        return members if self.is_named else {"kind": "task"} | members

    def status_update(self, task: Task) -> Json:
        """That the task is this far now."""
        members = self._of(task) | {"status": self._status(task.status, task), "metadata": dict(task.status.facts)}
        if not self.is_named:
            members["final"] = task.status.state in ENDS
        return self._told("statusUpdate", members)

    def artifact_update(self, task: Task, piece: Artifact, *, append: bool, last: bool) -> Json:
        """What has been written since; `last` when nothing more comes."""
        facts = task.status.facts if last else {}
        members = {"artifact": self._artifact(piece, facts), "append": append, "lastChunk": last}
        return self._told("artifactUpdate", self._of(task) | members)

    def _told(self, name: str, members: Json) -> Json:
        if self.is_named:
            return {name: members}
        return {"kind": _KINDS[name]} | members

    def _of(self, task: Task) -> Json:
        return {"taskId": task.id, "contextId": task.context_id}

    def _status(self, status: Status, task: Task) -> Json:
        members: Json = {
            "state": self._state(status.state),
            "timestamp": status.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        if status.text:
            members["message"] = self._message(status, task)
        return members

    def _state(self, state: State) -> str:
        return f"TASK_STATE_{state.upper()}" if self.is_named else str(state)

    def _message(self, status: Status, task: Task) -> Json:
        members: Json = {
            # Whoever looks twice is told the same.
            "messageId": f"{task.id}-{status.state}",
            "role": "ROLE_AGENT" if self.is_named else "agent",
            "parts": [self._part("text", status.text)],
        } | self._of(task)
        if status.facts:
            members["parts"].append(self._part("data", dict(status.facts)))
        return members if self.is_named else {"kind": "message"} | members

    def _artifact(self, artifact: Artifact, facts: Mapping[str, Any]) -> Json:
        members: Json = {
            "artifactId": artifact.name,
            "name": artifact.name,
            "parts": [self._part("text", artifact.text)],
        }
        return members | ({"metadata": dict(facts)} if facts else {})

    def _part(self, kind: str, content: Any) -> Json:
        if not self.is_named:
            return {"kind": kind, kind: content}
        return {kind: content, "mediaType": "text/plain" if kind == "text" else "application/json"}


_KINDS = {"task": "task", "statusUpdate": "status-update", "artifactUpdate": "artifact-update"}

V0_3 = Form("0.3", is_named=False)
V1_0 = Form("1.0", is_named=True)
