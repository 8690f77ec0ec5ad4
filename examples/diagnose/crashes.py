"""What to ask of a container that ends: what it said, then what that leads to. Pure."""

from .addresses import find_address, why_it_cannot_connect
from .pods import Pod
from .settings import find_setting, why_it_is_not_set
from .waits import of_spec, warnings
from .words import Finding, Plan, Step

COMPLAINTS = (
    r"(?i)error|fatal|panic|exception|fail|refused|denied|timed? ?out|missing|required|invalid|not (found|set)|"
    r"no such|unable|cannot"
)
KILLED = (137, 143)  # by SIGKILL and SIGTERM
NOT_STARTED = ("ContainerCannotRun", "StartError")
# What is longer is data rather than a message.
MAX_LINE_CHARS = 500


def why_it_ends(pod: Pod) -> Plan:
    how = f"ended with {pod.ended} and exit code {pod.exit_code}"
    ended = f"{pod}: {pod.container} restarted {pod.restarts} times, and {how}"
    if pod.ended == "OOMKilled":
        answer = yield of_spec(pod, f"{ended}. What is its limit?", ".resources.limits.memory")
        limit = ", ".join(map(str, answer.values())) or "that of its node"
        return Finding(
            str(pod), f"{pod.container} is killed when it needs more memory than its limit, {limit}", (ended,)
        )
    if pod.exit_code in KILLED or pod.ended in NOT_STARTED:
        answer = yield warnings(pod, f"{ended}. Who ended it?")
        if said := next((line for line in reversed(answer.values()) if not line.startswith("Back-off")), None):
            what = "could not be started" if pod.ended in NOT_STARTED else "was ended from outside"
            return Finding(str(pod), f"{pod.container} {what}", (said, ended))
    return (yield from _what_it_said(pod, ended))


def _what_it_said(pod: Pod, ended: str) -> Plan:
    previous = ("--previous",) if pod.has_previous_log else ()
    argv = ("logs", pod.name, "--namespace", pod.namespace, "--container", pod.container, *previous)
    answer = yield Step(f"{ended}. What did it say before that?", argv, grep=COMPLAINTS, tail=20)
    log = [line[:MAX_LINE_CHARS] for line in answer.lines()] if answer.is_good else []
    finding: Finding | None = None
    if (address := find_address(log)) is not None:
        finding = yield from why_it_cannot_connect(pod, address)
    elif (setting := find_setting(log)) is not None:
        finding = yield from why_it_is_not_set(pod, setting)
    if finding is None and log:
        finding = Finding(str(pod), f"{pod.container} ends with exit code {pod.exit_code}, and says why", (log[-1],))
    if finding is None:
        answer = yield warnings(pod, f"{pod}: its log says nothing of it. Do its events?")
        said = [line for line in answer.values() if not line.startswith("Back-off")]
        return Finding(str(pod), f"{pod.container} cannot run", (said[-1], ended)) if said else None
    return finding
