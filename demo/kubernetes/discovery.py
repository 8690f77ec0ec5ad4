"""The documents by which a client learns what there is; all of them follow from the table of kinds."""

from collections.abc import Callable

from demo.kubernetes.kinds import KINDS, Kind
from demo.kubernetes.objects import Obj

VERSION: Obj = {
    "major": "1",
    "minor": "37",
    "emulationMajor": "1",
    "emulationMinor": "37",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "36",
    "gitVersion": "v1.37.1",
    "gitCommit": "6f70656e6c696e6564656d6f636c757374657230",
    "gitTreeState": "clean",
    "buildDate": "2026-10-13T09:12:41Z",
    "goVersion": "go1.26.2",
    "compiler": "gc",
    "platform": "linux/amd64",
}

# One request for each of /api and /apis tells everything, where a plain client needs one for every group.
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

_BY_GROUP: dict[str, dict[str, list[Kind]]] = {}
for _kind in KINDS:
    _BY_GROUP.setdefault(_kind.group, {}).setdefault(_kind.version, []).append(_kind)


def document(path: str, *, accept: str) -> tuple[Obj, str] | None:
    """The document at a path and its media type, or None where there is none."""
    path = path.rstrip("/")
    if path in ("/api", "/apis") and _wants_aggregated(accept):
        return _aggregated(core=path == "/api"), AGGREGATED
    build = _PLAIN.get(path)
    return (build(), "application/json") if build else None


def _wants_aggregated(accept: str) -> bool:
    wanted = {"application/json", "g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"}
    return any(wanted <= {part.strip() for part in media.split(";")} for media in accept.split(","))


def _aggregated(*, core: bool) -> Obj:
    groups = {group: versions for group, versions in _BY_GROUP.items() if (group == "") is core}
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": group, "creationTimestamp": None} if group else {"creationTimestamp": None},
                "versions": [
                    {
                        "version": version,
                        "freshness": "Current",
                        "resources": [_discovered(kind) for kind in kinds],
                    }
                    for version, kinds in versions.items()
                ],
            }
            for group, versions in groups.items()
        ],
    }


def _discovered(kind: Kind) -> Obj:
    subresources = [
        {
            "subresource": each.name,
            "responseKind": {"group": kind.group, "version": kind.version, "kind": each.kind},
            "verbs": list(each.verbs),
        }
        for each in kind.subresources
    ]
    return {
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
        **({"shortNames": list(kind.short)} if kind.short else {}),
        **({"categories": list(kind.categories)} if kind.categories else {}),
        **({"subresources": subresources} if subresources else {}),
    }


def _resources(group: str, version: str) -> Obj:
    resources = []
    for kind in _BY_GROUP[group][version]:
        resources.append(
            {
                "name": kind.plural,
                "singularName": kind.singular,
                "namespaced": kind.namespaced,
                "kind": kind.kind,
                "verbs": list(kind.verbs),
                **({"shortNames": list(kind.short)} if kind.short else {}),
                **({"categories": list(kind.categories)} if kind.categories else {}),
            }
        )
        resources += [
            {
                "name": f"{kind.plural}/{each.name}",
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": each.kind,
                "verbs": list(each.verbs),
            }
            for each in kind.subresources
        ]
    group_version = f"{group}/{version}" if group else version
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }


def _group(group: str) -> Obj:
    versions = [{"groupVersion": f"{group}/{version}", "version": version} for version in _BY_GROUP[group]]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _api_group(group: str) -> Obj:
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(group)}


def _paths() -> Obj:
    return {"paths": [*sorted(_PLAIN), "/healthz", "/livez", "/openapi/v3", "/readyz"]}


def _legacy() -> Obj:
    everywhere = [{"clientCIDR": "0.0.0.0/0", "serverAddress": "10.0.1.10:6443"}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": everywhere}


def _groups() -> Obj:
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group(group) for group in _BY_GROUP if group],
    }


_PLAIN: dict[str, Callable[[], Obj]] = {
    "": _paths,
    "/version": lambda: VERSION,
    "/api": _legacy,
    "/apis": _groups,
    "/api/v1": lambda: _resources("", "v1"),
}
for _name, _versions in _BY_GROUP.items():
    if _name:
        _PLAIN[f"/apis/{_name}"] = lambda group=_name: _api_group(group)  # type: ignore[misc]
        for _version in _versions:
            _PLAIN[f"/apis/{_name}/{_version}"] = lambda group=_name, version=_version: _resources(group, version)  # type: ignore[misc]
