"""How things go on: each life is a generator that changes the world and yields the seconds until it goes on."""

from collections.abc import Callable

from demo.kubernetes.manifest import Fate
from demo.kubernetes.objects import Obj, name_of, namespace_of
from demo.kubernetes.pods import running, terminated, unschedulable, waiting, where, with_states
from demo.kubernetes.times import instant, micro_stamp, stamp
from demo.kubernetes.world import Life, World

# What a pod's birth certificate says is only worth telling while the event would still be kept.
RECENT_S = 3600.0

_LEASE_S = 10.0
_HEARTBEAT_S = 300.0
_EXPIRY_S = 30.0


def _field(container: str) -> str:
    return f"spec.containers{{{container}}}"


def tell_birth(world: World, pod: Obj, *, at: float, now: float) -> None:
    """The events of a pod that was scheduled and started without trouble."""
    if now - at > RECENT_S:
        return
    place = f"{namespace_of(pod)}/{name_of(pod)}"
    message = f"Successfully assigned {place} to {pod['spec']['nodeName']}"
    world.event(pod, "Scheduled", message=message, now=at, source="default-scheduler")
    for container in pod["spec"]["containers"]:
        _tell_start(world, pod, container, now=at + 1)


def _tell_start(
    world: World, pod: Obj, container: Obj, *, now: float, count: int = 1, first: float | None = None
) -> None:
    name = container["name"]
    for reason, message in (
        ("Pulled", f'Container image "{container["image"]}" already present on machine'),
        ("Created", f"Container created: {name}"),
        ("Started", f"Container started: {name}"),
    ):
        world.event(
            pod,
            reason,
            message=message,
            now=now,
            source="kubelet",
            field_path=_field(name),
            count=count,
            first=first,
        )


def _failing(pod: Obj, fate: Fate) -> Obj:
    containers: list[Obj] = pod["spec"]["containers"]
    return next((c for c in containers if c["name"] == fate.container), containers[0])


def healthy(world: World, pod: Obj, _: Fate) -> Life:
    """Runs, and has run since it was scheduled; `restarts` happened long ago."""
    now = yield 0.0
    at = instant(pod["status"]["startTime"])
    world.put(with_states(pod, {"": running(at + 1)}, at=at + 2, phase="Running"))
    tell_birth(world, pod, at=at, now=now)


def out_of_memory(world: World, pod: Obj, fate: Fate) -> Life:
    """Runs now, but was killed for its memory a while ago, and not for the first time."""
    now = yield 0.0
    container = _failing(pod, fate)["name"]
    ended = now - fate.backoff_s
    last = {container: terminated(ended - fate.run_s, ended, reason="OOMKilled", exit_code=137)}
    began = instant(pod["status"]["startTime"])
    states = {"": running(began + 1), container: running(ended + 1)}
    counts = {container: fate.restarts}
    world.put(with_states(pod, states, at=ended + 3, phase="Running", restarts=counts, last=last))


def crash_loop(world: World, pod: Obj, fate: Fate) -> Life:
    """Starts, fails, waits, starts again; it has done so since it was made."""
    now = yield 0.0
    container = _failing(pod, fate)
    name, began = container["name"], instant(pod["status"]["startTime"])
    others = running(began + 1)
    restarts, ended = fate.restarts, now - fate.backoff_s / 2
    started = ended - fate.run_s
    back_off = f"Back-off restarting failed container {name} in pod {where(pod)}"
    _tell_start(world, pod, container, now=started, count=restarts + 1, first=began)
    world.event(
        pod,
        "BackOff",
        message=back_off,
        now=now,
        source="kubelet",
        warning=True,
        field_path=_field(name),
        count=restarts * 4,
        first=began + 8,
    )
    pause = f"back-off {fate.backoff_s:.0f}s restarting failed container={name} pod={where(pod)}"
    while True:
        failed = terminated(started, ended, reason=fate.reason, exit_code=fate.exit_code)
        last, counts = {name: failed}, {name: restarts}
        states = {"": others, name: waiting("CrashLoopBackOff", pause)}
        world.put(with_states(pod, states, at=ended, phase="Running", restarts=counts, last=last))
        now = yield ended + fate.backoff_s - now

        restarts, started = restarts + 1, now
        counts = {name: restarts}
        states = {"": others, name: running(now)}
        world.put(with_states(pod, states, at=now, phase="Running", restarts=counts, last=last))
        _tell_start(world, pod, container, now=now)
        now = yield fate.run_s

        ended = now
        states = {"": others, name: terminated(started, ended, reason=fate.reason, exit_code=fate.exit_code)}
        world.put(with_states(pod, states, at=now, phase="Running", restarts=counts, last=last))
        world.event(pod, "BackOff", message=back_off, now=now, source="kubelet", warning=True, field_path=_field(name))
        now = yield 2.0


def image_pull(world: World, pod: Obj, fate: Fate) -> Life:
    """Never starts, because its image cannot be pulled; the kubelet tries again and again."""
    now = yield 0.0
    container = _failing(pod, fate)
    image, name = container["image"], container["name"]
    began = instant(pod["status"]["startTime"])
    tries = max(1, int((now - began) / 300))
    states = {"": running(began + 1)}
    while True:
        for reason, message, warning in (
            ("Pulling", f'Pulling image "{image}"', False),
            ("Failed", f'Failed to pull image "{image}": {fate.message}', True),
            ("Failed", "Error: ErrImagePull", True),
        ):
            world.event(
                pod,
                reason,
                message=message,
                now=now,
                source="kubelet",
                warning=warning,
                field_path=_field(name),
                count=tries,
                first=began + 1,
            )
        world.put(with_states(pod, {**states, name: waiting("ErrImagePull", fate.message)}, at=began))
        now = yield 5.0

        back_off = f'Back-off pulling image "{image}"'
        for reason, message, warning in (
            ("BackOff", back_off, False),
            ("Failed", "Error: ImagePullBackOff", True),
        ):
            world.event(
                pod,
                reason,
                message=message,
                now=now,
                source="kubelet",
                warning=warning,
                field_path=_field(name),
                count=tries * 3,
                first=began + 6,
            )
        world.put(
            with_states(pod, {**states, name: waiting("ImagePullBackOff", f"{back_off}: {fate.message}")}, at=began)
        )
        now = yield 30.0


def no_room(world: World, pod: Obj, fate: Fate) -> Life:
    """Fits on no node; the scheduler says so each time it looks."""
    now = yield 0.0
    created = instant(pod["metadata"]["creationTimestamp"])
    world.put(unschedulable(pod, fate.message, at=created))
    looked = max(1, int((now - created) / 300))
    while True:
        world.event(
            pod,
            "FailedScheduling",
            message=fate.message,
            now=now,
            source="default-scheduler",
            warning=True,
            count=looked,
            first=created,
        )
        now = yield 45.0


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
