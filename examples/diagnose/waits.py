"""What to ask of a container that does not get ready: it lacks an image, settings or a node, or a probe fails. Pure."""

import re

from .pods import Pod
from .words import Finding, Plan, Step

# What the registry said, and what it means.
PULLS = (
    (r"unauthorized|denied|authentication required|no basic auth", "the registry does not let it have the image"),
    (r"not found|manifest unknown|does not exist", "the image does not exist"),
    (r"no such host|timeout|timed out|connection refused|unreachable", "the registry cannot be reached"),
    (r"invalid reference|couldn't parse image", "the name of the image is malformed"),
)


def warnings(pod: Pod, why: str) -> Step:
    """The events of a pod that are warnings, each its message."""
    about = f"involvedObject.kind=Pod,involvedObject.name={pod.name},type=Warning"
    argv = ("get", "events", "--namespace", pod.namespace, "--field-selector", about, "-o", "json")
    return Step(why, argv, jsonpath="$.items[*].message", tail=10)


def of_spec(pod: Pod, why: str, fields: str) -> Step:
    """Some fields of the container that is in trouble, or of all of them."""
    which = f"?@.name == '{pod.container}'" if pod.container else "*"
    query = f"$.spec['initContainers','containers'][{which}]{fields}"
    return Step(why, ("get", "pod", pod.name, "--namespace", pod.namespace, "-o", "json"), jsonpath=query)


def why_it_has_no_image(pod: Pod) -> Plan:
    answer = yield warnings(pod, f"{pod}: {pod.container} waits for its image. What did the registry say?")
    said = [*answer.values(), pod.waiting]
    for pattern, meaning in PULLS:
        if line := next((line for line in said if re.search(pattern, line)), None):
            image = re.search(r'image "([^"]+)"', line)
            return Finding(str(pod), f"{meaning}: {image[1]}" if image else meaning, (line,))
    return None


def why_it_is_not_made(pod: Pod) -> Plan:
    """The kubelet says it in one line, in the status; what there is instead can be asked."""
    cause, evidence = pod.waiting, [pod.waiting]
    if missing := re.search(r'(configmap|secret) "([\w.-]+)" not found', pod.waiting):
        kind, name = missing.groups()
        why = f"{pod}: {pod.waiting}. Which are there?"
        answer = yield Step(why, ("get", f"{kind}s", "--namespace", pod.namespace, "-o", "name"), tail=20)
        cause = f"{pod.container} needs the {kind} {name}, which is not there"
        evidence += [f"there are: {', '.join(answer.lines())}"] if answer.is_good and answer.lines() else []
    return Finding(str(pod), cause, tuple(evidence)) if cause else None


def why_it_has_no_node(pod: Pod) -> Plan:
    answer = yield warnings(pod, f"{pod} is on no node. What does the scheduler say?")
    said = next((line for line in reversed(answer.values()) if "available" in line or "unbound" in line), None)
    if said is None:
        return None
    short = re.search(r"Insufficient ([a-z0-9./-]*[a-z0-9])", said)
    if short is None:
        return Finding(str(pod), said.partition(" preemption:")[0], (said,))
    resource = short[1]
    why = f"No node has enough {resource} left. How much does it ask for?"
    answer = yield of_spec(pod, why, f".resources.requests['{resource}']")
    asked = " + ".join(map(str, answer.values())) or "more"
    column = f"custom-columns=NAME:.metadata.name,HAS:.status.allocatable.{resource.replace('.', chr(92) + '.')}"
    why = f"It asks for {asked} of {resource}. How much does a node have, all told?"
    answer = yield Step(why, ("get", "nodes", "--no-headers", "-o", column))
    nodes = tuple(" has ".join(line.split()) for line in answer.lines()) if answer.is_good else ()
    return Finding(str(pod), f"it asks for {asked} of {resource}, and no node has that to give", (said, *nodes))


def why_it_is_not_ready(pod: Pod) -> Plan:
    answer = yield warnings(pod, f"{pod}: {pod.container} runs and is not ready. Which probe fails?")
    said = next((line for line in reversed(answer.values()) if re.search(r"(?i)probe (failed|errored)", line)), None)
    if said is None:
        return None
    probe = said.split()[0].lower()
    answer = yield of_spec(pod, f"{said}: what does it look at?", f".{probe}Probe")
    looks_at = tuple(f"{probe}Probe: {value}" for value in answer.values())
    return Finding(str(pod), f"the {probe} probe of {pod.container} fails", (said, *looks_at))
