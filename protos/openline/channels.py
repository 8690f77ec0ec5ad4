"""How gRPC channels and servers are set up, on both ends: keepalive, sizes, reconnecting, TLS files.

Each option is here because the default was seen to fail, in the way that its comment tells.
"""

from pathlib import Path

import grpc

from openline.limits import HELLO_TIMEOUT_S
from openline.settings import Address

# Well below a minute, since proxies and load balancers drop idle connections after one; and the table of promises says
# that a frozen peer is noticed within 30 s.
KEEPALIVE_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 10_000
MAX_MESSAGE_BYTES = 8 << 20

_BOTH: list[tuple[str, int | str]] = [
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    # keepalive_timeout_ms alone does nothing for a peer that has stopped answering PINGs.
    ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]

CLIENT_OPTIONS: list[tuple[str, int | str]] = [
    *_BOTH,
    # The default backs off up to two minutes; full jitter above this is the caller's.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A retry is decided by `executed`, never by the transport.
    ("grpc.enable_retries", 0),
    # Two channels of one process to one address must not share a connection that is going away.
    ("grpc.use_local_subchannel_pool", 1),
]

SERVER_OPTIONS: list[tuple[str, int | str]] = [
    *_BOTH,
    # Below the client's interval, or the server answers its pings with ENHANCE_YOUR_CALM.
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    # Two replicas on one port would each get half of the connections, silently.
    ("grpc.so_reuseport", 0),
    # Beyond 1,000 waiting calls the default drops some at random: a reconnect storm is more than that.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 30_000),
    # For the handshakes of TLS and HTTP/2 together; the default lets a connection that says nothing stay two minutes.
    ("grpc.server_handshake_timeout_ms", int(HELLO_TIMEOUT_S * 1000)),
    # A connection without a call; by default it may stay for ever. Clients come back when they have something to ask.
    ("grpc.max_connection_idle_ms", 60_000),
    # By default one connection may open calls without end.
    ("grpc.max_concurrent_streams", 1_000),
]


def open_channel(
    address: Address, *, ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> grpc.aio.Channel:
    """A channel to a broker; TLS when any file is given. Raises OSError for a file that cannot be read."""
    if ca is None and cert is None:
        return grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS)
    return grpc.aio.secure_channel(address, _credentials(ca, cert, key), options=CLIENT_OPTIONS)


def open_blocking_channel(
    address: Address, *, ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> grpc.Channel:
    """The same for callers without a loop."""
    if ca is None and cert is None:
        return grpc.insecure_channel(address, options=CLIENT_OPTIONS)
    return grpc.secure_channel(address, _credentials(ca, cert, key), options=CLIENT_OPTIONS)


def _credentials(ca: Path | None, cert: Path | None, key: Path | None) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=ca.read_bytes() if ca else None,
        private_key=key.read_bytes() if key else None,
        certificate_chain=cert.read_bytes() if cert else None,
    )
