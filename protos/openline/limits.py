"""Bounds on what travels: one table, so that both ends refuse the same things."""

# The lowest and the highest version of the protocol that is spoken here: see `versions`.
MIN_PROTOCOL_VERSION = 1
PROTOCOL_VERSION = 1

# argv: kubectl's real commands are far smaller; Linux bounds a single argument at 128 KiB.
MAX_ARGUMENTS = 64
MAX_ARGUMENT_BYTES = 16 << 10
MAX_ARGV_BYTES = 64 << 10

DEFAULT_TIMEOUT_S = 10.0
MAX_TIMEOUT_S = 3600.0
MAX_WAIT_FOR_CLUSTER_S = 300.0
# How old an answer may be, whatever is asked.
MAX_ANSWER_AGE_S = 5.0

MAX_FRAME_BYTES = 64 << 10
DEFAULT_MAX_OUTPUT_BYTES = 1 << 20

# Output on its way, sent and not yet taken: what one flood may put in front of other commands, and what its sender
# keeps for a reconnect. The stream's is enough for four floods at full speed.
COMMAND_CREDIT_BYTES = 256 << 10
STREAM_CREDIT_BYTES = 1 << 20

# For TCP, TLS and HTTP/2 together: four round trips, of up to half a second each, and a lost packet.
CONNECT_TIMEOUT_S = 3.0
# A stream that was opened and has not said Hello is worth nothing to anybody after this.
HELLO_TIMEOUT_S = 10.0
# On pipes, of which there are few, and each has many callers.
HEARTBEAT_INTERVAL_S = 5.0
# Three heartbeats lost.
HEARTBEAT_TIMEOUT_S = 16.0
# On executors' streams, of which there are thousands, and most are idle. That the peer is frozen HTTP/2 keepalive finds
# sooner (`channels`), and for less; a proxy on the way answers that by itself, though. The promise is 30 s.
IDLE_HEARTBEAT_INTERVAL_S = 14.0
# Two heartbeats lost.
IDLE_HEARTBEAT_TIMEOUT_S = 29.0

RECONNECT_MIN_S = 0.2
RECONNECT_MAX_S = 5.0

# After the deadline the process group gets TERM, then KILL; whoever waits allows for that before giving up.
KILL_AFTER_S = 0.3
DEADLINE_ALLOWANCE_S = 0.8
