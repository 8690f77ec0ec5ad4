"""What to ask first, and which pod to look into: the worst one, or else the next. Pure."""

from collections.abc import Callable

from .crashes import why_it_ends
from .pods import COLUMNS, IN_TROUBLE, STATUSES, Pod, Trouble, look_closer, read_pods
from .waits import why_it_has_no_image, why_it_has_no_node, why_it_is_not_made, why_it_is_not_ready
from .words import Finding, GaveUp, Plan, Step

# Another one is as a rule a replica of one of these.
MAX_PODS = 5

LOOKS: dict[Trouble, Callable[[Pod], Plan]] = {
    Trouble.IMAGE: why_it_has_no_image,
    Trouble.SETTINGS: why_it_is_not_made,
    Trouble.CRASH: why_it_ends,
    Trouble.UNREADY: why_it_is_not_ready,
    Trouble.UNPLACED: why_it_has_no_node,
}


def diagnose(namespace: str = "") -> Plan:
    """In one namespace, or in all of them. Raises GaveUp if it cannot see the pods at all."""
    scope = ("--namespace", namespace) if namespace else ("--all-namespaces",)
    argv = ("get", "pods", *scope, "--no-headers", "-o", COLUMNS)
    answer = yield Step("Which pods are not well?", argv, grep=IN_TROUBLE)
    if not answer.is_good:
        raise GaveUp(f"the pods cannot be listed. {answer.stderr.strip()}")
    for pod in read_pods(answer.lines())[:MAX_PODS]:
        why = f"{pod} has restarted {pod.restarts} times. How are its containers?"
        argv = ("get", "pod", pod.name, "--namespace", pod.namespace, "-o", "json")
        answer = yield Step(why, argv, jsonpath=STATUSES)
        if not answer.is_good or (seen := look_closer(pod, answer.values())) is None:
            continue
        finding: Finding | None = yield from LOOKS[seen.trouble](seen)
        if finding is not None:
            return finding
    return None
