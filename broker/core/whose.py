"""Whose commands are meant: all of a session, an owner, a cluster or a conversation."""

from dataclasses import dataclass

from broker.core.command import Ask
from broker.core.patterns import EVERY, Patterns


@dataclass(frozen=True, slots=True)
class Whose:
    """All that are given must fit; those that are empty fit anything, but not all of them."""

    session_id: str = ""
    correlation_id: str = ""
    owner: str = ""
    cluster_id: str = ""
    # Only in clusters that these see.
    within: Patterns = EVERY

    def __str__(self) -> str:
        kinds = {
            "session": self.session_id,
            "correlation": self.correlation_id,
            "owner": self.owner,
            "cluster": self.cluster_id,
        }
        return " ".join(f"{kind} {name}" for kind, name in kinds.items() if name)

    @property
    def is_conversation(self) -> bool:
        """Not only of a session, an owner or a cluster: a replica of before cannot be asked for it."""
        return bool(self.correlation_id or (self.session_id and self.owner))

    def more_than(self, ask: Ask) -> str:
        """Of what more the command is one, so that what is asked for with it is meant as well; empty for nothing more.

        Which is so in all clusters that whoever has asked for it sees.
        """
        if self.cluster_id or not self.within.covers(ask.clusters):
            return ""
        return "session" if self.session_id else "conversation" if self.correlation_id else "owner"

    def has(self, ask: Ask) -> bool:
        return (
            # Nobody's at all is not everybody's.
            bool(self.session_id or self.correlation_id or self.owner or self.cluster_id)
            and self.session_id in ("", ask.session_id)
            and self.correlation_id in ("", ask.correlation_id)
            and self.owner in ("", ask.owner)
            and self.cluster_id in ("", ask.cluster_id)
            and self.within.sees(ask.cluster_id)
        )
