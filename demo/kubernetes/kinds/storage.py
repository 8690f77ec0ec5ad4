"""What pods are given: configuration, secrets and volumes."""

from demo.kubernetes.kinds.kind import AGE, NAME, Column, Kind, Subresource, count
from demo.kubernetes.objects import Obj, dig

_SHORT_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def _modes(obj: Obj, _: float) -> str:
    return ",".join(_SHORT_MODES[mode] for mode in dig(obj, "spec.accessModes", []))


def _bound_modes(claim: Obj, now: float) -> str:
    return _modes(claim, now) if dig(claim, "spec.volumeName") else ""


def _claim(volume: Obj, _: float) -> str:
    claim = dig(volume, "spec.claimRef")
    return f"{claim['namespace']}/{claim['name']}" if claim else ""


def _class_name(storage_class: Obj, _: float) -> str:
    annotations = storage_class["metadata"].get("annotations", {})
    default = annotations.get("storageclass.kubernetes.io/is-default-class") == "true"
    return f"{storage_class['metadata']['name']}{' (default)' if default else ''}"


_DATA = Column("Data", count("data"), "integer")

_CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps", (NAME, _DATA, AGE), short=("cm",))

_SECRET = Kind("", "v1", "Secret", "secrets", (NAME, Column("Type", "type"), _DATA, AGE), fields=("type",))

_PERSISTENT_VOLUME = Kind(
    "",
    "v1",
    "PersistentVolume",
    "persistentvolumes",
    (
        NAME,
        Column("Capacity", "spec.capacity.storage"),
        Column("Access Modes", _modes),
        Column("Reclaim Policy", "spec.persistentVolumeReclaimPolicy"),
        Column("Status", "status.phase"),
        Column("Claim", _claim),
        Column("StorageClass", "spec.storageClassName"),
        Column("VolumeAttributesClass", lambda _, __: "<unset>"),
        Column("Reason", lambda volume, _: dig(volume, "status.reason", "")),
        AGE,
        Column("VolumeMode", "spec.volumeMode", priority=1),
    ),
    namespaced=False,
    short=("pv",),
)

_PERSISTENT_VOLUME_CLAIM = Kind(
    "",
    "v1",
    "PersistentVolumeClaim",
    "persistentvolumeclaims",
    (
        NAME,
        Column("Status", "status.phase"),
        Column("Volume", lambda claim, _: dig(claim, "spec.volumeName", "")),
        Column("Capacity", lambda claim, _: dig(claim, "status.capacity.storage", "")),
        Column("Access Modes", _bound_modes),
        Column("StorageClass", "spec.storageClassName"),
        Column("VolumeAttributesClass", lambda _, __: "<unset>"),
        AGE,
        Column("VolumeMode", "spec.volumeMode", priority=1),
    ),
    short=("pvc",),
    subresources=(Subresource("status", "PersistentVolumeClaim"),),
)

_STORAGE_CLASS = Kind(
    "storage.k8s.io",
    "v1",
    "StorageClass",
    "storageclasses",
    (
        Column("Name", _class_name),
        Column("Provisioner", "provisioner"),
        Column("ReclaimPolicy", "reclaimPolicy"),
        Column("VolumeBindingMode", "volumeBindingMode"),
        Column("AllowVolumeExpansion", lambda cls, _: bool(cls.get("allowVolumeExpansion")), "boolean"),
        AGE,
    ),
    namespaced=False,
    short=("sc",),
)

KINDS: tuple[Kind, ...] = (_CONFIG_MAP, _SECRET, _PERSISTENT_VOLUME, _PERSISTENT_VOLUME_CLAIM, _STORAGE_CLASS)
