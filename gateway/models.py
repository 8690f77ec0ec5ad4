"""The shapes of the drop-in surface, as today's AI agents know them: names, bounds, and what is always present."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.argv import DEFAULT_NAMESPACE, Verb
from openline.ids import is_name
from openline.limits import MAX_ARGUMENT_BYTES, MAX_WAIT_FOR_CLUSTER_S

# NUL, and half of a surrogate pair, which JSON can say and UTF-8 cannot.
_UNFIT = re.compile("[\0\ud800-\udfff]")


def _text(text: str) -> str:
    if _UNFIT.search(text):
        raise ValueError("must not contain NUL, nor half of a surrogate pair")
    return text


def _argument(text: str) -> str:
    _text(text)
    if len(text.encode()) > MAX_ARGUMENT_BYTES:
        raise ValueError(f"must have at most {MAX_ARGUMENT_BYTES} bytes")
    return text


def _name(text: str) -> str:
    if text and not is_name(text):
        raise ValueError("must be 1..200 characters without control characters")
    return text


Text = Annotated[str, AfterValidator(_text)]
Argument = Annotated[str, AfterValidator(_argument)]
# Empty counts as absent, as it always did.
Name = Annotated[str, AfterValidator(_name)]
CorrelationId = Annotated[
    Text,
    Field(
        description="Any text. It is told back, and found in logs, with what is not visible ASCII percent-encoded, and "
        "no longer than 200 characters."
    ),
]

# Beyond the old API.
WaitForCluster = Annotated[
    float,
    Field(
        ge=0,
        le=MAX_WAIT_FOR_CLUSTER_S,
        allow_inf_nan=False,
        description="How long to wait for a cluster that is not connected; apart from `timeout_seconds`.",
    ),
]
CancelOnDisconnect = Annotated[
    bool,
    Field(description="Cancel the command when this request's connection closes before its answer; else it runs on."),
]


class ExecuteBody(BaseModel):
    """A kubectl command for one cluster."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"cluster_id": "local", "command_type": "get", "args": ["pods"], "namespace": "default"},
                {"cluster_id": "local", "args": ["describe", "pod", "web-0", "-n", "shop"], "timeout_seconds": 30},
            ]
        }
    )

    cluster_id: Annotated[Text, Field(min_length=1, max_length=253)]
    command_type: Verb = Field(
        Verb.GET, description="The verb. Where it is left out and `args` begins with a verb, that is the verb."
    )
    args: list[Argument] = Field(default_factory=list, max_length=20)
    namespace: Annotated[Argument, Field(max_length=253)] | None = Field(
        DEFAULT_NAMESPACE,
        description="`-n` or `-A` in the arguments wins over the default; two different namespaces are refused.",
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=300)] | None = 10
    session_id: Annotated[Text, Field(max_length=200)] | None = None
    correlation_id: CorrelationId | None = None
    extra_args: Annotated[list[Argument], Field(max_length=40)] | None = None
    wait_for_cluster_s: WaitForCluster = 0.0
    cancel_on_disconnect: CancelOnDisconnect = False


class TimingsAnswer(BaseModel):
    """Where the time went, in milliseconds, each part by the clock of whoever alone can measure it."""

    queue_ms: float = Field(description="Waiting for a cluster to connect, or for a free place.")
    route_ms: float = Field(description="Deciding where, and the hop to another replica.")
    deliver_ms: float = Field(description="On the way to the executor and back.")
    run_ms: float = Field(description="From the start of the process to its end.")
    return_ms: float = Field(description="From its end until its output was handed to the stream.")
    total_ms: float = Field(description="From the request's arrival at a broker to its answer.")


ServedFrom = Literal["run", "shared", "cache"]
SERVED_FROM = (
    "Whose run this is: the command's own; that of an identical one, which it joined; or that of one that had ended a "
    "moment before. Then `timings` but for `total_ms` are that run's."
)
AGE = "That run was sent to the executor so long before this was asked for: what it saw is older by as much at most."
BOUNDED = "The flags by which the executor made the command smaller than it was asked for, as they ran: `--tail=20000`."
TRUNCATED = "Some of the output was not kept, or a log is as long as one of `bounded` lets it be."


HINT = "What to do otherwise, where the same was asked for again and again and came out the same"


