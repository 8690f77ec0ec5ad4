"""Every metric that the programs have: names, units, labels and what they mean. docs/operating.md shows this table.

Labels have few values, all of them ours: an enum, a route's template, an address of the settings. What a caller or an
executor may choose is never one; tests/observing holds each label against all that it can be.
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

BROKER_BUILD = Metric(
    "openline_broker_build_info",
    "gauge",
    "1, with the version and the replica's name in its labels.",
    ("version", "replica_id"),
)
DRAINING = Metric("openline_broker_draining", "gauge", "1 from when the replica takes no executors any more, else 0.")
COMMANDS = Metric(
    "openline_broker_commands_total",
    "counter",
    "Commands that callers asked this replica for, by how they ended. An outcome of `refused` never became a command: "
    "CLUSTER_OFFLINE, QUOTA_EXCEEDED, UNAUTHENTICATED and so on. What the policy forbids is rejected, POLICY_DENIED.",
    ("outcome", "reason", "agent_call"),
)
POLICY_DENIALS = Metric(
    "openline_broker_policy_denials_total",
    "counter",
    "Commands that an executor's policy denied, by the kind of rule that they broke (see the page on the policy).",
    ("rule",),
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
WAITING = Metric(
    "openline_broker_commands_waiting",
    "gauge",
    "Commands that wait, by what for: a place on an executor, a cluster that is not connected, or an answer of Redis.",
    ("waits_for",),
)
FORWARDED = Metric("openline_broker_commands_forwarded_total", "counter", "Commands whose end another replica told.")
SHARED = Metric(
    "openline_broker_commands_shared_total",
    "counter",
    "Commands that were answered with the run of an identical one, which they had joined.",
)
CACHED = Metric(
    "openline_broker_commands_cached_total",
    "counter",
    "Commands that were answered with the result of an identical one, which had ended a moment before.",
)
OUTPUT = Metric(
    "openline_broker_output_bytes_total", "counter", "What commands wrote, kept or not; of shared runs once."
)
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
CROWDED_OUT = Metric(
    "openline_broker_calls_crowded_out_total",
    "counter",
    "Calls that were ended unheard, since too many were open that had said nothing yet.",
)
CLUSTERS = Metric(
    "openline_broker_clusters",
    "gauge",
    "Registered clusters, by whether an executor of theirs is connected, to whichever replica: connected, offline.",
    ("state",),
)
CONNECTIONS = Metric("openline_broker_executor_connections", "gauge", "Executors that are connected to this replica.")
CONNECTS = Metric(
    "openline_broker_executor_connects_total",
    "counter",
    "Connections of executors that were opened: a process's first, or a reconnect.",
    ("kind",),
)
AWAY = Metric(
    "openline_broker_executors_away",
    "gauge",
    "Executors whose stream broke with commands on it, and that may come back within the grace.",
)
UNKNOWN_FRAMES = Metric(
    "openline_broker_unknown_frames_total",
    "counter",
    "Frames of executors that are newer than this version, and were ignored.",
)
RECEIVED = Metric(
    "openline_broker_received_bytes_total",
    "counter",
    "Messages that came in, by method; TLS and HTTP/2 are not counted.",
    ("method",),
)
SENT = Metric(
    "openline_broker_sent_bytes_total",
    "counter",
    "Messages that went out on calls that others have opened here, by method.",
    ("method",),
)
PIPES = Metric("openline_broker_pipes_open", "gauge", "Pipes of gateways, scripts and other replicas.")
PEERS = Metric("openline_broker_peers_reachable", "gauge", "Other replicas that answer.")
CERTIFICATE_EXPIRES = Metric(
    "openline_broker_certificate_expires_timestamp_seconds",
    "gauge",
    "When the certificate of --tls-cert expires, in Unix seconds; 0 without one.",
)
DEGRADED = Metric("openline_broker_redis_degraded", "gauge", "1 while Redis does not take writes, else 0.")
WRITES_WAITING = Metric("openline_broker_redis_writes_waiting", "gauge", "Writes to Redis that wait.")
WRITES_WAITING_BYTES = Metric("openline_broker_redis_writes_waiting_bytes", "gauge", "Their size; at most 64 MiB.")
WRITES_LOST = Metric(
    "openline_broker_redis_writes_lost_total",
    "counter",
    "Writes to Redis that were given up, since too much waits (full) or Redis says that they are wrong (refused).",
    ("why",),
)
RECORDS_LOST = Metric(
    "openline_broker_records_lost_total",
    "counter",
    "Results, entries of lists and entries of the audit trail that were never stored: result, history, audit.",
    ("record",),
)
ROUND_TRIP = Metric(
    "openline_broker_redis_round_trip_seconds", "histogram", "A batch of writes to Redis, until it is answered."
)
LOOP_LAG = Metric(
    "openline_broker_event_loop_lag_seconds", "histogram", "How much too late the event loop wakes, twice a second."
)

BROKER = (
    BROKER_BUILD,
    DRAINING,
    COMMANDS,
    POLICY_DENIALS,
    COMMAND_DURATION,
    STAGE,
    IN_FLIGHT,
    WAITING,
    FORWARDED,
    SHARED,
    CACHED,
    OUTPUT,
    OUTPUT_CUT,
    TRUNCATED,
    QUOTA_REFUSALS,
    REFUSED_CREDENTIALS,
    CROWDED_OUT,
    CLUSTERS,
    CONNECTIONS,
    CONNECTS,
    AWAY,
    UNKNOWN_FRAMES,
    RECEIVED,
    SENT,
    PIPES,
    PEERS,
    CERTIFICATE_EXPIRES,
    DEGRADED,
    WRITES_WAITING,
    WRITES_WAITING_BYTES,
    WRITES_LOST,
    RECORDS_LOST,
    ROUND_TRIP,
    LOOP_LAG,
)

# The gateway

GATEWAY_BUILD = Metric("openline_gateway_build_info", "gauge", "1, with the version in its label.", ("version",))
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
REFUSED = Metric(
    "openline_gateway_refused_total",
    "counter",
    "What the gateway turned away before it asked a broker, by why: no_key, crowded, large_head, large_body, "
    "slow_body, malformed; and connections that were closed without an answer: unheard (there are too many), "
    "slow_head, stalled (nothing of the answer was taken).",
    ("why",),
)
GATEWAY_CONNECTIONS = Metric("openline_gateway_connections_open", "gauge", "Callers' connections, idle ones as well.")
EVENT_STREAMS = Metric("openline_gateway_event_streams_open", "gauge", "Answers that are server-sent events.")
BROKERS_UP = Metric(
    "openline_gateway_broker_connected", "gauge", "1 while the pipe to this broker is open, else 0.", ("broker",)
)
GATEWAY_CERTIFICATE_EXPIRES = Metric(
    "openline_gateway_certificate_expires_timestamp_seconds",
    "gauge",
    "When the first of --listen-cert and --tls-cert expires, in Unix seconds; 0 without any.",
)
GATEWAY_LOOP_LAG = Metric(
    "openline_gateway_event_loop_lag_seconds", "histogram", "How much too late the event loop wakes, twice a second."
)

GATEWAY = (
    GATEWAY_BUILD,
    REQUESTS,
    REQUEST_DURATION,
    REQUESTS_IN_FLIGHT,
    REFUSED,
    GATEWAY_CONNECTIONS,
    EVENT_STREAMS,
    BROKERS_UP,
    GATEWAY_CERTIFICATE_EXPIRES,
    GATEWAY_LOOP_LAG,
)
