"""Decides who may do what, from the Roles and bindings that the cluster itself serves."""

from collections.abc import Iterator
from dataclasses import dataclass

from demo.kubernetes.errors import Forbidden
from demo.kubernetes.kinds import Kind
from demo.kubernetes.objects import Obj, namespace_of
from demo.kubernetes.requests import Document, Target
from demo.kubernetes.store import Store

_GROUP = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a token stands for."""

    user: str
    groups: tuple[str, ...] = ("system:authenticated",)

    @classmethod
    def service_account(cls, namespace: str, name: str) -> "Identity":
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return cls(f"system:serviceaccount:{namespace}:{name}", groups)

    def is_subject(self, subject: Obj, *, namespace: str) -> bool:
        """Whether a binding's subject means this identity."""
        match subject["kind"]:
            case "User":
                return bool(subject["name"] == self.user)
            case "Group":
                return subject["name"] in self.groups
            case "ServiceAccount":
                home = subject.get("namespace", namespace)
                return self.user == f"system:serviceaccount:{home}:{subject['name']}"
        return False


def rules_for(store: Store, identity: Identity, *, namespace: str) -> Iterator[Obj]:
    """The rules of every role that is bound to the identity, in the whole cluster and then in the namespace."""
    bindings = store.list(f"clusterrolebindings.{_GROUP}")
    if namespace:
        bindings = [*bindings, *store.list(f"rolebindings.{_GROUP}", namespace)]
    for binding in bindings:
        home = namespace_of(binding)
        if any(identity.is_subject(subject, namespace=home) for subject in binding.get("subjects", [])):
            role = binding["roleRef"]
            plural, place = ("clusterroles", "") if role["kind"] == "ClusterRole" else ("roles", home)
            found = store.get(f"{plural}.{_GROUP}", place, name=role["name"])
            yield from (found or {}).get("rules", [])


def allowed(store: Store, identity: Identity, *, attributes: Obj) -> bool:
    """Whether some rule grants what `Target.attributes` describes."""
    rules = rules_for(store, identity, namespace=attributes.get("namespace", ""))
    return any(_grants(rule, attributes) for rule in rules)


def _grants(rule: Obj, wanted: Obj) -> bool:
    if not _covers(rule.get("verbs", []), wanted["verb"]):
        return False
    if "path" in wanted:
        urls = rule.get("nonResourceURLs", [])
        return any(url == wanted["path"] or (url.endswith("*") and wanted["path"].startswith(url[:-1])) for url in urls)
    resource, subresource = wanted["resource"], wanted.get("subresource", "")
    qualified = f"{resource}/{subresource}" if subresource else resource
    resources = rule.get("resources", [])
    return (
        _covers(rule.get("apiGroups", []), wanted.get("group", ""))
        and (_covers(resources, qualified) or (bool(subresource) and f"*/{subresource}" in resources))
        and ("resourceNames" not in rule or wanted.get("name", "") in rule["resourceNames"])
    )


def _covers(granted: list[str], wanted: str) -> bool:
    return "*" in granted or wanted in granted


def authorize(store: Store, identity: Identity, *, target: Target | Document) -> None:
    """Raises Forbidden, in the words of Kubernetes, unless some rule grants it."""
    if allowed(store, identity, attributes=target.attributes):
        return
    if isinstance(target, Document):
        raise Forbidden(f'forbidden: User "{identity.user}" cannot {target.verb} path "{target.path}"')
    kind = target.kind
    subject = f'{kind.resource} "{target.name}"' if target.name else kind.resource
    what = f"{kind.plural}/{target.subresource}" if target.subresource else kind.plural
    where = f'in the namespace "{target.namespace}"' if target.namespace else "at the cluster scope"
    raise Forbidden(
        f'{subject} is forbidden: User "{identity.user}" cannot {target.verb} resource "{what}" '
        f'in API group "{kind.group}" {where}',
        details=_details(kind, target.name),
    )


def _details(kind: Kind, name: str) -> Obj:
    return {
        **({"name": name} if name else {}),
        **({"group": kind.group} if kind.group else {}),
        "kind": kind.plural,
    }
