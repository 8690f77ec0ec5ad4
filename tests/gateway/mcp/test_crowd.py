"""Very many sessions at one time: each is served, and nothing is left of them."""

import asyncio
from typing import Any

import pytest

SESSIONS = 200


@pytest.mark.timeout(300)
async def test_two_hundred_sessions(mcp: Any, connect: Any, call: Any) -> None:
    """Half of them in the newest protocol, at two gateways: all are open before the first one asks for anything."""
    begun = 0
    all_begun = asyncio.Event()

    async def converse(number: int) -> None:
        nonlocal begun
        mode = ("modern", "legacy")[number % 2]
        async with connect(mcp.urls[number // 2 % 2], mode) as client:
            begun += 1
            if begun == SESSIONS:
                all_begun.set()
            await all_begun.wait()
            assert len((await client.list_tools()).tools) == 5
            for name in (f"web-{number}", f"db-{number}"):
                answer = await call(
                    client, "kubectl", cluster="script", command=f"get pods {name}", timeout_seconds=100
                )
                assert answer.text == f"{name}\n"

    async with asyncio.timeout(240), asyncio.TaskGroup() as talking:
        for number in range(SESSIONS):
            talking.create_task(converse(number))
