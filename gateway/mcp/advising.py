"""What a model is advised to do next, beside what it is told. Pure."""

from collections.abc import Mapping

from gateway.command_models import FailureAnswer
from openline.errors import OpenlineError
from openline.next_steps import NEXT_STEPS
from openline.policy.denial import Rule
from openline.reasons import Reason

NOTHING_RUN = "Nothing was run. "
_AGAIN = "openline only reads, so it is safe to run it again."
# What to do about it, beside what the broker says. That nothing was run is said where that is known.
NEXT: dict[Reason | Rule, str] = {
    Reason.CLUSTER_UNKNOWN: "list_clusters shows which clusters there are.",
    Reason.CLUSTER_OFFLINE: "Nothing was run. Try again later, or go on with another cluster.",
    Reason.CLUSTER_BUSY: "Nothing was run. Try again later.",
    Reason.QUOTA_EXCEEDED: "Nothing was run. Wait before the next command, and ask for more with each.",
    Reason.POLICY_DENIED: "Nothing was run. Asking again will not help: use what is allowed instead.",
    Reason.INVALID_COMMAND: "Nothing was run. Correct the arguments.",
    Reason.UNAUTHENTICATED: "Nothing was run. Only the user can help: the API key that this server has is wrong.",
    Reason.SCOPE_MISSING: "Nothing was run. Only the user can help: the API key may not do this.",
    Reason.SESSION_UNKNOWN: "Nothing was run. Leave session_id out: it is optional.",
    Reason.SESSION_MISMATCH: "Nothing was run. Leave session_id out, or name the cluster that the session is of.",
    Reason.EXECUTOR_LOST: _AGAIN,
    Reason.COMMAND_TIMEOUT: "Give a longer timeout_seconds, or ask for less.",
    Reason.CANCELLED: "The message says who stopped it and why: run it again only if it is still wanted.",
    Reason.RESULT_EXPIRED: "Its output is not kept any more. " + _AGAIN,
    Reason.COMMAND_UNKNOWN: "Give the command_id or cursor as an earlier answer says it.",
    Reason.EXECUTOR_FAILED: "Nothing was run. Only the user can help: the cluster's executor cannot start kubectl.",
    Reason.STORE_UNAVAILABLE: "Try again in a moment.",
    Reason.BROKER_UNAVAILABLE: f"Try again in a moment. {_AGAIN}",
    Rule.STREAMING: "Nothing was run. Leave -w or -f out, and ask again later; of logs --tail shows the end.",
}
# Where a selector fits no cluster.
LABELS = "list_clusters without selector shows which labels there are."


def next_step(
    failure: OpenlineError | FailureAnswer, advice: Mapping[Reason | Rule, str] = NEXT, *, rule: str = ""
) -> str:
    """As advised, by the policy's rule or the reason, or else as the broker says."""
    reason, said = failure.reason, failure.next_step
    by_name = {each.value: text for each, text in advice.items()}
    if rule in by_name:
        step = by_name[rule]
    elif reason == Reason.POLICY_DENIED and said != NEXT_STEPS[Reason.POLICY_DENIED]:
        # It knows which word was meant.
        step = NOTHING_RUN + said
    else:
        step = by_name.get(reason, said)
    # A key may be refused when the command has begun.
    return step if failure.executed == "no" else step.removeprefix(NOTHING_RUN)
