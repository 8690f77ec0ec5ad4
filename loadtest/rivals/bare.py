"""The floor of HTTP in Python: uvicorn as the gateway sets it up, and an application that only reads and answers.

A process of its own: `python -m loadtest.rivals.bare HOST:PORT FILE`, where the file has the JSON to answer.
"""

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from loadtest.figures import OK
from loadtest.http import Connections, HttpFailed
from loadtest.measuring import Ask
from loadtest.stage import Stage
from openline.settings import Address

Message = MutableMapping[str, Any]
TIMEOUT_S = 10.0


async def start(stage: Stage, answer: bytes) -> str:
    """Starts it; gives its URL."""
    address, file = stage.address(), stage.directory / "answer.json"
    file.write_bytes(answer)
    await stage.module("bare", "loadtest.rivals.bare", address, str(file))
    await stage.listening(address)
    return f"http://{address}"


def over_http(connections: Connections, path: str, body: bytes, headers: str) -> Ask:
    """The request that the gateway gets, sent to whoever is there."""

    async def ask() -> str:
        try:
            answer = await connections.post(path, body, headers, timeout_s=TIMEOUT_S)
        except HttpFailed as failure:
            return str(failure)
        return OK if answer.status == 200 else f"HTTP {answer.status}"

    return ask


def serve(address: Address, answer: bytes) -> None:
    """Serves until SIGTERM or SIGINT."""
    import uvicorn  # the load test itself does without it

    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]

    async def application(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    uvicorn.run(
        application,
        host=address.host,
        port=address.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )


if __name__ == "__main__":
    serve(Address(sys.argv[1]), Path(sys.argv[2]).read_bytes())
