"""What a model is told of a command in many clusters: what is the same is said once. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.command_models import CommandAnswer
from gateway.fanout_models import FanoutGroup
from gateway.grouping import Grouping
from gateway.mcp.advising import LABELS
from gateway.mcp.arguments import MAX_PAGE_CHARS
from gateway.mcp.telling import Told, command_fields, failure_fields, failure_text, output_text, remarks
from openline.errors import OpenlineError

# Of all that is said of the clusters; of what is more than that there is only the number, or the names.
MAX_TEXT_CHARS = MAX_PAGE_CHARS
# The reason of those whose answer there is not yet.
UNFINISHED = "STILL_RUNNING"

_BESIDE_OUTPUT = ("truncated", "masked_values", "notes")
_OF_STOPPED = ("reason", "message", "executed", "stdout", "stderr", "next_cursor", *_BESIDE_OUTPUT)


class Together:
    """Answers and problems as they come."""

    def __init__(self, clusters: Sequence[str], labels_unknown: Sequence[str]) -> None:
        self._grouping = Grouping(clusters, labels_unknown=labels_unknown)
        # By cluster, what there is to say of its output.
        self._beside: dict[str, dict[str, Any]] = {}
        self._hint = ""
        # What to do about it, by reason.
        self._next_steps: dict[str, str] = {}
        # Whose run the oldest of what is shown is.
        self._source: dict[str, Any] = {}

    def answered(self, answer: CommandAnswer) -> None:
        """It ended by itself, or was stopped."""
        fields = command_fields(answer)
        if fields.get("age_s", -1.0) > self._source.get("age_s", -1.0):
            self._source = _only(("served_from", "age_s"), fields)
        if answer.outcome == "exited":
            self._grouping.add(answer)
            self._beside[answer.cluster_id] = _only(_BESIDE_OUTPUT, fields)
            self._advise(fields)
        else:
            self._problem(answer.cluster_id, answer.command_id, fields, _only(_OF_STOPPED, fields))

    def failed(self, cluster_id: str, command_id: str, failure: OpenlineError) -> None:
        """It did not run, or that is not known."""
        fields = failure_fields(failure)
        self._problem(cluster_id, command_id, fields, fields)

    def unfinished(self, cluster_id: str, command_id: str, *, message: str, executed: str) -> None:
        """There is no answer yet, which is no failure."""
        fields = {"reason": UNFINISHED, "message": message, "executed": executed}
        self._problem(cluster_id, command_id, fields, fields)

    def told(self) -> Told:
        answer = self._grouping.answer()
        groups, problems, notes = self._bounded(answer.groups, answer.problems)
        outcomes = [group.exit_code == 0 for group in answer.groups]
        outcomes += [problem["reason"] == UNFINISHED for problem in answer.problems]
        fields: dict[str, Any] = {
            "summary": answer.summary, "groups": groups, "problems": problems, "labels_unknown": answer.labels_unknown,
        }  # fmt: skip
        steps = [f"{reason}: {step}" for reason, step in sorted(self._next_steps.items())]
        said = {
            "notes": "; ".join(notes),
            "hint": self._hint,
            "next_step": " ".join(steps) if outcomes else LABELS,
        }
        fields |= self._source | {name: value for name, value in said.items() if value}
        return Told(_text(fields), fields, is_error=bool(outcomes) and not any(outcomes))

    def _problem(self, cluster_id: str, command_id: str, fields: Mapping[str, Any], told: Mapping[str, Any]) -> None:
        self._advise(fields)
        mine = {name: value for name, value in told.items() if name not in ("hint", "next_step")}
        self._grouping.add_problem({"cluster_id": cluster_id, "command_id": command_id} | mine)

    def _advise(self, fields: Mapping[str, Any]) -> None:
        self._hint = self._hint or fields.get("hint", "")
        if "next_step" in fields:
            self._next_steps.setdefault(fields["reason"], fields["next_step"])

    def _bounded(
        self, groups: Iterable[FanoutGroup], problems: Iterable[Mapping[str, Any]]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
        """Both, as far as there is room; and what is said of the rest.

        What went wrong comes first and may take half of it; then output, that of the largest groups first.
        """
        room = MAX_TEXT_CHARS
        shown: list[dict[str, Any]] = []
        stopped: list[dict[str, Any]] = []
        left = unseen = 0
        unsaid: list[str] = []
        for problem in _said_once(problems):
            size = len(_problem_text(_without_output(problem)))
            if room - size < MAX_TEXT_CHARS // 2:
                unsaid += problem["clusters"]
            else:
                room -= size
                stopped.append(problem)
        for group in groups:
            fields = self._group_fields(group)
            room -= len(_block(fields))
            # There is always room for the first one: a page of it is at most the other half.
            if shown and room < 0:
                left += 1
            else:
                shown.append(fields)
        for nth, problem in enumerate(stopped):
            room -= len(output_text(problem))
            if room < 0 and output_text(problem):
                unseen += 1
                stopped[nth] = _without_output(problem)
        notes = []
        if left:
            notes.append(f"{left} more groups are not shown: narrow the command with grep, tail or jsonpath")
        if unsaid:
            notes.append(f"why {len(unsaid)} more failed is not shown: ask for fewer at a time: {', '.join(unsaid)}")
        if unseen:
            notes.append(f"the output so far of {unseen} clusters is not shown: get_result has it")
        return shown, stopped, notes

    def _group_fields(self, group: FanoutGroup) -> dict[str, Any]:
        fields = {
            "clusters": group.clusters,
            "exit_code": group.exit_code,
            "stdout": group.output,
            "stderr": group.stderr or None,
            "next_cursor": group.shaping.next_cursor if group.shaping else None,
        }
        return {name: value for name, value in fields.items() if value is not None} | self._beside[group.clusters[0]]


def _said_once(problems: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Equal refusals as one. What may have run stands by itself, with the id by which to look it up."""
    by_what: dict[Any, dict[str, Any]] = {}
    for problem in problems:
        was_refused = problem["executed"] == "no"
        what = tuple(map(problem.get, ("reason", "message", "allowed"))) if was_refused else problem["command_id"]
        dropped = ("cluster_id", "command_id") if was_refused else ("cluster_id",)
        fields = {name: value for name, value in problem.items() if name not in dropped}
        same = by_what.setdefault(what, {"clusters": []} | fields)
        same["clusters"].append(problem["cluster_id"])
        if "retry_after_s" in fields:
            same["retry_after_s"] = max(same["retry_after_s"], fields["retry_after_s"])
    return list(by_what.values())


