"""Answers that take time to make: large output, and output that is searched, are shaped in a thread of their own."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from gateway.command_answers import ALL, Wish, command_answer
from gateway.command_models import CommandAnswer
from openline.v1 import command_pb2

# Up to so much is decoded, counted and hashed faster than a thread is asked to.
QUICK_BYTES = 32 << 10

# So many at a time, however many callers there are: a search may take a second or two, and waits its turn rather than
# take the time of everything else. Whoever leaves leaves its turn to end by itself, as shaping is bounded.
_THREADS = ThreadPoolExecutor(2, thread_name_prefix="shaping")


async def show(command: command_pb2.Command, wish: Wish = ALL) -> CommandAnswer:
    """The command as it is shown to a caller with this wish."""
    size = len(command.result.stdout) + len(command.result.stderr)
    if size <= QUICK_BYTES and wish.shaping.jsonpath is None and wish.shaping.grep is None:
        return command_answer(command, wish)
    return await asyncio.get_running_loop().run_in_executor(_THREADS, command_answer, command, wish)
