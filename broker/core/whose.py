"""Whose commands an operator means: all of a session, an owner or a cluster."""

from dataclasses import dataclass

from broker.core.command import Ask
from broker.core.patterns import EVERY, Patterns


@dataclass(frozen=True, slots=True)
class Whose:
    """One of the three is there, and the others are empty."""

    session_id: str = ""
    owner: str = ""
    cluster_id: str = ""
    # Only in clusters that these see.
    within: Patterns = EVERY

    def __str__(self) -> str:
        kinds = {"session": self.session_id, "owner": self.owner, "cluster": self.cluster_id}
        return " ".join(f"{kind} {name}" for kind, name in kinds.items() if name)

    def has(self, ask: Ask) -> bool:
        if self.session_id:
            is_meant = ask.session_id == self.session_id
        elif self.owner:
            is_meant = ask.owner == self.owner
        else:
            # Nobody's at all is not everybody's.
            is_meant = bool(self.cluster_id) and ask.cluster_id == self.cluster_id
        return is_meant and self.within.sees(ask.cluster_id)
