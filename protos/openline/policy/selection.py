"""Names that are allowed and names that are not: the same for types of objects and for namespaces. A value."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Selection:
    """All names, or those in `allow` if it is given; and none of those in `deny`."""

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()

    @property
    def is_everything(self) -> bool:
        return self.allow is None and not self.deny
