"""Every metric that the programs have: names, units, labels and what they mean. docs/operating.md shows this table.

Labels have few values, all of them ours: an enum, a route's template, an address of the settings. What a caller or an
executor may choose is never one.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """The unit is in the name: `_seconds`, `_bytes`; `_total` for what only grows."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


# The broker

COMMANDS = Metric(
    "openline_broker_commands_total",
    "counter",
    "Commands that callers asked this replica for, by how they ended. An outcome of `refused` never became a command: "
    "CLUSTER_OFFLINE, QUOTA_EXCEEDED, UNAUTHENTICATED and so on. What the policy forbids is rejected, POLICY_DENIED.",
    ("outcome", "reason", "agent_call"),
)
COMMAND_DURATION = Metric(
    "openline_broker_command_duration_seconds",
    "histogram",
    "From the request's arrival to the command's end.",
    ("agent_call",),
)
STAGE = Metric(
    "openline_broker_command_stage_seconds",
    "histogram",
    "Where the time of commands that exited went: queue, route, deliver, run, return.",
    ("stage",),
)
IN_FLIGHT = Metric(
    "openline_broker_commands_in_flight",
    "gauge",
    "Commands that have not ended, by state: queued, written, accepted, running, forwarded.",
    ("state",),
)
FORWARDED = Metric("openline_broker_commands_forwarded_total", "counter", "Commands whose end another replica told.")
OUTPUT = Metric("openline_broker_output_bytes_total", "counter", "What commands wrote, kept or not.")
OUTPUT_CUT = Metric("openline_broker_output_cut_bytes_total", "counter", "What of it was not kept.")
TRUNCATED = Metric("openline_broker_commands_truncated_total", "counter", "Commands of whose output some was cut.")
QUOTA_REFUSALS = Metric(
    "openline_broker_quota_refusals_total", "counter", "Commands that a quota refused, by which one.", ("quota",)
)
REFUSED_CREDENTIALS = Metric(
    "openline_broker_refused_credentials_total",
    "counter",
    "Calls and streams that were refused because their API key or executor token is wrong or missing.",
    ("kind",),
)
CONNECTIONS = Metric("openline_broker_executor_connections", "gauge", "Executors that are connected to this replica.")
CONNECTS = Metric(
    "openline_broker_executor_connects_total",
    "counter",
    "Connections of executors that were opened: a process's first, or a reconnect.",
    ("kind",),
)
PIPES = Metric("openline_broker_pipes_open", "gauge", "Pipes of gateways, scripts and other replicas.")
PEERS = Metric("openline_broker_peers_reachable", "gauge", "Other replicas that answer.")
DEGRADED = Metric("openline_broker_redis_degraded", "gauge", "1 while Redis does not take writes, else 0.")
WRITES_WAITING = Metric("openline_broker_redis_writes_waiting", "gauge", "Writes to Redis that wait.")
WRITES_WAITING_BYTES = Metric("openline_broker_redis_writes_waiting_bytes", "gauge", "Their size; at most 64 MiB.")
ROUND_TRIP = Metric(
    "openline_broker_redis_round_trip_seconds", "histogram", "A batch of writes to Redis, until it is answered."
)
LOOP_LAG = Metric(
    "openline_broker_event_loop_lag_seconds", "histogram", "How much too late the event loop wakes, twice a second."
)

BROKER = (
    COMMANDS,
    COMMAND_DURATION,
    STAGE,
    IN_FLIGHT,
    FORWARDED,
    OUTPUT,
    OUTPUT_CUT,
    TRUNCATED,
    QUOTA_REFUSALS,
    REFUSED_CREDENTIALS,
    CONNECTIONS,
    CONNECTS,
    PIPES,
    PEERS,
    DEGRADED,
    WRITES_WAITING,
    WRITES_WAITING_BYTES,
    ROUND_TRIP,
    LOOP_LAG,
)

# The gateway

REQUESTS = Metric(
    "openline_gateway_requests_total",
    "counter",
    "Requests that were answered, by the route's template and the class of the status; an agent call brought a "
    "correlation id.",
    ("route", "method", "status", "agent_call"),
)
REQUEST_DURATION = Metric(
    "openline_gateway_request_duration_seconds",
    "histogram",
    "From the request's head to the head of its answer.",
    ("route", "agent_call"),
)
REQUESTS_IN_FLIGHT = Metric("openline_gateway_requests_in_flight", "gauge", "Requests that have no whole answer yet.")
EVENT_STREAMS = Metric("openline_gateway_event_streams_open", "gauge", "Answers that are server-sent events.")
BROKERS_UP = Metric(
    "openline_gateway_broker_connected", "gauge", "1 while the pipe to this broker is open, else 0.", ("broker",)
)

GATEWAY = (REQUESTS, REQUEST_DURATION, REQUESTS_IN_FLIGHT, EVENT_STREAMS, BROKERS_UP)
