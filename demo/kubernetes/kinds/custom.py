"""One kind that the cluster was taught later, and the definition that taught it."""

from demo.kubernetes.kinds.kind import AGE, CREATED_AT, NAME, Column, Kind
from demo.kubernetes.objects import Obj, dig


def _ready(certificate: Obj, _: float) -> str:
    conditions = dig(certificate, "status.conditions", [])
    return next((c["status"] for c in conditions if c["type"] == "Ready"), "Unknown")


KINDS: tuple[Kind, ...] = (
    Kind(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        (NAME, CREATED_AT),
        namespaced=False,
        short=("crd", "crds"),
        categories=("api-extensions",),
    ),
    Kind(
        "cert-manager.io",
        "v1",
        "Certificate",
        "certificates",
        (
            NAME,
            Column("Ready", _ready),
            Column("Secret", "spec.secretName"),
            Column("Issuer", "spec.issuerRef.name", priority=1),
            AGE,
        ),
        short=("cert", "certs"),
        categories=("cert-manager",),
    ),
)
