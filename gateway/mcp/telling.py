"""What a model is told: the output itself, and after it one line on what is missing and what to do next. Pure.

Everything that is told as text is told as fields as well: some clients show their model the one, some the other. So a
text is made of the fields, and of nothing else.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.argv import Unacceptable
from gateway.command_models import CommandAnswer
from gateway.mcp.advising import NEXT, next_step
from gateway.shaping_models import StreamAnswer
from openline.errors import OpenlineError
from openline.policy.denial import Rule
from openline.reasons import MEANING, Reason

MAX_NAMES = 20


@dataclass(frozen=True, slots=True)
class Told:
    """The answer of a tool."""

    text: str
    fields: dict[str, Any] = field(default_factory=dict)
    is_error: bool = False


def refused(wrong: Unacceptable) -> Told:
    """The arguments make no sense."""
    reason = Reason.INVALID_COMMAND
    message = f"{wrong.field}: {wrong}"
    fields = {"reason": reason.value, "message": message, "executed": "no", "next_step": NEXT[reason]}
    return Told(failure_text(fields), fields, is_error=True)


def failed(failure: OpenlineError, *, command_id: str = "") -> Told:
    """What was asked could not be done; `command_id` is the command that was to be run."""
    fields = failure_fields(failure)
    is_known = failure.reason is not Reason.COMMAND_UNKNOWN
    if is_known and failure.executed == "unknown" and (known := failure.command_id or command_id):
        fields["command_id"] = known
        fields["next_step"] += f" get_result with command_id {known} says whether it ran."
    return Told(failure_text(fields), fields, is_error=True)


def failure_fields(failure: OpenlineError, advice: Mapping[Reason | Rule, str] = NEXT) -> dict[str, Any]:
    """`advice` is what to do about each reason; where it has none, that is what the broker says."""
    metadata = failure.metadata
    retry_after_s = max(1, math.ceil(failure.retry_after_s)) if MEANING[failure.reason].retryable else None
    violations = "; ".join(f"{each.field}: {each.description}" for each in failure.error.violations)
    near = [name for name in metadata.get("near", "").split(",") if name]
    available = [name for name in metadata.get("available", "").split(",") if name]
    return _said(
        reason=failure.reason.value,
        message=f"{failure.error.message}: {violations}" if violations else failure.error.message,
        executed=failure.executed,
        retry_after_s=retry_after_s,
        near=near,
        available=[] if near else available[:MAX_NAMES],
        last_seen=metadata.get("last_seen"),
        rule=metadata.get("rule"),
        allowed=metadata.get("allowed"),
        hint=failure.hint or None,
        next_step=next_step(failure, advice, rule=metadata.get("rule", "")),
    )


def told(answer: CommandAnswer, *, timeout_s: float | None = None) -> Told:
    """A command, running or done; its timeout where that is known."""
    fields = command_fields(answer)
    if answer.state != "done":
        fields["next_step"] = "get_result waits for it and cancel stops it"
        runs_on = f"[still {fields['state']}; it runs on: {fields['next_step']} (command_id {fields['command_id']})]"
        return Told(runs_on, fields)
    if answer.outcome == "timed_out" and timeout_s:
        fields["timeout_seconds"] = timeout_s
    notes = [*_end_notes(fields), *remarks(fields)]
    text = output_text(fields) or "(no output)"
    return Told(f"{text.rstrip()}\n[{'; '.join(notes)}]" if notes else text, fields, is_error=not answer.success)


def command_fields(answer: CommandAnswer, advice: Mapping[Reason | Rule, str] = NEXT) -> dict[str, Any]:
    failure = answer.error
    is_own = answer.served_from in (None, "run")
    return _said(
        command_id=answer.command_id,
        cluster=answer.cluster_id,
        state=answer.state,
        exit_code=answer.exit_code,
        stdout=answer.stdout,
        stderr=answer.stderr or None,
        next_cursor=answer.shaping.next_cursor if answer.shaping else None,
        notes="; ".join(_shown_notes(answer)) or None,
        truncated=answer.truncated or None,
        masked_values=answer.masked_values or None,
        served_from=None if is_own else answer.served_from,
        age_s=None if is_own else round(answer.age_s or 0.0, 3),
        # Of a broker that does not say why there is at least how.
        reason=failure.reason or Reason.INTERNAL.value if failure else None,
        message=failure.message or f"it has ended {answer.outcome}" if failure else None,
        executed=failure.executed if failure else None,
        hint=answer.hint,
        next_step=next_step(failure, advice) if failure else None,
    )


def output_text(fields: Mapping[str, Any]) -> str:
    parts = [part for name in ("stdout", "stderr") if (part := fields.get(name))]
    return "\n".join(part.rstrip("\n") for part in parts[:-1]) + ("\n" if len(parts) > 1 else "") + "".join(parts[-1:])


def remarks(fields: Mapping[str, Any]) -> list[str]:
    """What there is to say of an output beside how it ended."""
    said = [fields["notes"]] if "notes" in fields else []
    if cursor := fields.get("next_cursor"):
        said.append(f'the next page: get_result with cursor "{cursor}"')
    if masked := fields.get("masked_values"):
        said.append(f"secret values that are masked: {masked}")
    if source := fields.get("served_from"):
        begun = f"begun {fields['age_s']:g} s before this was asked for"
        said.append(f"{source}: the run of an identical command, {begun}; with fresh it has a run of its own")
    # Of a failure it is in the text of that.
    if "reason" not in fields and (hint := fields.get("hint")):
        said.append(hint)
    return said


def _shown_notes(answer: CommandAnswer) -> list[str]:
    """What of the output is not there, as far as no other field says it."""
    notes = []
    if (shaping := answer.shaping) is not None:
        if shaping.jsonpath_error is not None:
            notes.append(f"jsonpath was not applied: {shaping.jsonpath_error}")
        if shaping.grep_matches is not None:
            before = (shaping.stdout.selected or shaping.stdout.total).lines
            notes.append(f"grep: {shaping.grep_matches} of {before} lines match")
        if shaping.next_cursor is not None:
            streams = [shaping.stdout] + ([shaping.stderr] if shaping.stderr else [])
            shown, after = sum(each.shown.chars for each in streams), sum(map(_after, streams))
            notes.append(f"{shown} characters shown, {after} more: narrow it with grep, tail or jsonpath")
    if answer.truncated:
        cut = sum(each.cut_bytes for each in (answer.stdout_summary, answer.stderr_summary) if each)
        how = f"{cut} bytes in the middle were not kept" if cut else f"cut by {' '.join(answer.bounded or [])}"
        notes.append(f"output too long, {how}: ask for less")
    return notes


def _end_notes(fields: Mapping[str, Any]) -> list[str]:
    if "exit_code" in fields:
        return [f"exit code {fields['exit_code']}"] if fields["exit_code"] else []
    if fields.get("reason") != Reason.COMMAND_TIMEOUT:
        return [failure_text(fields)]
    after = f" after {fields['timeout_seconds']:g} s" if "timeout_seconds" in fields else ""
    said = f"{Reason.COMMAND_TIMEOUT}{after}; above is the output so far."
    return [" ".join([said, _sentence(fields["message"]), *_advice(fields)])]


def failure_text(fields: Mapping[str, Any]) -> str:
    """Of the fields of a failure."""
    parts = [_sentence(f"{fields['reason']}: {fields['message']}")]
    if (near := fields.get("near")) and not all(name in fields["message"] for name in near):
        parts.append(f"Did you mean {', '.join(near)}?")
    if available := fields.get("available"):
        parts.append(f"There are: {', '.join(available)}.")
    if (last_seen := fields.get("last_seen")) and last_seen not in fields["message"]:
        parts.append(f"Last seen {last_seen}.")
    if (allowed := fields.get("allowed")) and allowed not in fields["message"]:
        parts.append(f"Allowed: {allowed}.")
    parts += _advice(fields)
    if retry := fields.get("retry_after_s"):
        parts.append(f"Ask again after {retry} s.")
    return " ".join(parts)


def _sentence(said: str) -> str:
    return said if said.endswith((".", "?", "!")) else f"{said}."


def _advice(fields: Mapping[str, Any]) -> list[str]:
    """The hint may point at the next step, which follows."""
    return [fields[name] for name in ("hint", "next_step") if name in fields]


def _after(stream: StreamAnswer) -> int:
    return stream.after.chars if stream.after else 0


def _said(**fields: Any) -> dict[str, Any]:
    """Without what there is nothing to say of: nobody pays for reading null."""
    return {name: value for name, value in fields.items() if value is not None and value != []}


def clusters_text(fields: Mapping[str, Any]) -> str:
    """A cluster a line."""
    lines = []
    for each in fields["clusters"]:
        labels = ",".join(f"{name}={value}" for name, value in each.get("labels", {}).items())
        seen = f"last seen {each['last_seen']}" if "last_seen" in each else "never seen"
        state = "connected" if each["connected"] else f"not connected, {seen}"
        version = each.get("kubernetes", "")
        lines.append(" ".join(filter(None, [each["cluster"], state, version, labels])))
    if "next" in fields:
        lines.append(f'[{fields["left"]} more: list_clusters with after "{fields["next"]}"]')
    if "next_step" in fields:
        lines.append(f"no cluster has such labels: {fields['next_step']}")
    return "\n".join(lines) or "no cluster, or none that this API key sees"