def _without_output(problem: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in problem.items() if name not in ("stdout", "stderr")}


def _text(fields: Mapping[str, Any]) -> str:
    lines = [fields["summary"], *map(_block, fields["groups"]), *map(_problem_text, fields["problems"])]
    if unknown := fields["labels_unknown"]:
        lines.append(f"not connected, so their labels are not known: {', '.join(unknown)}")
    lines += _beside(fields)
    if "next_step" in fields:
        lines.append(fields["next_step"])
    return "\n".join(lines)


def _block(group: Mapping[str, Any]) -> str:
    code = f" (exit code {group['exit_code']})" if group.get("exit_code") else ""
    return "\n".join(
        [f"== {', '.join(group['clusters'])}{code}", output_text(group).rstrip() or "(no output)", *_beside(group)]
    )


def _problem_text(problem: Mapping[str, Any]) -> str:
    known = f" (command_id {problem['command_id']})" if "command_id" in problem else ""
    output = output_text(problem).rstrip()
    return "\n".join(
        [
            f"{', '.join(problem['clusters'])}: {failure_text(problem)}{known}",
            *([output] if output else []),
            *_beside(problem),
        ]
    )


def _beside(fields: Mapping[str, Any]) -> list[str]:
    """In a line of its own, if there is something."""
    said = remarks(fields)
    return [f"[{'; '.join(said)}]"] if said else []


def _only(names: Iterable[str], fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fields[name] for name in names if name in fields}
