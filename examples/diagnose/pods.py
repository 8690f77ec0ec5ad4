"""Which pods are in trouble, and what a pod's status says of it. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

# A line a pod, so that a big cluster fits; and only the lines of those that are not up, or have ended before.
COLUMNS = (
    "custom-columns=PHASE:.status.phase,READY:.status.containerStatuses[*].ready,"
    "RESTARTS:.status.containerStatuses[*].restartCount,NAMESPACE:.metadata.namespace,NAME:.metadata.name"
)
IN_TROUBLE = r"^(Pending|Failed|Unknown)|^Running +(\S*false|\S+ +[0,]*[1-9])"
# Of one pod, as JSON.
STATUSES = "$.status['initContainerStatuses','containerStatuses'][*]"


class Trouble(Enum):
    """The first that holds for one of its containers is a pod's trouble."""

    IMAGE = "image"  # it cannot be pulled
    SETTINGS = "settings"  # what the container is to be made with is not there
    CRASH = "crash"  # it ended, now or before
    UNREADY = "unready"  # it runs, and a probe fails
    UNPLACED = "unplaced"  # there is no container yet


WAITING = {
    "ErrImagePull": Trouble.IMAGE,
    "ImagePullBackOff": Trouble.IMAGE,
    "InvalidImageName": Trouble.IMAGE,
    "CreateContainerConfigError": Trouble.SETTINGS,
    "CreateContainerError": Trouble.SETTINGS,
}


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, and that container of it which is in trouble."""

    namespace: str
    name: str
    restarts: int = 0
    trouble: Trouble = Trouble.UNPLACED
    container: str = ""
    # Of the container's state: why it waits, and how it ended last.
    waiting: str = ""
    ended: str = ""
    exit_code: int | None = None
    has_previous_log: bool = False

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def read_pods(lines: Iterable[str]) -> list[Pod]:
    """The one that restarts most first."""
    rows = [line.split() for line in lines]
    pods = [
        Pod(namespace, name, restarts=sum(map(int, re.findall(r"\d+", restarts))))
        for _, _, restarts, namespace, name in (row for row in rows if len(row) == 5)
    ]
    return sorted(pods, key=lambda pod: (-pod.restarts, pod.namespace, pod.name))


def look_closer(pod: Pod, statuses: Iterable[Any]) -> Pod | None:
    """The pod, with what its containers' statuses say; None if none of them is in trouble any more."""
    looks = [_of_container(pod, status) for status in statuses]
    if not looks:
        return pod
    order = list(Trouble)
    return min(filter(None, looks), key=lambda look: order.index(look.trouble), default=None)


def _of_container(pod: Pod, status: Any) -> Pod | None:
    """None for a container that is well, or only waits for another one."""
    state, last = status.get("state", {}), status.get("lastState", {}).get("terminated")
    waiting = state.get("waiting", {})
    # A container that crash-loops is seen to wait, to run and to have ended, one after the other.
    end = last or state.get("terminated") or {}
    trouble = WAITING.get(waiting.get("reason", ""))
    if trouble is None and end and (last or end["exitCode"] != 0):
        trouble = Trouble.CRASH
    if trouble is None and "running" in state and not status["ready"]:
        trouble = Trouble.UNREADY
    if trouble is None:
        return None
    return replace(
        pod,
        trouble=trouble,
        container=status["name"],
        restarts=status["restartCount"],
        waiting=waiting.get("message", waiting.get("reason", "")),
        ended=end.get("reason", "no reason"),
        exit_code=end.get("exitCode"),
        has_previous_log=last is not None,
    )
