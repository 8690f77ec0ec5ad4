"""Whether a key is one: a broker is asked, which knows that by itself."""

from typing import Any

import httpx
import pytest

from openline.settings import Address

# What no command can be called: that is known without a broker, and said to whoever has a key.
NO_COMMAND = "/v1/commands/web"


@pytest.mark.parametrize("how", ["frozen", "away"])
async def test_without_redis(run_program: Any, serve_gateway: Any, redis: Any, how: str) -> None:
    """A good key is let through and a wrong one is refused; a cluster, which Redis knows of, is not to be had."""
    keys = (
        "--api-keys",
        "me:test-key:read,executer:execute-key:execute",
        "--executor-tokens",
        "local:the-token-of-local",
    )
    with run_program("openline-broker", "--listen", "127.0.0.1:0", "--redis-url", redis.url, *keys) as broker:
        async with (
            serve_gateway(Address(broker.until("broker.started")["listen"])) as (address, _),
            httpx.AsyncClient(base_url=f"http://{address}", timeout=60, trust_env=False) as http,
        ):
            redis.freeze() if how == "frozen" else redis.kill()

            async def asked(path: str, key: str) -> tuple[int, str]:
                answer = await http.get(path, headers={"X-API-Key": key})
                return answer.status_code, answer.json()["reason"]

            assert await asked("/v1/clusters", "test-key") == (503, "STORE_UNAVAILABLE")
            assert await asked(NO_COMMAND, "wrong") == (401, "UNAUTHENTICATED")
            for key in ("test-key", "execute-key"):
                assert await asked(NO_COMMAND, key) == (404, "COMMAND_UNKNOWN")
