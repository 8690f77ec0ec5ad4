"""Prometheus, as operators run it: the one of this machine, or the one that `make prometheus` unpacks."""

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.programs import PATIENCE_S, Program, free_ports

ROOT = Path(__file__).parent.parent
UNPACKED = ROOT / ".prometheus/usr/bin"


def found(name: str) -> str:
    """Where `prometheus` or `promtool` is."""
    path = shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}{UNPACKED}")
    assert path, f"there is no {name}: `make prometheus` unpacks one, or have Debian's package prometheus"
    return path


class Prometheus(Program):
    """It reads `targets` once a second, and tries these rules as often."""

    def __init__(self, here: Path, targets: Sequence[str], rules: Path) -> None:
        settings = here / "prometheus.yml"
        jobs = [{"job_name": "openline", "static_configs": [{"targets": list(targets)}]}]
        every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        settings.write_text(yaml.safe_dump({"global": every, "rule_files": [str(rules)], "scrape_configs": jobs}))
        [port] = free_ports(1)
        super().__init__(
            "prometheus", here / "prometheus.log",
            found("prometheus"), "--config.file", settings, "--storage.tsdb.path", here / "data",
            "--web.listen-address", f"127.0.0.1:{port}",
            address=f"127.0.0.1:{port}", ready="ready to receive web requests",
        )  # fmt: skip
        self._targets = targets

    async def ask(self, query: str) -> dict[str, Any]:
        """The answer to a query, as it is now."""
        return await self._get("query", query=query)

    async def rules(self) -> list[dict[str, Any]]:
        """Each with whether it could be evaluated."""
        groups = (await self._get("rules"))["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    async def has_read(self, since: float) -> None:
        """Returns when each target was read later than that, in Unix seconds."""
        async with asyncio.timeout(PATIENCE_S):
            while len((await self.ask(f"timestamp(up == 1) > {since}"))["data"]["result"]) < len(self._targets):
                await asyncio.sleep(0.1)

    async def _get(self, what: str, **parameters: str) -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
            answer = (await client.get(f"http://{self.address}/api/v1/{what}", params=parameters)).json()
        assert isinstance(answer, dict)
        return answer
