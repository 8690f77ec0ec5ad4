"""How gRPC channels and servers are set up, on both ends: keepalive, sizes, reconnecting, TLS files.

Each option is here because the default was seen to fail, in the way that its comment tells.
"""

import asyncio
from pathlib import Path

import grpc
from structlog.typing import FilteringBoundLogger

from openline.calls import broker_unavailable
from openline.fresh import Fresh
from openline.limits import (
    CONNECT_TIMEOUT_S,
    HELLO_TIMEOUT_S,
    MAX_TIMEOUT_S,
    MAX_WAIT_FOR_CLUSTER_S,
    STREAM_CREDIT_BYTES,
)
from openline.reasons import NO
from openline.settings import Address
from openline.tls import Pems, TlsFiles

# Well below a minute, since proxies and load balancers drop idle connections after one; and the table of promises says
# that a frozen peer is noticed within 30 s. Above the longest interval of heartbeats (`limits`): while those come, gRPC
# sends no PINGs.
KEEPALIVE_MS = 16_000
KEEPALIVE_TIMEOUT_MS = 7_000
MAX_MESSAGE_BYTES = 8 << 20
# No command lives longer, so no call does.
LONGEST_CALL_S = MAX_TIMEOUT_S + MAX_WAIT_FOR_CLUSTER_S + 60.0

_BOTH: list[tuple[str, int | str]] = [
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    # keepalive_timeout_ms alone does nothing for a peer that has stopped answering PINGs.
    ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # By default gRPC asks the peer with a PING how fast the line is, after each message that follows a pause, and that
    # costs as much as the message. The window that it would find is given instead: as much as a stream has credit for.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", STREAM_CREDIT_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]

CLIENT_OPTIONS: list[tuple[str, int | str]] = [
    *_BOTH,
    # The default backs off up to two minutes; full jitter above this is the caller's.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # No wait, whatever its name says, but how long an attempt may take: one that was refused is followed by another as
    # above. As little as that wait would be less than a broker on another continent, or on a busy machine, needs.
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_TIMEOUT_S * 1000)),
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


class Dialer:
    """Opens channels to brokers, each with the certificates as they are then; without files in plaintext.

    Raises OSError for files that cannot be used now; when it is so later, those before stay in use. Plaintext off this
    machine is refused unless it is `insecure`. `use` and `log` are for what is said about the files.
    """

    def __init__(
        self, tls: TlsFiles, *, use: str = "client", insecure: bool = True, log: FilteringBoundLogger | None = None
    ) -> None:
        self.files = Fresh(tls.paths, tls.read, use=use, shown=tls.cert, log=log) if tls else None
        self._insecure = insecure

    def pems(self) -> Pems | None:
        """What the next channel is opened with: the same object until the files change."""
        return None if self.files is None else self.files.current()

    def open(self, address: Address) -> grpc.aio.Channel:
        """Raises BROKER_UNAVAILABLE where plaintext is refused."""
        if (pems := self.pems()) is not None:
            return grpc.aio.secure_channel(address, _channel_credentials(pems), options=CLIENT_OPTIONS)
        if not self._insecure and not address.is_loopback:
            raise broker_unavailable("plaintext would leave this machine; it is allowed by --insecure", executed=NO)
        return grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS)

    def open_blocking(self, address: Address) -> grpc.Channel:
        """The same for callers without a loop."""
        if (pems := self.pems()) is not None:
            return grpc.secure_channel(address, _channel_credentials(pems), options=CLIENT_OPTIONS)
        return grpc.insecure_channel(address, options=CLIENT_OPTIONS)


class FreshChannel:
    """The way to one broker: a channel, and another one when the certificates have changed and a stream is opened.

    A channel keeps its certificates for ever, and connects again with them by itself.
    """

    def __init__(self, address: Address, dialer: Dialer) -> None:
        self._address = address
        self._dialer = dialer
        self._pems: Pems | None = None
        self._channel: grpc.aio.Channel | None = None
        # Each waits for the calls on a channel that was left.
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def channel(self) -> grpc.aio.Channel:
        """For a call beside the stream. Raises BROKER_UNAVAILABLE as `Dialer.open`."""
        return self._channel or self.renew()

    def renew(self) -> grpc.aio.Channel:
        """For the next stream: with the certificates of now. Calls on the channel before go on. Raises as `channel`."""
        pems = self._dialer.pems()
        if self._channel is None or pems is not self._pems:
            # First, since it may be refused.
            opened = self._dialer.open(self._address)
            if self._channel is not None:
                leaving = asyncio.create_task(self._channel.close(LONGEST_CALL_S), name=f"leave {self._address}")
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)
            self._channel, self._pems = opened, pems
        return self._channel

    async def close(self) -> None:
        """Ends what is still on it."""
        leaving = list(self._leaving)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()


def open_channel(
    address: Address, *, ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> grpc.aio.Channel:
    """A channel to a broker for once; TLS when any file is given. Raises OSError for files that cannot be used."""
    return Dialer(TlsFiles(ca, cert, key)).open(address)


def server_credentials(files: Fresh[Pems], *, mutual: bool) -> grpc.ServerCredentials:
    """What a server shows, read again for each handshake; connections that stand keep what they have.

    With `mutual` clients must show a certificate of the authority.
    """
    served = files.current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        # grpc asks in a thread of its own, for one handshake at a time.
        nonlocal served
        if (now := files.current()) is served:
            return None
        served = now
        return _server_certificate(now)

    return grpc.dynamic_ssl_server_credentials(
        _server_certificate(served),
        changed,  # type: ignore[arg-type]  # None is what its documentation asks for
        require_client_authentication=mutual,
    )


def _server_certificate(pems: Pems) -> grpc.ServerCertificateConfiguration:
    pair = (pems.key or b"", pems.cert or b"")
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=pems.ca)


def _channel_credentials(pems: Pems) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(root_certificates=pems.ca, private_key=pems.key, certificate_chain=pems.cert)
