"""What all makers of workloads need: the world, the scheduler, and a way to let a pod live."""

from dataclasses import dataclass

from demo.kubernetes.life import FATES
from demo.kubernetes.manifest import Demo, Manifest
from demo.kubernetes.objects import Obj, name_of, namespace_of
from demo.kubernetes.pods import pod as make_pod
from demo.kubernetes.scheduler import Scheduler
from demo.kubernetes.world import World


@dataclass(frozen=True, slots=True)
class Controllers:
    """Makes what belongs to a workload, as of the moment in which the world begins."""

    world: World
    scheduler: Scheduler
    now: float

    def start(self, pod: Obj, demo: Demo, *, at: float) -> None:
        """Lets a pod live as its manifest says."""
        self.world.scripts[pod["metadata"]["uid"]] = demo.logs
        if demo.fate.kind != "no-room":
            pod = self.scheduler.schedule(pod, at=at)
        self.world.begin(FATES[demo.fate.kind](self.world, pod, demo.fate), self.now)

    def pod(self, manifest: Manifest) -> None:
        """A pod that nothing owns; or, with a fixed node, one that the kubelet itself runs."""
        obj = manifest.obj
        at = self.now - manifest.demo.age_s
        bare = make_pod(name_of(obj), namespace=namespace_of(obj), template=obj, created=at)
        self.start(bare, manifest.demo, at=at)


def runs(demo: Demo) -> bool:
    return demo.fate.kind in ("healthy", "out-of-memory")


def replica_counts(replicas: int, ready: int) -> Obj:
    """Zero is left out, as Kubernetes does, but for `replicas` itself."""
    return {"replicas": replicas, **({"readyReplicas": ready, "availableReplicas": ready} if ready else {})}
