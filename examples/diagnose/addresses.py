"""A container that cannot connect: who is at that address, and who told it to go there. Pure."""

import re
from collections.abc import Generator
from dataclasses import dataclass

from .pods import Pod
from .settings import settings
from .words import Answer, Finding, GaveUp, Plan, Step

COLUMNS = (
    "custom-columns=IP:.spec.clusterIP,PORTS:.spec.ports[*].port,NAMESPACE:.metadata.namespace,NAME:.metadata.name"
)
_HOST_PORT = re.compile(r"\b([A-Za-z0-9][\w.-]*):(\d{2,5})\b(?!:\d|\.\d)")
_UNREACHED = re.compile(r"(?i)connection refused|ECONNREFUSED|timed? ?out|no route to host|no such host|ENOTFOUND")


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: str
    line: str

    @property
    def is_number(self) -> bool:
        return re.fullmatch(r"[\d.]+", self.host) is not None


def find_address(lines: list[str]) -> Address | None:
    """The one that the last line of this kind says could not be reached."""
    for line in reversed(lines):
        if _UNREACHED.search(line) and (found := _HOST_PORT.findall(line)):
            host, port = found[-1]  # not the time, with which lines begin
            return Address(host, port, line)
    return None


def why_it_cannot_connect(pod: Pod, address: Address) -> Plan:
    """None if nothing is wrong with where it goes. Raises GaveUp for a list that is not what was asked for."""
    at = f"{address.host}:{address.port}"
    # By its IP, in the first column, or by its namespace and name, in the last two.
    name, _, rest = address.host.partition(".")
    which = rf" {rest.split('.')[0] or pod.namespace} +{name}$"
    if address.is_number:
        which = rf"^{re.escape(address.host)} "
    argv = ("get", "services", "--all-namespaces", "--no-headers", "-o", COLUMNS)
    answer = yield Step(f"{pod.container} cannot connect to {at}. Which service is that?", argv, grep=which)
    if not answer.is_good:
        return None
    if answer.lines():
        row = answer.lines()[0]
        if len(words := row.split()) != 4:
            raise GaveUp(f"the list of services cannot be read: {row}")
        _, ports, namespace, name = words
        if address.port in ports.split(","):
            return (yield from _why_nobody_answers(pod, address, namespace, name))
        known = f"service {namespace}/{name} is on port {ports}"
    else:
        known = f"no service is at {address.host}"
    cause, evidence = f"{pod.container} connects to {at}, but {known}", [address.line]
    sources = yield from settings(pod, f"{known[0].upper()}{known[1:]}. Who told {pod.container} so?")
    for source in sources or []:
        if source.value == address.port or at in source.value or source.value == address.host:
            cause = f"{source.place} has {source.name}={source.value}; {cause}"
            evidence.append(str(source))
            break
    evidence += yield from _since_when(pod)
    return Finding(str(pod), cause, tuple(evidence))


def _why_nobody_answers(pod: Pod, address: Address, namespace: str, name: str) -> Plan:
    """The service is there, and on this port."""
    why = f"That is the service {namespace}/{name}, on this very port. Is anything behind it?"
    argv = ("get", "endpoints", name, "--namespace", namespace, "-o", "json")
    answer = yield Step(why, argv, jsonpath="$.subsets[*].addresses[*].ip")
    if not answer.is_good or answer.values():
        return None
    cause = f"{pod.container} connects to the service {namespace}/{name}, and no pod is ready behind it"
    return Finding(str(pod), cause, (address.line,))


def _since_when(pod: Pod) -> Generator[Step, Answer, list[str]]:
    """What the last change was, if the pod is of a Deployment: then it is called so, and two words more."""
    deployment = pod.name.rsplit("-", 2)[0]
    argv = ("rollout", "history", f"deployment/{deployment}", "--namespace", pod.namespace)
    answer = yield Step("What was changed last?", argv, grep=r"^\d", tail=1)
    revision, _, change = "".join(answer.lines()).partition(" ")
    return [f"revision {revision} of {deployment}: {change.strip()}"] if answer.is_good and change else []
