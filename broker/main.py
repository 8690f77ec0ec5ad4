"""openline-broker: reads the settings, starts the stages, waits for a signal, stops them in reverse."""

import asyncio
import contextlib
import gc
import signal
import sys

import structlog
import uvloop

from broker import cli
from broker.core.credentials import Credentials
from broker.server import CannotListen, check_listen, serve
from broker.settings import BrokerSettings
from broker.store.embedded import DirectoryUnusable, EmbeddedFailed, embedded_valkey
from broker.store.store import open_store
from openline import __version__
from openline.logs import set_up_logs
from openline.loudness import LOUDNESS
from openline.process import allow_open_files, forbid_core_dumps
from openline.settings import fail, fail_to_listen, load
from openline.tracing.exporting import traced

PROGRAM = "openline-broker"

log = structlog.get_logger()


def main() -> None:
    forbid_core_dumps()
    if sys.argv[1:2] and cli.knows(sys.argv[1]):
        cli.main(sys.argv[1:])
        return
    allow_open_files()
    settings = load(BrokerSettings, program=PROGRAM)
    set_up_logs(settings.log_level, settings.log_format)
    try:
        credentials = Credentials(
            api_keys=[entry.get_secret_value() for entry in settings.api_keys],
            executor_tokens=[entry.get_secret_value() for entry in settings.executor_tokens],
            executor_certificates=settings.executor_certificates,
        )
    except ValueError as mistake:
        fail(PROGRAM, str(mistake))
    for flag, address in (
        ("--listen", settings.listen),
        ("--metrics-listen", settings.metrics_listen),
        ("--health-listen", settings.health_listen),
    ):
        try:
            if address is not None:
                check_listen(address)
        except OSError as failure:
            fail_to_listen(PROGRAM, address or settings.listen, failure, flag=flag)
    try:
        with traced(PROGRAM, about={"service.instance.id": settings.replica_id}):
            uvloop.run(_run(settings, credentials))
    except DirectoryUnusable as failure:
        fail(PROGRAM, f"--data-dir: {failure}")
    except (CannotListen, EmbeddedFailed, OSError) as failure:
        fail(PROGRAM, str(failure), code=1)


async def _run(settings: BrokerSettings, credentials: Credentials) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    LOUDNESS.toggle_on_signal()
    # A command makes a hundred objects that live as long as it does. By default all are looked through every few
    # commands, again and again; and what is here before the first command stays anyway.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    async with contextlib.AsyncExitStack() as stages:
        url = settings.redis_url
        if url is None:
            url = await stages.enter_async_context(embedded_valkey(settings.data_dir))
        opening = open_store(url, result_ttl_s=settings.result_ttl, audit_max_entries=settings.audit_max_entries)
        store = await stages.enter_async_context(opening)
        address = await stages.enter_async_context(serve(settings, store, credentials))
        settings.warn_of_plaintext()
        log.info("broker.started", version=__version__, replica_id=settings.replica_id, listen=address)
        await stop.wait()
        log.info("broker.stopping")
    log.info("broker.stopped")


if __name__ == "__main__":
    main()
