"""Reads a request: which verb on which kind and object it is, as Kubernetes derives it from method, path and query."""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from demo.kubernetes.errors import BadRequest, MethodNotAllowed, NotAcceptable, NotFound
from demo.kubernetes.kinds import BY_PLURAL, Kind
from demo.kubernetes.objects import Obj

# HTTP method: the verb for one object, and the verb for a collection. GET becomes `watch` if the query says so.
_VERBS: dict[str, tuple[str, str]] = {
    "GET": ("get", "list"),
    "HEAD": ("get", "list"),
    "POST": ("create", "create"),
    "PUT": ("update", "update"),
    "PATCH": ("patch", "patch"),
    "DELETE": ("delete", "deletecollection"),
}

_TRUE = ("1", "true", "t", "T", "TRUE", "True")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, without its connection."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    accept: str = "application/json"
    body: bytes = b""

    @classmethod
    def parse(cls, method: str, path: str, *, query: str, accept: str, body: bytes = b"") -> "Request":
        """Raises BadRequest for a query that is not UTF-8 or has too many fields."""
        try:
            fields = parse_qsl(query, keep_blank_values=True, max_num_fields=50, errors="strict")
        except ValueError as error:
            raise BadRequest(f"malformed query: {error}") from error
        return cls(method, path, dict(fields), accept, body)

    def flag(self, name: str) -> bool:
        return self.query.get(name, "") in _TRUE

    def integer(self, name: str) -> int | None:
        """A number that is not negative, or None if it is not given. Raises BadRequest for anything else."""
        text = self.query.get(name, "")
        if not text:
            return None
        if not re.fullmatch(r"\d{1,18}", text):
            raise BadRequest(f'invalid value for "{name}": strconv.ParseUint: parsing "{text}": invalid syntax')
        return int(text)

    def table(self) -> bool:
        """Whether the client wants a Table. Raises NotAcceptable when it takes no JSON at all."""
        for media in self.accept.split(","):
            kind, *parameters = (part.strip() for part in media.split(";"))
            if kind in ("application/json", "application/*", "*/*", ""):
                if "as=Table" in parameters:
                    return True
                if not any(parameter.startswith("as=") for parameter in parameters):
                    return False
        raise NotAcceptable()


@dataclass(frozen=True, slots=True)
class Target:
    """A verb on a kind: on all its objects, on those of a namespace, or on one, by name."""

    verb: str
    kind: Kind
    namespace: str
    name: str
    subresource: str

    @property
    def attributes(self) -> Obj:
        """In the words of RBAC and of SelfSubjectAccessReview."""
        return {
            "verb": self.verb,
            "group": self.kind.group,
            "resource": self.kind.plural,
            "subresource": self.subresource,
            "namespace": self.namespace,
            "name": self.name,
        }


@dataclass(frozen=True, slots=True)
class Document:
    """A verb on a path that is no resource, such as `/version`."""

    verb: str
    path: str

    @property
    def attributes(self) -> Obj:
        return {"verb": self.verb, "path": self.path}


def target(request: Request) -> Target | Document:
    """Raises NotFound for a kind that does not exist, and MethodNotAllowed for a method that means nothing."""
    if request.method not in _VERBS:
        raise MethodNotAllowed()
    on_object, on_collection = _VERBS[request.method]
    match request.path.strip("/").split("/"):
        case ["api", "v1", *rest] if rest:
            group, version = "", "v1"
        case ["apis", group, version, *rest] if rest:
            pass
        case _:
            return Document(on_object, request.path)
    namespace = ""
    # `namespaces/x` is an object, `namespaces/x/pods` is what is in it.
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 1 and rest[0] == "watch":
        raise NotFound.path()  # the watch prefix of old
    kind = BY_PLURAL.get((group, version, rest[0]))
    if kind is None or (namespace and not kind.namespaced):
        raise NotFound.path()
    name, subresource = (*rest[1:3], "", "")[:2]
    # Without a namespace only collections can be named, and what is created by asking.
    if kind.namespaced and name and not namespace:
        raise NotFound.path()
    # A proxy path goes on with the path at the other end.
    if len(rest) > 3 and subresource != "proxy":
        raise NotFound.path()
    if subresource and all(each.name != subresource for each in kind.subresources):
        raise NotFound.path()
    verb = on_object if name else on_collection
    if verb in ("get", "list") and not subresource and request.flag("watch"):
        verb = "watch"
    # The name of a namespace is also its namespace, so that a Role can grant it.
    if kind.resource == "namespaces":
        namespace = name
    return Target(verb, kind, namespace, name, subresource)
