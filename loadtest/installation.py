"""What a command of the load test asks: an installation whose addresses were given, or one that is started for it."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from loadtest.settings import TargetSettings, Tls
from loadtest.stage import KEY, Stage, new_token, open_stage
from openline.settings import Address


@dataclass(frozen=True, slots=True)
class Installation:
    """Brokers that know `api_key` and `cluster_ids`. The stage has those programs of it that were started here."""

    stage: Stage
    brokers: tuple[Address, ...]
    api_key: str
    cluster_ids: tuple[str, ...]
    tls: Tls


@contextlib.asynccontextmanager
async def open_installation(settings: TargetSettings, *answering: str) -> AsyncIterator[Installation]:
    """`answering` are more flags for the simulated executors.

    Raises StartFailed. What was given is left as it was found; what was started is stopped."""
    async with open_stage() as stage:
        if settings.broker is None:
            token = new_token()
            clusters = tuple(f"loadtest-{number}" for number in range(1, settings.clusters + 1))
            brokers: tuple[Address, ...] = (await stage.broker("broker", await stage.valkey(), clusters, token),)
            api_key = KEY
        else:
            token = settings.executor_token.get_secret_value() if settings.executor_token else ""
            clusters, brokers, api_key = settings.cluster_ids, settings.broker, settings.api_key.get_secret_value()
        if token:
            flags = [f"--output-bytes={settings.output_bytes}", *_tls_flags(settings), *answering]
            await stage.executors("executors", brokers, clusters, token, *flags, each=settings.executors)
        yield Installation(stage, brokers, api_key, clusters, settings.tls)


def _tls_flags(settings: TargetSettings) -> list[str]:
    return [f"--tls-{name}={file}" for name, file in settings.tls.items() if file]
