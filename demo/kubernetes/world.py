"""The cluster as it stands and as it goes on: objects, the lives that change them, events and container logs.

Pure: `now` is an argument, and whoever owns the world calls `advance`.
"""

import hashlib
import heapq
from collections.abc import Generator
from itertools import count

from demo.kubernetes.kinds import BY_KIND, Kind
from demo.kubernetes.logs import QUIET, Run, Script
from demo.kubernetes.metrics import MEASURED
from demo.kubernetes.objects import Obj, dig, name_of, namespace_of, reference, uid
from demo.kubernetes.store import Store
from demo.kubernetes.times import instant, stamp

# A life changes the world and yields the seconds until its next step, which resumes it with the time it then is.
Life = Generator[float, float, None]

# As the API server's --event-ttl; the cap bounds a cluster where everything goes wrong at once.
EVENT_TTL_S = 3600.0
MAX_EVENTS = 1000


class World:
    """A cluster. `cluster.local(now)` makes the one of the demo."""

    def __init__(self) -> None:
        self.store = Store()
        self.scripts: dict[str, dict[str, Script]] = {}  # by uid of the pod, then by container
        self.delays_s: dict[str, float] = {}  # by namespace: how long each answer about it takes
        self._due: list[tuple[float, int, Life]] = []
        self._turn = count()  # lives due at the same instant go in the order in which they were added

    def put(self, obj: Obj) -> Obj:
        return self.store.put(BY_KIND[obj["apiVersion"], obj["kind"]].key, obj)

    def remove(self, obj: Obj) -> None:
        self.store.remove(BY_KIND[obj["apiVersion"], obj["kind"]].key, obj)
        self.scripts.pop(obj["metadata"]["uid"], None)

    def objects(self, kind: Kind, now: float, *, namespace: str = "") -> list[Obj]:
        """The objects of a kind as it shows them, in one namespace or in all."""
        if kind.resource in MEASURED:
            return MEASURED[kind.resource](self.store, now, namespace)
        found = self.store.list(kind.key, namespace)
        return [kind.convert(obj) for obj in found] if kind.convert else found

    def begin(self, life: Life, now: float) -> None:
        """Lets a life take its first step now, and the others when they are due."""
        heapq.heappush(self._due, (now + next(life), next(self._turn), life))
        self.advance(now)

    def advance(self, now: float) -> float:
        """Takes every step that is due, and returns the instant of the next one."""
        while self._due and self._due[0][0] <= now:
            _, turn, life = heapq.heappop(self._due)
            try:
                pause_s = life.send(now)
            except StopIteration:
                continue
            heapq.heappush(self._due, (now + pause_s, turn, life))
        return self._due[0][0] if self._due else float("inf")

    def event(
        self,
        about: Obj,
        reason: str,
        *,
        message: str,
        now: float,
        source: str,
        warning: bool = False,
        field_path: str = "",
        count: int = 1,
        first: float | None = None,
    ) -> None:
        """Tells an event; one that was told before is counted up instead, as Kubernetes' recorders do."""
        namespace = namespace_of(about) or "default"
        digest = hashlib.sha256(f"{about['metadata']['uid']}{reason}{message}".encode()).hexdigest()[:16]
        name = f"{name_of(about)}.{digest}"
        before = self.store.get("events", namespace, name=name)
        host = dig(about, "spec.nodeName", "") if source == "kubelet" else ""
        self.put(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "uid": uid("Event", namespace, name),
                    "creationTimestamp": dig(before, "metadata.creationTimestamp") or stamp(first or now),
                },
                "involvedObject": {**reference(about), **({"fieldPath": field_path} if field_path else {})},
                "reason": reason,
                "message": message,
                "source": {"component": source, **({"host": host} if host else {})},
                "firstTimestamp": before["firstTimestamp"] if before else stamp(first or now),
                "lastTimestamp": stamp(now),
                "count": before["count"] + 1 if before else count,
                "type": "Warning" if warning else "Normal",
                "eventTime": None,
                "reportingComponent": source,
                "reportingInstance": host,
            }
        )

    def expire_events(self, now: float) -> None:
        """Forgets events that are too old, and the oldest of those that are too many."""
        by_age = sorted(self.store.list("events"), key=lambda event: str(event["lastTimestamp"]))
        excess = len(by_age) - MAX_EVENTS
        for place, event in enumerate(by_age):
            if place >= excess and now - instant(event["lastTimestamp"]) <= EVENT_TTL_S:
                break
            self.remove(event)

    def run(self, pod: Obj, container: str, *, previous: bool) -> Run | None:
        """The run of a container whose log is asked for, or None when there was none."""
        status = next(s for s in pod["status"]["containerStatuses"] if s["name"] == container)
        state, last = status["state"], status.get("lastState") or {}
        found = last.get("terminated") if previous else state.get("running") or state.get("terminated")
        # A container that waits for its next start still shows the log of its last run.
        found = found or last.get("terminated")
        if not found:
            return None
        ended = instant(found["finishedAt"]) if "finishedAt" in found else None
        script = self.scripts.get(pod["metadata"]["uid"], {}).get(container, QUIET)
        return Run(script, instant(found["startedAt"]), ended, seed=name_of(pod))
