"""Runs the cluster alone, in the foreground: `python -m demo.kubernetes [--port 6443]`."""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

from demo.kubernetes.server import serve


def main() -> int:
    """Returns 0 after Ctrl-C or SIGTERM, and 1 when the address cannot be had."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.kubernetes", description="A small cluster for the real kubectl."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=6443, help="port to listen on, 0 for any (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="openline-kubernetes-") as directory:
        try:
            asyncio.run(_run(arguments.host, arguments.port, Path(directory)))
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            print(f"cannot listen on {arguments.host}:{arguments.port}: {reason}", file=sys.stderr)
            return 1
    return 0


async def _run(host: str, port: int, directory: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serve(host=host, port=port, directory=directory) as server:
        print(f"{server.url}\nexport KUBECONFIG={server.kubeconfig}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
