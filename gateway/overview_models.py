"""The shapes of /admin/overview and /admin/drain."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway.cancel_models import MAX_REASON_CHARACTERS
from gateway.cluster_models import VersionsAnswer
from gateway.command_models import End, State
from gateway.models import Name, Text

MAX_SPREAD_S = 3600.0


class DurationsShown(BaseModel):
    """A histogram, counted since the replica's start."""

    bounds_s: list[float]
    counts: list[int] = Field(
        description="How many were at most each bound, and above the one before; the last is of those above all."
    )
    sum_s: float


class EndCount(BaseModel):
    outcome: str = Field(description="exited, timed_out, cancelled, lost, rejected; `refused` never was a command.")
    reason: str | None = Field(description="Why there is no exit code; null for `exited`.")
    is_agent_call: bool = Field(description="The request had a correlation id.")
    count: int


class FiguresShown(BaseModel):
    """What a replica has counted since its start: rates are differences."""

    ends: list[EndCount]
    total: DurationsShown = Field(description="From a request's arrival to its command's end.")
    stages: dict[str, DurationsShown] = Field(description="Where that time went: queue, route, deliver, run, return.")
    loop_lag: DurationsShown = Field(description="How much too late the replica's event loop wakes.")
    forwarded: int
    output_bytes: int
    is_redis_degraded: bool
    redis_writes_waiting: int


class ReplicaShown(BaseModel):
    """A broker replica."""

    replica_id: str = Field(description="Empty for one that Redis has forgotten, and that still listens.")
    address: str
    started_at: datetime | None
    is_reachable: bool = Field(description="It has answered within a moment. Else what follows is not known.")
    is_draining: bool
    executors: int
    version: str
    in_flight: dict[State, int] = Field(
        description="Commands that have not ended; a forwarded one is counted where it runs as well."
    )
    figures: FiguresShown | None = Field(description="Null where `is_whole` is false.")


class ExecutorListed(BaseModel):
    executor_id: str
    replica_id: str
    connected_at: datetime | None
    is_moving: bool
    running: int
    max_concurrency: int
    versions: VersionsAnswer


class ClusterListed(BaseModel):
    cluster_id: str
    is_connected: bool
    is_active: bool
    active_for_seconds: int
    last_seen: datetime | None = Field(description="Of one that is not connected.")
    executors: list[ExecutorListed]
    more_executors: int = Field(description="How many there are that are not shown.")


class CommandOutline(BaseModel):
    command_id: str
    cluster_id: str
    owner: str
    argv: list[str] = Field(description="The first 400 characters of it, and then `…`.")
    session_id: str | None
    correlation_id: str | None
    created_at: datetime | None


class CommandRunning(CommandOutline):
    """A command that has not ended."""

    state: State
    elapsed_s: float
    running_s: float = Field(description="Since it was written to its executor; 0 if it was not.")
    executor_id: str
    replica_id: str
    is_live: bool = Field(description="Its output is told as it comes.")
    is_cancelling: bool


class CommandEnded(CommandOutline):
    """A command that has ended within the last seconds."""

    outcome: End | None
    exit_code: int | None
    reason: str | None
    total_s: float
    ended_s_ago: float
    executor_id: str = Field(description="Empty of one that no executor had.")
    replica_id: str = Field(description="The one that had it at the end.")


class OverviewAnswer(BaseModel):
    """All replicas, and the clusters and commands that the key sees, as they are now."""

    at: datetime | None
    replica_id: str = Field(description="The replica that has asked the others.")
    is_whole: bool = Field(description="The key sees every cluster. If not, all that is counted is of those it sees.")
    replicas: list[ReplicaShown] = Field(description="Sorted by id; also those that do not answer.")
    clusters: list[ClusterListed] = Field(description="Sorted by id, at most 2,000.")
    more_clusters: int
    connected_clusters: int = Field(description="Of all of them.")
    active_clusters: int
    commands: list[CommandRunning] = Field(description="At most 200, those first that have been there the longest.")
    more_commands: int
    ended: list[CommandEnded] = Field(description="Some of those that ended lately, newest first, at most 100.")


class DrainBody(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"replica_id": "broker-2", "spread_seconds": 10, "reason": "an upgrade"}]}
    )

    replica_id: Annotated[Name, Field(min_length=1, max_length=200, description="As the overview has it.")]
    spread_seconds: Annotated[float, Field(ge=0, le=MAX_SPREAD_S, allow_inf_nan=False)] = Field(
        10.0, description="Over how long its executors are told to move."
    )
    reason: Annotated[Text, Field(max_length=MAX_REASON_CHARACTERS)] = Field(
        "", description="For its executors' logs, and the audit trail; all on one line."
    )


class DrainAnswer(BaseModel):
    replica_id: str
    executors: int = Field(description="How many are told to move.")
