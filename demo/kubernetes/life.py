"""How things go on: each life is a generator that changes the world and yields the seconds until it goes on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from demo.kubernetes.manifest import Fate
from demo.kubernetes.objects import Obj, name_of, namespace_of
from demo.kubernetes.pods import State, running, terminated, unschedulable, waiting, where, with_states
from demo.kubernetes.times import instant, micro_stamp, stamp
from demo.kubernetes.world import Life, World

# What a pod's birth certificate says is only worth telling while the event would still be kept.
RECENT_S = 3600.0

# How long a container is seen to have ended, an image is pulled, and the kubelet and the scheduler wait to try again.
_ENDED_S = 2.0
_PULL_S = 5.0
_PULL_BACKOFF_S = 30.0
_LOOK_S = 45.0

_LEASE_S = 10.0
_HEARTBEAT_S = 300.0
_EXPIRY_S = 30.0


@dataclass(frozen=True, slots=True)
class _Kubelet:
    """Tells what happens to one container of a pod."""

    world: World
    pod: Obj
    container: Obj

    @classmethod
    def of_failing(cls, world: World, pod: Obj, fate: Fate) -> "_Kubelet":
        """For the container that the fate names, or the first."""
        containers: list[Obj] = pod["spec"]["containers"]
        return cls(world, pod, next((c for c in containers if c["name"] == fate.container), containers[0]))

    @property
    def name(self) -> str:
        return str(self.container["name"])

    @property
    def began(self) -> float:
        """When the kubelet took the pod on."""
        return instant(self.pod["status"]["startTime"])

    def tell(
        self,
        reason: str,
        message: str,
        *,
        now: float,
        warning: bool = False,
        count: int = 1,
        first: float | None = None,
    ) -> None:
        self.world.event(
            self.pod,
            reason,
            message=message,
            now=now,
            source="kubelet",
            warning=warning,
            field_path=f"spec.containers{{{self.name}}}",
            count=count,
            first=first,
        )

    def tell_start(self, *, now: float, count: int = 1, first: float | None = None) -> None:
        present = f'Container image "{self.container["image"]}" already present on machine'
        self.tell("Pulled", present, now=now, count=count, first=first)
        self.tell("Created", f"Container created: {self.name}", now=now, count=count, first=first)
        self.tell("Started", f"Container started: {self.name}", now=now, count=count, first=first)


def tell_birth(world: World, pod: Obj, *, at: float, now: float) -> None:
    """The events of a pod that was scheduled and started without trouble, if they are not too old to be kept."""
    if now - at > RECENT_S:
        return
    message = f"Successfully assigned {namespace_of(pod)}/{name_of(pod)} to {pod['spec']['nodeName']}"
    world.event(pod, "Scheduled", message=message, now=at, source="default-scheduler")
    for container in pod["spec"]["containers"]:
        _Kubelet(world, pod, container).tell_start(now=at + 1)


def healthy(world: World, pod: Obj, _: Fate) -> Life:
    """Runs, and has run since it was scheduled."""
    now = yield 0.0
    at = instant(pod["status"]["startTime"])
    world.put(with_states(pod, {"": running(at + 1)}, at=at + 2, phase="Running"))
    tell_birth(world, pod, at=at, now=now)


def out_of_memory(world: World, pod: Obj, fate: Fate) -> Life:
    """Runs now, but was killed for its memory a while ago, and not for the first time."""
    now = yield 0.0
    kubelet = _Kubelet.of_failing(world, pod, fate)
    name, ended = kubelet.name, now - fate.backoff_s
    last = {name: terminated(ended - fate.run_s, ended, reason="OOMKilled", exit_code=137)}
    states = {"": running(kubelet.began + 1), name: running(ended + 1)}
    world.put(with_states(pod, states, at=ended + 3, phase="Running", restarts={name: fate.restarts}, last=last))


def crash_loop(world: World, pod: Obj, fate: Fate) -> Life:
    """Starts, fails, waits, starts again; it has done so since it was made."""
    now = yield 0.0
    kubelet = _Kubelet.of_failing(world, pod, fate)
    name, restarts = kubelet.name, fate.restarts
    ended = now - fate.backoff_s / 2
    failed = terminated(ended - fate.run_s, ended, reason=fate.reason, exit_code=fate.exit_code)
    back_off = f"Back-off restarting failed container {name} in pod {where(pod)}"
    pause = f"back-off {fate.backoff_s:.0f}s restarting failed container={name} pod={where(pod)}"

    def show(state: State, *, at: float) -> None:
        states = {"": running(kubelet.began + 1), name: state}
        last = {name: failed}
        world.put(with_states(pod, states, at=at, phase="Running", restarts={name: restarts}, last=last))

    kubelet.tell_start(now=ended - fate.run_s, count=restarts + 1, first=kubelet.began)
    kubelet.tell("BackOff", back_off, now=now, warning=True, count=restarts * 4, first=kubelet.began + 8)
    while True:
        show(waiting("CrashLoopBackOff", pause), at=ended)
        now = yield ended + fate.backoff_s - now

        restarts, started = restarts + 1, now
        show(running(started), at=started)
        kubelet.tell_start(now=started)
        ended = yield fate.run_s

        # Until the next run has failed, what is shown as the last state is the failure before this one.
        now_failed = terminated(started, ended, reason=fate.reason, exit_code=fate.exit_code)
        show(now_failed, at=ended)
        failed = now_failed
        kubelet.tell("BackOff", back_off, now=ended, warning=True)
        now = yield _ENDED_S


def image_pull(world: World, pod: Obj, fate: Fate) -> Life:
    """Never starts, because its image cannot be pulled; the kubelet tries again and again."""
    now = yield 0.0
    kubelet = _Kubelet.of_failing(world, pod, fate)
    image, began = kubelet.container["image"], kubelet.began
    back_off = f'Back-off pulling image "{image}"'
    tries = max(1, int((now - began) / 300))

    def show(reason: str, message: str) -> None:
        world.put(with_states(pod, {"": running(began + 1), kubelet.name: waiting(reason, message)}, at=began))

    # The counts hold for what was told before the world began; from then on each telling counts one.
    tell = partial(kubelet.tell, count=tries, first=began + 1)
    while True:
        tell("Pulling", f'Pulling image "{image}"', now=now)
        tell("Failed", f'Failed to pull image "{image}": {fate.message}', now=now, warning=True)
        tell("Failed", "Error: ErrImagePull", now=now, warning=True)
        show("ErrImagePull", fate.message)
        now = yield _PULL_S

        tell("BackOff", back_off, now=now)
        tell("Failed", "Error: ImagePullBackOff", now=now, warning=True)
        show("ImagePullBackOff", f"{back_off}: {fate.message}")
        now = yield _PULL_BACKOFF_S


def no_room(world: World, pod: Obj, fate: Fate) -> Life:
    """Fits on no node; the scheduler says so each time it looks."""
    now = yield 0.0
    created = instant(pod["metadata"]["creationTimestamp"])
    world.put(unschedulable(pod, fate.message, at=created))
    looked = max(1, int((now - created) / 300))
    tell = partial(world.event, pod, "FailedScheduling", message=fate.message, source="default-scheduler", warning=True)
    while True:
        tell(now=now, count=looked, first=created)
        now = yield _LOOK_S


# What `demo.fate.kind` may say.
FATES: dict[str, Callable[[World, Obj, Fate], Life]] = {
    "healthy": healthy,
    "out-of-memory": out_of_memory,
    "crash-loop": crash_loop,
    "image-pull": image_pull,
    "no-room": no_room,
}


def lease(world: World, template: Obj) -> Life:
    """A node says that it is alive."""
    now = yield 0.0
    while True:
        world.put({**template, "spec": {**template["spec"], "renewTime": micro_stamp(now)}})
        now = yield _LEASE_S


def heartbeat(world: World, node: Obj) -> Life:
    """A node says how it is, which takes longer to say."""
    now = yield 0.0
    while True:
        conditions = [{**condition, "lastHeartbeatTime": stamp(now)} for condition in node["status"]["conditions"]]
        world.put({**node, "status": {**node["status"], "conditions": conditions}})
        now = yield _HEARTBEAT_S


def expiry(world: World) -> Life:
    """Old events go."""
    now = yield _EXPIRY_S
    while True:
        world.expire_events(now)
        now = yield _EXPIRY_S
