"""`openline-gateway mcp --stdio`: an MCP server for programs that start theirs, such as desktop clients.

Nothing but the protocol goes to stdout; lines for people go to stderr.
"""

import asyncio
import signal
from collections.abc import Sequence

import httpx2
import uvloop

from gateway.mcp.lines import LinesIn, LinesOut
from gateway.mcp.relay import MAX_IN_FLIGHT, Relay
from gateway.mcp.stdio_settings import StdioSettings
from openline import __version__
from openline.ids import new_id
from openline.logs import set_up_logs
from openline.settings import fail, load

PROGRAM = "openline-gateway mcp"

STDIN, STDOUT = 0, 1
# The gateway says something every 15 s while it works on an answer.
SILENCE_S = 60.0
# Shorter than the gateway's, so that it is never a connection that is being closed that is used again.
KEEP_ALIVE_S = 30.0


def main(arguments: Sequence[str]) -> None:
    """Until stdin ends, nobody reads stdout any more, or a signal: then with exit code 0."""
    settings = load(StdioSettings, program=PROGRAM, arguments=arguments)
    set_up_logs(settings.log_level, settings.log_format)
    settings.warn_of_plaintext()
    try:
        uvloop.run(_relay(settings))
    except OSError as failure:
        fail(PROGRAM, str(failure), code=1)


async def _relay(settings: StdioSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    headers = {
        "Authorization": f"Bearer {settings.read_key()}",
        # What this client asks for as long as it runs is one conversation.
        "X-Correlation-ID": new_id(),
        "User-Agent": f"{PROGRAM.replace(' ', '-')}/{__version__}",
    }
    async with httpx2.AsyncClient(
        headers=headers,
        verify=settings.tls(),
        timeout=httpx2.Timeout(SILENCE_S, connect=5.0, write=10.0, pool=5.0),
        limits=httpx2.Limits(max_connections=MAX_IN_FLIGHT + 1, keepalive_expiry=KEEP_ALIVE_S),
        # A proxy is for what is elsewhere.
        trust_env=not settings.is_on_this_machine,
    ) as http:
        out = LinesOut(STDOUT)
        relay = Relay(http, settings.url, out)
        work = asyncio.create_task(relay.run(LinesIn(STDIN)), name="mcp-relay")
        ends = [asyncio.create_task(event.wait(), name="mcp-end") for event in (stop, out.gone)]
        try:
            await asyncio.wait({work, *ends}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, *ends):
                task.cancel()
            await asyncio.gather(work, *ends, return_exceptions=True)
    if not work.cancelled():
        work.result()
