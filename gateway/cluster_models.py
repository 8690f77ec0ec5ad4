"""The shapes of /v1's clusters and sessions."""

from datetime import datetime

from pydantic import BaseModel, Field

from gateway.models import SessionAnswer
from gateway.policies import PolicyAnswer


class VersionsAnswer(BaseModel):
    executor: str
    kubectl: str
    kubernetes: str
    protocol: int = Field(description="What is spoken on its stream; 0 from a broker that does not say.")


class ExecutorAnswer(BaseModel):
    """One that is connected now."""

    executor_id: str
    replica_id: str = Field(description="The broker replica that holds its connection.")
    connected_at: datetime | None
    is_moving: bool = Field(description="It was told to move to another replica, and has not arrived yet.")
    running: int
    max_concurrency: int
    verbs: list[str] = Field(description="What it would run.")
    policy: PolicyAnswer | None = Field(description="Null for an executor that does not say.")
    streaming: bool
    labels: dict[str, str]
    versions: VersionsAnswer


class ClusterShown(BaseModel):
    """A cluster, and who can be reached in it now."""

    cluster_id: str
    is_connected: bool
    is_active: bool = Field(description="A command was asked of it within the last minute.")
    active_for_seconds: int
    has_active_session: bool
    last_seen: datetime | None = Field(description="When an executor was last known to be connected.")
    labels: dict[str, str] = Field(
        description="Of its executors, for `selector`; nobody knows those of a cluster that is not connected."
    )
    replicas: list[str] = Field(description="Broker replicas that have a connection to it, sorted.")
    executors: list[ExecutorAnswer]
    more_executors: int = Field(description="How many there are that are not shown.")


class ClusterPage(BaseModel):
    """Clusters that the key may see, sorted."""

    clusters: list[ClusterShown]
    count: int = Field(description="On this page.")
    next_page_token: str | None = Field(description="For the next page; null on the last one.")


class CapabilitiesAnswer(BaseModel):
    """The drop-in surface's."""

    clusterId: str  # noqa: N815  (the old API's name)
    capabilities: dict[str, object] | None
    available: bool


class SessionShown(SessionAnswer):
    """A session, with what only /v1 tells."""

    user_id: str | None
    last_used_at: datetime | None
    command_count: int


class SessionPage(BaseModel):
    """Sessions of the key's owner, newest first."""

    sessions: list[SessionShown]
    count: int = Field(description="On this page.")
    next_cursor: str | None = Field(
        description="For the next page; null on the last one. A page may be short and not be the last."
    )
