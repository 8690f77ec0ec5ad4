"""The answers that take their time, as chunks of bytes: watches, and logs that are long or followed."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from demo.kubernetes import tables
from demo.kubernetes.clock import Clock
from demo.kubernetes.errors import ApiError, BadRequest
from demo.kubernetes.listing import View
from demo.kubernetes.logs import Run
from demo.kubernetes.objects import Obj, dig, name_of, namespace_of
from demo.kubernetes.requests import Request, Target
from demo.kubernetes.store import Change
from demo.kubernetes.times import instant
from demo.kubernetes.world import World

# A watch that does not say how long it wants to last ends after this.
_WATCH_S = 1800

# How often a followed log looks for new lines.
_FOLLOW_S = 0.2

_INITIAL_END = {"k8s.io/initial-events-end": "true"}


def _line(kind: str, obj: Obj) -> bytes:
    return json.dumps({"type": kind, "object": obj}, separators=(",", ":")).encode() + b"\n"


def watch(world: World, clock: Clock, request: Request, target: Target) -> AsyncIterator[bytes]:
    """The changes of a kind as they happen, one JSON object a line.

    Without a resourceVersion, or with 0, it begins with what is there. It ends after `timeoutSeconds`, or with an ERROR
    when the client lags further behind than changes are kept. Raises BadRequest, before anything is sent.
    """
    ends = clock.now() + (request.integer("timeoutSeconds") or _WATCH_S)
    revision = request.integer("resourceVersion") or 0
    return _changes(world, clock, request, View.of(request, target), revision=revision, ends=ends)


async def _changes(
    world: World, clock: Clock, request: Request, view: View, *, revision: int, ends: float
) -> AsyncIterator[bytes]:
    columns = True
    if not revision or request.flag("sendInitialEvents"):
        revision = world.store.revision
        for obj in world.objects(view.kind, clock.now(), namespace=view.namespace):
            if view.selects(obj):
                yield _line("ADDED", view.one(obj, now=clock.now(), columns=columns))
                columns = False
        if request.flag("sendInitialEvents"):
            yield _line("BOOKMARK", _initial_end(view, revision))
    while (now := clock.now()) < ends:
        try:
            changes = world.store.changes_after(revision, key=view.kind.key)
        except ApiError as error:
            yield _line("ERROR", error.as_object())
            return
        revision = world.store.revision
        for change in changes:
            if event := _seen(view, change):
                kind, obj = event
                yield _line(kind, view.one(obj, now=now, columns=columns))
                columns = False
        if revision == world.store.revision:
            await clock.change(timeout_s=ends - clock.now())


def _seen(view: View, change: Change) -> tuple[str, Obj] | None:
    """What a change is to one view: an object that no longer fits its selector is gone, as far as it can tell."""
    convert = view.kind.convert or (lambda obj: obj)
    if view.namespace and namespace_of(change.last) != view.namespace:
        return None
    last = convert(change.last)
    before = change.before is not None and view.selects(convert(change.before))
    after = change.after is not None and view.selects(last)
    match before, after:
        case False, True:
            return "ADDED", last
        case True, True:
            return "MODIFIED", last
        case True, False:
            return "DELETED", last
    return None


def _initial_end(view: View, revision: int) -> Obj:
    """What tells a client that asked for `sendInitialEvents` that it has now seen all there is."""
    metadata: Obj = {"resourceVersion": str(revision), "creationTimestamp": None, "annotations": _INITIAL_END}
    if not view.table:
        return {"kind": view.kind.kind, "apiVersion": view.kind.api_version, "metadata": metadata}
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
    return {**tables.table(view.kind, [], now=0, metadata=metadata), "rows": [{"cells": [], "object": partial}]}


def log(world: World, clock: Clock, request: Request, pod: Obj) -> AsyncIterator[bytes]:
    """The log of one container. Raises BadRequest, before anything is sent, when there is no such log."""
    container = _container(request, pod)
    previous = request.flag("previous")
    run = world.run(pod, container, previous=previous)
    if run is None:
        where = f'container "{container}" in pod "{name_of(pod)}"'
        raise BadRequest(
            f"previous terminated {where} not found" if previous else f"{where} {_why_not(pod, container)}"
        )
    if request.query.get("sinceSeconds") and request.query.get("sinceTime"):
        raise BadRequest("at most one of sinceTime or sinceSeconds may be specified")
    window = run.window(clock.now(), tail=request.integer("tailLines"), since=_since(request, clock.now()))
    limit, timestamps = request.integer("limitBytes"), request.flag("timestamps")
    following = _Following(world, clock, pod, container) if request.flag("follow") else None
    return _lines(run, window, following, limit=limit, timestamps=timestamps)


def _container(request: Request, pod: Obj) -> str:
    """The container that is meant. Raises BadRequest unless it exists and has had a chance to start."""
    names = [container["name"] for container in pod["spec"]["containers"]]
    name = request.query.get("container") or (names[0] if len(names) == 1 else "")
    if not name:
        message = f"a container name must be specified for pod {name_of(pod)}, choose one of: [{' '.join(names)}]"
        raise BadRequest(message)
    if name not in names:
        raise BadRequest(f"container {name} is not valid for pod {name_of(pod)}")
    if not dig(pod, "spec.nodeName"):
        raise BadRequest(f"pod {name_of(pod)} does not have a host assigned")
    return name


def _why_not(pod: Obj, container: str) -> str:
    status = next(s for s in dig(pod, "status.containerStatuses") if s["name"] == container)
    reason = dig(status, "state.waiting.reason", "")
    trouble = "trying and failing to pull image" if "Image" in reason else reason
    return f"is waiting to start: {trouble}"


def _since(request: Request, now: float) -> float | None:
    seconds = request.integer("sinceSeconds")
    if seconds is not None:
        return now - seconds
    try:
        return instant(request.query["sinceTime"]) if request.query.get("sinceTime") else None
    except ValueError as error:
        raise BadRequest(f"invalid sinceTime: {error}") from error


@dataclass(frozen=True, slots=True)
class _Following:
    """What it takes to see how a run goes on."""

    world: World
    clock: Clock
    pod: Obj
    container: str

    async def next(self, run: Run) -> tuple[Run, int]:
        """The same run a little later, and how many lines it has by then."""
        await asyncio.sleep(_FOLLOW_S)
        now = self.clock.now()
        pod = self.world.store.get("pods", namespace_of(self.pod), name=name_of(self.pod))
        for previous in (False, True):
            found = self.world.run(pod, self.container, previous=previous) if pod else None
            if found and found.started == run.started:
                return found, found.count(now)
        return replace(run, ended=now), run.count(now)


async def _lines(
    run: Run, window: range, following: _Following | None, *, limit: int | None, timestamps: bool
) -> AsyncIterator[bytes]:
    start, end = window.start, window.stop
    while True:
        for chunk in run.chunks(range(start, end), timestamps=timestamps):
            if limit is not None:
                chunk, limit = chunk[:limit], max(0, limit - len(chunk))
            yield chunk
            if limit == 0:
                return
            # A long log is computed, not read: others get their turn between two chunks.
            await asyncio.sleep(0)
        if following is None or run.ended is not None:
            return
        start = max(start, end)
        run, end = await following.next(run)
