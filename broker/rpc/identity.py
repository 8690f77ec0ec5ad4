"""Who the other end of a connection is, by the certificate that it has shown."""

from typing import Any

import grpc

# As gRPC calls the kinds of names in a subject alternative name that may stand for a cluster. The common name does not
# count: nobody who signs certificates has to check it.
KINDS = ("peer_dns", "peer_uri")


def clusters_of(context: grpc.aio.ServicerContext[Any, Any]) -> frozenset[str]:
    """The names by which the certificate may stand for a cluster; it was checked in the handshake. None without one."""
    shown = context.auth_context()
    return frozenset(name.decode(errors="replace") for kind in KINDS for name in shown.get(kind, ()))
