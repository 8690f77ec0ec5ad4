"""`python -m examples.diagnose --via mcp`: finds out what is wrong in a cluster, and says each step."""

import argparse
import asyncio
import importlib
import os
import sys
import uuid

from .diagnosis import diagnose
from .following import follow
from .words import Finding, GaveUp, printable

# Each a module and its function: what the others need does not have to be installed.
WAYS = {
    "mcp": ("via_mcp", "connect"),
    "mcp-stdio": ("via_mcp", "connect_stdio"),
    "rest": ("via_rest", "connect"),
    "sdk": ("via_sdk", "connect"),
}


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.diagnose", description="Finds out what is wrong in a cluster."
    )
    parser.add_argument("--via", choices=WAYS, default="mcp", help="how to ask (default: mcp)")
    parser.add_argument("--url", help="of a gateway, or HOST:PORT[,…] of brokers for sdk (default: the demo's)")
    parser.add_argument("--key", help="API key (default: $OPENLINE_API_KEY, or the demo's)")
    parser.add_argument("--cluster", default="local", help="where to look (default: local)")
    parser.add_argument("--namespace", default="", help="where in it (default: everywhere)")
    parser.add_argument("--patience", type=float, default=30, help="for how many seconds to ask again (default: 30)")
    return parser.parse_args()


async def look(arguments: argparse.Namespace) -> Finding | str:
    """What was found, or why nothing."""
    module, function = WAYS[arguments.via]
    way = importlib.import_module(f".{module}", __package__)
    url = arguments.url or way.DEMO
    key = arguments.key or os.environ.get("OPENLINE_API_KEY", "test-key")
    conversation = f"diagnosis-{uuid.uuid4()}"
    print(f"Conversation {conversation}, via {arguments.via}.")
    result: Finding | str
    try:
        async with getattr(way, function)(url, key, conversation) as run:
            try:
                plan = diagnose(arguments.namespace)
                finding = await follow(plan, run, arguments.cluster, patience_s=arguments.patience)
                result = finding or "There is nothing that it can explain."
            except GaveUp as why:
                result = f"It gave up: {why}"
    except* way.UNREACHED as errors:
        result = f"It cannot reach {url}: {_first(errors)}"
    return result


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The libraries' tasks put what they raise into groups of groups."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def main() -> int:
    result = asyncio.run(look(read_arguments()))
    if isinstance(result, str):
        print(f"\nNO CAUSE  {printable(result)}")
        return 1
    print(f"\nCAUSE     {printable(f'{result.subject}: {result.cause}')}")
    for line in result.evidence:
        print(f"EVIDENCE  {printable(line)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
