"""Where a container's settings come from: its environment, and the ConfigMaps in it. Pure."""

import re
from collections.abc import Generator
from dataclasses import dataclass

from .pods import Pod
from .waits import of_spec
from .words import Answer, Finding, Plan, Step

MAX_CONFIG_MAPS = 3

# `DATABASE_URL is not set`, `missing environment variable DATABASE_URL`, `KeyError: 'DATABASE_URL'`
_NAME = r"\b([A-Z][A-Z0-9]*_[A-Z0-9_]+)\b"
_MISSING = re.compile(
    rf"(?:missing|required|undefined|unset|KeyError)\b.*?{_NAME}"
    rf"|{_NAME}.*?(?:not set|missing|required|undefined|unset|empty)"
)


@dataclass(frozen=True, slots=True)
class Source:
    """A setting, and who says it."""

    place: str
    name: str
    value: str

    def __str__(self) -> str:
        return f'{self.place}: {self.name}="{self.value}"'


@dataclass(frozen=True, slots=True)
class Missing:
    name: str
    line: str


def settings(pod: Pod, why: str) -> Generator[Step, Answer, list[Source] | None]:
    """All that can be read; None if the pod cannot. A value from a Secret is there, but never shown."""
    answer = yield of_spec(pod, why, "['env','envFrom'][*]")
    if not answer.is_good:
        return None
    sources, config_maps = [], []
    for each in answer.values():
        if "configMapRef" in each:
            config_maps.append(each["configMapRef"]["name"])
        elif "name" in each:
            sources.append(Source(f"pod {pod}", each["name"], each.get("value", "from elsewhere")))
    for name in config_maps[:MAX_CONFIG_MAPS]:
        why = f"{pod.container} has settings from ConfigMap {name}. What are they?"
        argv = ("get", "configmap", name, "--namespace", pod.namespace, "-o", "json")
        answer = yield Step(why, argv, jsonpath="$.data")
        place = f"ConfigMap {pod.namespace}/{name}"
        sources += [Source(place, key, value) for data in answer.values() for key, value in data.items()]
    return sources


def find_setting(lines: list[str]) -> Missing | None:
    """What the last line that misses one misses."""
    for line in reversed(lines):
        if found := _MISSING.search(line):
            return Missing(found[1] or found[2], line)
    return None


def why_it_is_not_set(pod: Pod, missing: Missing) -> Plan:
    sources = yield from settings(pod, f"{pod.container} misses {missing.name}. Which settings is it given?")
    if sources is None:
        return None
    if given := next((source for source in sources if source.name == missing.name), None):
        return Finding(
            str(pod), f"{pod.container} does not take {missing.name} as it is given", (missing.line, str(given))
        )
    names = ", ".join(source.name for source in sources) or "none"
    cause = f"{pod.container} needs {missing.name}, and neither its environment nor a ConfigMap of it has that"
    return Finding(str(pod), cause, (missing.line, f"settings that it is given: {names}"))
