"""The shapes of a fan-out: one command on many clusters, and what came of it."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.command_models import Words
from gateway.models import ServedFrom, Text, TimingsAnswer
from gateway.selectors import MAX_SELECTOR_CHARS
from gateway.shaping_models import ShapingAnswer, ShapingFields

MAX_CLUSTERS = 200


class FanoutBody(Words, ShapingFields):
    """A kubectl command for many clusters: those that are named, or those whose labels match.

    `timeout_seconds` and `wait_for_cluster_s` are for each cluster by itself.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"clusters": ["prod-east", "prod-west"], "argv": ["get", "nodes"]},
                {
                    "selector": "env=prod,region in (eu, us)",
                    "command": "kubectl get deploy web -n shop -o json",
                    "jsonpath": "$.spec.template.spec.containers[*].image",
                },
            ]
        }
    )

    clusters: Annotated[list[Annotated[Text, Field(max_length=253)]], Field(min_length=1, max_length=MAX_CLUSTERS)] | (
        None
    ) = None
    selector: Annotated[Text, Field(min_length=1, max_length=MAX_SELECTOR_CHARS)] | None = Field(
        None,
        description="On the labels of connected executors, as kubectl's `-l`: `env=prod,region in (eu, us),!spot`.",
    )


class FanoutResult(BaseModel):
    """How the command ended in one cluster. Its output is in its group."""

    cluster_id: str
    command_id: str
    executor_id: str | None
    exit_code: int | None
    success: bool | None
    digest: str | None = Field(description="Of its whole output, however it is shaped.")
    truncated: bool | None
    timings: TimingsAnswer | None
    observed_at: datetime | None
    served_from: ServedFrom | None


class FanoutGroup(BaseModel):
    """Clusters in which the same came out: what is shown of the output, and the exit code."""

    clusters: list[str]
    digest: str = Field(description="Of what is shown, and of the exit code.")
    exit_code: int | None
    output: str | None = Field(description="stdout. Null in a stream, where it was told before.")
    stderr: str | None
    shaping: ShapingAnswer | None = Field(description="Its `next_cursor` is for the command of the first cluster.")


class FanoutAnswer(BaseModel):
    """What came of it in all clusters."""

    summary: str = Field(examples=["38 clusters the same, 2 differ; 1 failed: west (CLUSTER_OFFLINE)"])
    groups: list[FanoutGroup] = Field(description="The largest first.")
    results: list[FanoutResult] = Field(description="In the order in which the clusters were given.")
    problems: list[dict[str, Any]] = Field(
        description="Where it did not run to its end: problem documents (RFC 9457), each with `cluster_id`, "
        "`command_id`, and `executed`, which says whether it is safe to ask again."
    )
    labels_unknown: list[str] = Field(
        description="With a `selector`: clusters that were passed over, since no executor is connected to tell."
    )