class ExecuteAnswer(BaseModel):
    """How a command ended. All keys are always present."""

    command_id: str
    session_id: str | None
    cluster_id: str
    status: Literal["success", "failure", "timeout", "cancelled"]
    success: bool
    correlation_id: str | None = Field(description="As the caller gave it.")
    output: str = Field(description="stdout, then a newline and stderr where there is any.")
    error: str | None = Field(description="The first line of stderr of a command that failed, or why it was stopped.")
    stdout: str
    stderr: str
    exit_code: int | None = Field(description="None for a command that was stopped before it ended.")
    truncated: bool = Field(description=TRUNCATED)
    total_bytes: int = Field(description="What the command wrote, kept or not.")
    encoding_replaced: bool = Field(description="Some bytes were not UTF-8 and stand as U+FFFD in the text.")
    masked_values: int = Field(description="How many values the executor has masked: data of Secrets, credentials.")
    bounded: list[str] = Field(description=BOUNDED)
    execution_time_ms: int
    executed_at: datetime
    timings: TimingsAnswer
    executor_id: str | None = Field(description="Who ran it. None for a command that no executor had.")
    observed_at: datetime | None = Field(description="When the executor saw it end.")
    hint: str | None = Field(description=f"{HINT}, or where it was stopped.")
    served_from: ServedFrom = Field(description=SERVED_FROM)
    age_s: float = Field(description=AGE)


class OperationAnswer(BaseModel):
    """A command that runs on without anybody waiting."""

    operation_id: str = Field(description="Its command id.")
    status: Literal["pending", "completed"]
    poll_url: str


class SessionBody(BaseModel):
    """An AI agent's conversation with one cluster."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"cluster_id": "local", "ttl_seconds": 600}]})

    cluster_id: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    ttl_seconds: Annotated[int, Field(ge=60, le=3600)] = 300
    user_id: Name | None = None
    correlation_id: CorrelationId | None = None
    service_identity: Name | None = None


class SessionAnswer(BaseModel):
    session_id: str
    cluster_id: str
    status: Literal["active", "idle"] = Field(description="Idle when nothing was asked for a minute.")
    created_at: datetime
    expires_at: datetime
    ttl_seconds: int
    correlation_id: str | None
    service_identity: str | None


class ClustersAnswer(BaseModel):
    clusters: list[str] = Field(description="Registered clusters that the key may see, sorted.")
    count: int


class ClusterFlags(BaseModel):
    hasToken: bool  # noqa: N815  (the old API's names)
    hasActiveSession: bool  # noqa: N815
    executorReporting: bool  # noqa: N815


class ClusterAnswer(BaseModel):
    clusterId: str  # noqa: N815
    status: ClusterFlags
    capabilities: dict[str, Any] | None = Field(description="Of its executor, while one is connected.")
    ttlRemaining: int | None = Field(description="Whole seconds for which the cluster stays active.")  # noqa: N815


class ClusterStatusAnswer(BaseModel):
    cluster_id: str
    is_active: bool = Field(description="A command was asked of it within the last minute.")
    active_for_seconds: int
    is_connected: bool
    last_seen: datetime | None
    executors: int = Field(description="How many are connected.")


class BrokerHealth(BaseModel):
    address: str
    connected: bool
    replica_id: str | None = Field(description="Who is connected there, by its own name.")
    degraded: bool = Field(description="It is out of Redis' reach: results are kept in its memory until it is back.")


class HealthAnswer(BaseModel):
    status: Literal["healthy", "degraded", "unhealthy"]
    brokers: list[BrokerHealth]
    version: str


class Problem(BaseModel):
    """Why something could not be done (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str | list[dict[str, Any]] = Field(description="A sentence; for 422 the list of what is wrong.")
    instance: str
    reason: str | None = Field(description="CLUSTER_OFFLINE, POLICY_DENIED, …: the table in the documentation.")
    executed: Literal["no", "yes", "unknown"] = Field(description="Whether the command's process was started.")
    retryable: bool = Field(description="The same request may succeed later, and nothing will have run twice.")
    next_step: str | None = Field(description="What to do about it. Null where it is plain HTTP that went wrong.")
    request_id: str
    correlation_id: str
