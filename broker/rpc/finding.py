"""What comes of asking the other replicas for a command, and whether one that does not answer is still there."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from openline.settings import Address
from openline.v1 import command_pb2

# A replica that is there answers within milliseconds; one that is frozen must not hold up a caller for long.
FIND_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """A command that another replica knows."""

    replica_id: str
    record: command_pb2.Command


@dataclass(frozen=True, slots=True)
class NotFound:
    """None of the replicas that answered knows the command."""

    # When the process of each began, µs since 1970.
    answered: Mapping[str, int]
    # Those that may have it for all that is known.
    silent: frozenset[str]


async def is_gone(address: Address) -> bool:
    """Nobody listens where it was, so its process has ended; where one is frozen, its system still takes the call."""
    try:
        async with asyncio.timeout(FIND_TIMEOUT_S):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        return False
    writer.close()
    return False
