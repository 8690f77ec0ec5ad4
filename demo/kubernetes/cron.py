"""Jobs: one that was run by hand, and those that a CronJob starts every minute."""

from demo.kubernetes.controllers import Controllers
from demo.kubernetes.life import tell_birth
from demo.kubernetes.manifest import Manifest
from demo.kubernetes.objects import Obj, dig, labels_of, name_of, namespace_of, owner, reference, suffix, uid
from demo.kubernetes.pods import pod as make_pod
from demo.kubernetes.pods import running, terminated, with_states
from demo.kubernetes.times import stamp
from demo.kubernetes.world import Life, World

_PERIOD_S = 60.0
_KEPT = 3

# From its start, a Job's pod takes this long to be there and, unless its fate says otherwise, that long to be done.
_CREATING_S = 1.0


def single(controllers: Controllers, manifest: Manifest) -> None:
    """A Job that was run once and is done."""
    run = _run(manifest.obj)
    at = controllers.now - manifest.demo.age_s
    pod = _pod(controllers, run, manifest, at=at)
    _finish(controllers.world, run, pod, started=at, ended=at + manifest.demo.fate.run_s)


def schedule(controllers: Controllers, manifest: Manifest) -> None:
    """A CronJob, with the Jobs of its last minutes and the life that starts the next ones."""
    cron = controllers.world.put(manifest.obj)
    controllers.world.begin(_every_minute(controllers, cron, manifest), controllers.now)


def _every_minute(controllers: Controllers, cron: Obj, manifest: Manifest) -> Life:
    """Starts a Job, sees it through and forgets the oldest, once a minute."""
    world, run_s = controllers.world, manifest.demo.fate.run_s
    now = yield 0.0
    this_minute = now - now % _PERIOD_S
    kept: list[tuple[Obj, Obj]] = []
    for back in range(_KEPT, 0, -1):
        at = this_minute - back * _PERIOD_S
        run = _run(_scheduled(cron, at))
        pod = _pod(controllers, run, manifest, at=at)
        kept.append(_finish(world, run, pod, started=at, ended=at + run_s))
    last = this_minute - _PERIOD_S
    world.put({**cron, "status": {"lastScheduleTime": stamp(last), "lastSuccessfulTime": stamp(last + run_s)}})
    while True:
        now = yield _PERIOD_S - now % _PERIOD_S
        started = now
        run = world.put(_run(_scheduled(cron, started)))
        name = name_of(run)
        active = {
            "active": [reference(run)],
            "lastScheduleTime": stamp(started),
            "lastSuccessfulTime": stamp(last + run_s),
        }
        world.put({**cron, "status": active})
        world.event(cron, "SuccessfulCreate", message=f"Created job {name}", now=now, source="cronjob-controller")
        pod = world.put(_pod(controllers, run, manifest, at=now))
        message = f"Created pod: {name_of(pod)}"
        world.event(run, "SuccessfulCreate", message=message, now=now, source="job-controller")
        now = yield _CREATING_S

        tell_birth(world, pod, at=started, now=now)
        world.put(with_states(pod, {"": running(now)}, at=now, phase="Running"))
        now = yield run_s

        kept.append(_finish(world, run, pod, started=started, ended=now))
        last = started
        world.event(run, "Completed", message="Job completed", now=now, source="job-controller")
        saw = f"Saw completed job: {name}, condition: Complete"
        world.event(cron, "SawCompletedJob", message=saw, now=now, source="cronjob-controller")
        world.put({**cron, "status": {"lastScheduleTime": stamp(started), "lastSuccessfulTime": stamp(now)}})
        old_run, old_pod = kept.pop(0)
        world.remove(old_pod)
        world.remove(old_run)
        deleted = f"Deleted job {name_of(old_run)}"
        world.event(cron, "SuccessfulDelete", message=deleted, now=now, source="cronjob-controller")


def _scheduled(cron: Obj, at: float) -> Obj:
    """The Job that a CronJob makes for this minute; named after it, as the controller does."""
    namespace, name = namespace_of(cron), f"{name_of(cron)}-{int(at // 60)}"
    template = dig(cron, "spec.jobTemplate.spec.template")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid("Job", namespace, name),
            "creationTimestamp": stamp(at),
            "labels": labels_of(cron),
            "annotations": {"batch.kubernetes.io/cronjob-scheduled-timestamp": stamp(at)},
            "ownerReferences": [owner(cron)],
        },
        "spec": {"template": {**template, "metadata": {"labels": labels_of(cron)}}},
    }


def _run(obj: Obj) -> Obj:
    """The Job with what its controller adds, just started."""
    own = {
        "batch.kubernetes.io/controller-uid": obj["metadata"]["uid"],
        "batch.kubernetes.io/job-name": name_of(obj),
    }
    template = obj["spec"]["template"]
    labels = {**dig(template, "metadata.labels", {}), **own}
    spec = {
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "completions": 1,
        "parallelism": 1,
        "suspend": False,
        **obj["spec"],
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": obj["metadata"]["uid"]}},
        "template": {
            **template,
            "metadata": {"labels": labels},
            "spec": {"restartPolicy": "Never", **template["spec"]},
        },
    }
    status = {"active": 1, "ready": 0, "terminating": 0, "startTime": obj["metadata"]["creationTimestamp"]}
    return {**obj, "spec": spec, "status": status}


def _pod(controllers: Controllers, run: Obj, manifest: Manifest, *, at: float) -> Obj:
    """The pod of a Job, on its node."""
    namespace, name = namespace_of(run), name_of(run)
    pod_name = f"{name}-{suffix(f'{namespace}/{name}', 5)}"
    pod = make_pod(pod_name, namespace=namespace, template=run["spec"]["template"], created=at, made_by=run)
    controllers.world.scripts[pod["metadata"]["uid"]] = manifest.demo.logs
    return controllers.scheduler.schedule(pod, at=at)


def _finish(world: World, run: Obj, pod: Obj, *, started: float, ended: float) -> tuple[Obj, Obj]:
    """Puts the Job and its pod as they are when all went well."""
    done = with_states(pod, {"": terminated(started + _CREATING_S, ended)}, at=ended, phase="Succeeded")
    times = {"lastProbeTime": stamp(ended), "lastTransitionTime": stamp(ended)}
    complete = {
        "reason": "CompletionsReached",
        "message": "Reached expected number of succeeded pods",
        "status": "True",
        **times,
    }
    status = {
        "startTime": stamp(started),
        "completionTime": stamp(ended),
        "succeeded": 1,
        "ready": 0,
        "terminating": 0,
        "conditions": [{"type": kind, **complete} for kind in ("SuccessCriteriaMet", "Complete")],
    }
    return world.put({**run, "status": status}), world.put(done)
