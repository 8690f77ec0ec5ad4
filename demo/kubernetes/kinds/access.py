"""Who may do what, and the reviews with which a client asks."""

from demo.kubernetes.kinds.kind import AGE, CREATED_AT, NAME, Column, Kind, joined
from demo.kubernetes.objects import Obj, dig

_ASK = ("create",)


def _role(binding: Obj, _: float) -> str:
    return f"{dig(binding, 'roleRef.kind')}/{dig(binding, 'roleRef.name')}"


def _subjects(name: str, kind: str) -> Column:
    def show(binding: Obj, _: float) -> str:
        return joined(
            [
                f"{subject['namespace']}/{subject['name']}" if "namespace" in subject else subject["name"]
                for subject in binding.get("subjects", [])
                if subject["kind"] == kind
            ]
        )

    return Column(name, show, priority=1)


_BINDING_COLUMNS = (
    NAME,
    Column("Role", _role),
    AGE,
    _subjects("Users", "User"),
    _subjects("Groups", "Group"),
    _subjects("ServiceAccounts", "ServiceAccount"),
)

_RBAC = "rbac.authorization.k8s.io"
_AUTHORIZATION = "authorization.k8s.io"

KINDS: tuple[Kind, ...] = (
    Kind("", "v1", "ServiceAccount", "serviceaccounts", (NAME, AGE), short=("sa",)),
    Kind(_RBAC, "v1", "Role", "roles", (NAME, CREATED_AT)),
    Kind(_RBAC, "v1", "RoleBinding", "rolebindings", _BINDING_COLUMNS),
    Kind(_RBAC, "v1", "ClusterRole", "clusterroles", (NAME, CREATED_AT), namespaced=False),
    Kind(_RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", _BINDING_COLUMNS, namespaced=False),
    Kind("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", namespaced=False, verbs=_ASK),
    Kind(
        _AUTHORIZATION,
        "v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        namespaced=False,
        verbs=_ASK,
    ),
    Kind(
        _AUTHORIZATION,
        "v1",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        namespaced=False,
        verbs=_ASK,
    ),
)
