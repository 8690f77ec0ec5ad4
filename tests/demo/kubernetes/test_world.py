"""The cluster as a pure function of time: what it holds, and how it goes on."""

import pytest

from demo.kubernetes import cluster
from demo.kubernetes.errors import Expired, Timeout
from demo.kubernetes.kinds import BY_KIND, BY_PLURAL, KINDS
from demo.kubernetes.objects import Obj, dig, labels_of, name_of
from demo.kubernetes.store import Store
from demo.kubernetes.times import stamp
from demo.kubernetes.world import EVENT_TTL_S, World

NOW = 1_800_000_000.0


def everything(local: World) -> list[Obj]:
    return [obj for kind in KINDS if not kind.stored_as for obj in local.store.list(kind.key)]


def crashing(local: World) -> Obj:
    return next(pod for pod in local.store.list("pods", "payments") if labels_of(pod)["app"] == "payments-api")


def restarts(pod: Obj) -> int:
    return int(pod["status"]["containerStatuses"][0]["restartCount"])


def test_it_is_the_same_on_every_start() -> None:
    """Names and uids do not depend on when the cluster was started, so documents can quote them."""
    first, second = (cluster.local(now) for now in (NOW, NOW + 86_400))
    stable = [
        {obj["metadata"]["uid"]: name_of(obj) for obj in everything(local) if "heartbeat" not in name_of(obj)}
        for local in (first, second)
    ]
    assert stable[0] == stable[1]


def test_uids_are_unique() -> None:
    """No two objects share a uid."""
    uids = [obj["metadata"]["uid"] for obj in everything(cluster.local(NOW))]
    assert len(uids) == len(set(uids))


def test_every_owner_exists() -> None:
    """Each ownerReference names an object that is there, by kind, name and uid."""
    local = cluster.local(NOW)
    owned = 0
    for obj in everything(local):
        for owner in obj["metadata"].get("ownerReferences", []):
            kind = BY_KIND[owner["apiVersion"], owner["kind"]]
            found = local.store.get(kind.key, obj["metadata"]["namespace"], name=owner["name"])
            assert found is not None
            assert found["metadata"]["uid"] == owner["uid"]
            owned += 1
    assert owned > 40


def test_every_selector_finds_its_pods() -> None:
    """A workload's replicas are the pods that its selector finds."""
    local = cluster.local(NOW)
    for deployment in local.store.list("deployments.apps"):
        wanted = dig(deployment, "spec.selector.matchLabels").items()
        pods = local.store.list("pods", deployment["metadata"]["namespace"])
        assert sum(wanted <= labels_of(pod).items() for pod in pods) == deployment["spec"]["replicas"]


def test_every_object_can_be_shown() -> None:
    """Each column of each kind has a value for each object, in a cluster that has lived for a while."""
    local = cluster.local(NOW)
    for later in range(0, 300, 10):
        local.advance(NOW + later)
    for kind in KINDS:
        for obj in local.objects(kind, NOW + 300):
            for column in kind.columns:
                assert isinstance(column.cell(obj, NOW + 300), str | int | bool)


def test_restarts_grow() -> None:
    """The pod that crash-loops is started again and again, and says so in its events."""
    local = cluster.local(NOW)
    before = restarts(crashing(local))
    for later in range(0, 120, 1):
        local.advance(NOW + later)
    assert restarts(crashing(local)) >= before + 5
    (back_off,) = (
        event
        for event in local.store.list("events", "payments")
        if event["reason"] == "BackOff" and event["involvedObject"]["name"] == name_of(crashing(local))
    )
    assert back_off["count"] > 150


def test_a_day_leaves_no_more_than_an_hour() -> None:
    """Jobs, events and pods are as many after a day as after an hour, and no event is older than it may be."""
    local = cluster.local(NOW)
    sizes = []
    for hours in (2, 24):
        for later in range(0, hours * 3600, 20):
            local.advance(NOW + later)
        sizes.append({key: len(local.store.list(key)) for key in ("pods", "jobs.batch", "events")})
        oldest = min(str(event["lastTimestamp"]) for event in local.store.list("events"))
        assert oldest >= stamp(NOW + hours * 3600 - EVENT_TTL_S - 120)
    assert sizes[0] == sizes[1]
    assert len(local.scripts) == sizes[1]["pods"]


def test_events_are_counted_not_repeated() -> None:
    """The same event about the same object is one object with a count."""
    local = World()
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "u"}}
    for second in range(3):
        local.event(pod, "BackOff", message="again", now=NOW + second, source="kubelet", warning=True)
    (event,) = local.store.list("events")
    assert (event["count"], event["type"]) == (3, "Warning")
    assert event["firstTimestamp"] < event["lastTimestamp"]


def test_both_kinds_of_event_are_the_same_events() -> None:
    """events.k8s.io shows the events of the core group in its own words."""
    local = cluster.local(NOW)
    core, new = (BY_PLURAL[group, "v1", "events"] for group in ("", "events.k8s.io"))
    told = [(event["reason"], event["message"]) for event in local.objects(core, NOW)]
    assert told == [(event["reason"], event["note"]) for event in local.objects(new, NOW)]


def test_a_store_forgets_what_is_long_ago() -> None:
    """The backlog is bounded, and whoever comes from before it is told so."""
    store = Store(backlog=3)
    begin = store.revision
    for number in range(5):
        store.put("pods", {"metadata": {"name": f"p{number}", "namespace": "n"}})
    assert [change.revision for change in store.changes_after(begin + 2, key="pods")] == [
        begin + 3,
        begin + 4,
        begin + 5,
    ]
    with pytest.raises(Expired):
        store.changes_after(begin + 1, key="pods")
    with pytest.raises(Timeout):
        store.changes_after(begin + 6, key="pods")
