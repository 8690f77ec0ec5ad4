"""Ports of this machine for programs that are about to be started."""

import contextlib
import socket
import sys
from collections.abc import Iterator

from demo.programs import StartFailed


@contextlib.contextmanager
def held(port: int) -> Iterator[int]:
    """A port, or any for 0, that nobody else is given until the block is left; a program that is told of it may listen.

    Raises StartFailed for one that is in use. What waits for a program would else be given the very port that it dials.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind(("127.0.0.1", port))
        except OSError:
            raise StartFailed(f"port {port} is in use; --port and --broker-port choose others") from None
        name: int = holder.getsockname()[1]
        if sys.platform != "linux":  # elsewhere whoever is bound is in the way of who wants to listen
            holder.close()
        yield name
