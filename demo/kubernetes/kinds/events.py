"""Events, as the core group tells them and as events.k8s.io does: the same objects in other words."""

from demo.kubernetes.kinds.kind import Column, Kind, Value, joined
from demo.kubernetes.objects import Obj, dig
from demo.kubernetes.times import ago, instant, micro_stamp

_INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")


def _since(field: str) -> Value:
    return lambda event, now: ago(event[field], now)


def _about(event: Obj, _: float) -> str:
    involved = event.get("involvedObject") or event["regarding"]
    return f"{involved['kind'].lower()}/{involved['name']}"


def _source(event: Obj, _: float) -> str:
    return joined([part for part in (dig(event, "source.component"), dig(event, "source.host")) if part])


def _in_new_words(event: Obj) -> Obj:
    """A core event as events.k8s.io/v1 shows it."""
    first, last = (micro_stamp(instant(event[field])) for field in ("firstTimestamp", "lastTimestamp"))
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": event["metadata"],
        "eventTime": first,
        "reportingController": event["reportingComponent"],
        "reportingInstance": event["reportingInstance"],
        "action": event["reason"],
        "reason": event["reason"],
        "regarding": event["involvedObject"],
        "note": event["message"],
        "type": event["type"],
        "series": {"count": event["count"], "lastObservedTime": last},
        "deprecatedSource": event["source"],
        "deprecatedFirstTimestamp": event["firstTimestamp"],
        "deprecatedLastTimestamp": event["lastTimestamp"],
        "deprecatedCount": event["count"],
    }


_CORE_EVENT = Kind(
    "",
    "v1",
    "Event",
    "events",
    (
        Column("Last Seen", _since("lastTimestamp")),
        Column("Type", "type"),
        Column("Reason", "reason"),
        Column("Object", _about),
        Column("Subobject", lambda event, _: dig(event, "involvedObject.fieldPath", ""), priority=1),
        Column("Source", _source, priority=1),
        Column("Message", "message"),
        Column("First Seen", _since("firstTimestamp"), priority=1),
        Column("Count", "count", "integer", priority=1),
        Column("Name", "metadata.name", priority=1),
    ),
    short=("ev",),
    fields=("reason", "type", "reportingComponent", *(f"involvedObject.{field}" for field in _INVOLVED)),
)

_NEW_EVENT = Kind(
    "events.k8s.io",
    "v1",
    "Event",
    "events",
    (
        Column("Last Seen", _since("deprecatedLastTimestamp")),
        Column("Type", "type"),
        Column("Reason", "reason"),
        Column("Object", _about),
        Column("Message", "note"),
        Column("First Seen", _since("deprecatedFirstTimestamp"), priority=1),
        Column("Name", "metadata.name", priority=1),
    ),
    fields=("reason", "type", "reportingController", *(f"regarding.{field}" for field in _INVOLVED)),
    stored_as="events",
    convert=_in_new_words,
    schema="EventsEvent",
)

KINDS: tuple[Kind, ...] = (_CORE_EVENT, _NEW_EVENT)
