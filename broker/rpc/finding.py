"""What comes of asking the other replicas for a command, and whether one that does not answer is still there."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass

from openline.settings import Address
from openline.v1 import command_pb2

# A replica that is there answers within milliseconds; one that is frozen must not hold up a caller for long.
FIND_TIMEOUT_S = 1.0

Answer = command_pb2.Command | command_pb2.Error
# Whether the command is one that the asking one means; its id alone does not say so.
Wanted = Callable[[command_pb2.Command], bool]


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


async def answers(questions: Mapping[str, Coroutine[None, None, Answer]], wanted: Wanted) -> dict[str, Answer]:
    """What each replica says, by its id. Once one of them has what is wanted, nobody waits for the others."""
    tasks = {replica_id: asyncio.create_task(question) for replica_id, question in questions.items()}
    try:
        for answer in asyncio.as_completed(tasks.values()):
            said = await answer
            if isinstance(said, command_pb2.Command) and wanted(said):
                break
        return {replica_id: task.result() for replica_id, task in tasks.items() if task.done()}
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


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
