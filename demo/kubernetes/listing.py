"""Answers get and list: which objects, in which form, on which page. A watch shows its objects in the same form."""

import base64
import binascii
import json
from dataclasses import dataclass

from demo.kubernetes import selectors, tables
from demo.kubernetes.errors import BadRequest, NotFound
from demo.kubernetes.kinds import Kind
from demo.kubernetes.objects import Obj, name_of, namespace_of
from demo.kubernetes.requests import Request, Target
from demo.kubernetes.selectors import Predicate
from demo.kubernetes.world import World


@dataclass(frozen=True, slots=True)
class View:
    """How one client wants to see one kind: which of its objects, and as what."""

    kind: Kind
    namespace: str
    selects: Predicate
    table: bool
    include: str

    @classmethod
    def of(cls, request: Request, target: Target) -> "View":
        """Raises BadRequest for selectors that cannot be parsed."""
        by_label = selectors.labels(request.query.get("labelSelector", ""))
        by_field = selectors.fields(request.query.get("fieldSelector", ""), known=target.kind.selectable)
        # A watch may name its object in the path: that is a field selector in other words.
        name = target.name if target.verb == "watch" else ""
        return cls(
            target.kind,
            target.namespace if target.kind.namespaced else "",
            lambda obj: by_label(obj) and by_field(obj) and (not name or name_of(obj) == name),
            request.table(),
            request.query.get("includeObject", ""),
        )

    def one(self, obj: Obj, *, now: float, columns: bool = True) -> Obj:
        """One object as this client sees it; in a watch only the first table names its columns."""
        if not self.table:
            return obj
        metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        shown = tables.table(self.kind, [obj], now=now, metadata=metadata, include=self.include)
        return shown if columns else {**shown, "columnDefinitions": None}

    def many(self, objects: list[Obj], *, now: float, metadata: Obj) -> Obj:
        if self.table:
            return tables.table(self.kind, objects, now=now, metadata=metadata, include=self.include)
        items = [{key: value for key, value in obj.items() if key not in ("kind", "apiVersion")} for obj in objects]
        return {
            "kind": f"{self.kind.kind}List",
            "apiVersion": self.kind.api_version,
            "metadata": metadata,
            "items": items,
        }


def get(world: World, request: Request, target: Target, *, now: float) -> Obj:
    """One object, as the client wants to see it. Raises NotFound."""
    return View.of(request, target).one(find(world, target, now=now), now=now)


def find(world: World, target: Target, *, now: float) -> Obj:
    """The object that a target names, as its kind shows it. Raises NotFound."""
    kind, namespace = target.kind, target.namespace if target.kind.namespaced else ""
    for obj in world.objects(kind, now, namespace=namespace):
        if name_of(obj) == target.name:
            return obj
    raise NotFound.object(kind.plural, kind.group, name=target.name)


def page(world: World, request: Request, target: Target, *, now: float) -> Obj:
    """One page of a list. Raises BadRequest for a query that makes no sense."""
    view = View.of(request, target)
    request.integer("resourceVersion")  # whatever it is, the latest is recent enough
    limit, after = request.integer("limit") or 0, _after(request.query.get("continue", ""))
    objects = world.objects(view.kind, now, namespace=view.namespace)
    found = [obj for obj in objects if view.selects(obj) and _place(obj) > after]
    metadata: Obj = {"resourceVersion": str(world.store.revision)}
    if limit and len(found) > limit:
        metadata |= {"continue": _token(found[limit - 1]), "remainingItemCount": len(found) - limit}
        found = found[:limit]
    return view.many(found, now=now, metadata=metadata)


def _place(obj: Obj) -> tuple[str, str]:
    return namespace_of(obj), name_of(obj)


def _token(obj: Obj) -> str:
    return base64.urlsafe_b64encode(json.dumps(_place(obj)).encode()).decode()


def _after(token: str) -> tuple[str, str]:
    """The place of the last object on the page before. Raises BadRequest for a token that is not ours."""
    if not token:
        return "", ""
    try:
        namespace, name = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
        return str(namespace), str(name)
    except (ValueError, TypeError, binascii.Error) as error:
        raise BadRequest("continue key is not valid") from error
