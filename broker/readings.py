"""What a scrape of the broker reads: counts that its parts keep anyway, looked at only when somebody asks."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import structlog

from broker.core.life import State
from broker.lag import measure_lag
from broker.replica import Replica
from broker.rpc.pipe import Pipes
from broker.store.store import Store
from openline import metrics
from openline.exposition import CONTENT_TYPE, Exposition, Reading, single, yes_no
from openline.page import Page, serve_page
from openline.settings import Address
from openline.tally import Histogram

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def serve_metrics(listen: Address, replica: Replica, store: Store, pipes: Pipes) -> AsyncIterator[None]:
    """Answers `GET /metrics` while the block runs. Raises OSError when the address cannot be had."""
    lag = Histogram()
    exposition = Exposition(lambda: read(replica, store, pipes, lag))
    measuring = asyncio.create_task(measure_lag(lag), name="loop-lag")
    try:
        page = lambda: Page(exposition.text(), content_type=CONTENT_TYPE.encode())  # noqa: E731
        async with serve_page(listen, b"/metrics", page) as port:
            log.info("metrics.listening", address=f"{listen.rpartition(':')[0]}:{port}")
            yield
    finally:
        measuring.cancel()
        await asyncio.gather(measuring, return_exceptions=True)


def read(replica: Replica, store: Store, pipes: Pipes, lag: Histogram) -> Iterator[Reading]:
    """Everything in `metrics.BROKER`, as it is now."""
    tally, behind = replica.dispatcher.tally, store.behind
    yield metrics.COMMANDS, (((o, reason, yes_no(agent)), n) for (o, reason, agent), n in tally.ended.items())
    yield metrics.COMMAND_DURATION, (((yes_no(agent),), each) for agent, each in tally.durations.items())
    yield metrics.STAGE, (((stage,), each) for stage, each in tally.stages.items())
    states = Counter(command.state for command in replica.ledger.commands.values())
    yield metrics.IN_FLIGHT, (((s.name.lower(),), states[s]) for s in State if s is not State.DONE)
    yield metrics.FORWARDED, single(tally.forwarded)
    yield metrics.OUTPUT, single(tally.output_bytes)
    yield metrics.OUTPUT_CUT, single(tally.output_cut_bytes)
    yield metrics.TRUNCATED, single(tally.truncated)
    yield metrics.QUOTA_REFUSALS, (((name,), n) for name, n in replica.quotas.refused.items())
    yield metrics.REFUSED_CREDENTIALS, (((kind,), n) for kind, n in replica.refusals.counts.items())
    yield metrics.CONNECTIONS, single(len(replica.ledger.connections))
    yield metrics.CONNECTS, (((kind,), n) for kind, n in tally.connects.items())
    yield metrics.PIPES, single(len(pipes))
    yield metrics.PEERS, single(len(replica.peers.reachable))
    yield metrics.DEGRADED, single(store.degraded)
    yield metrics.WRITES_WAITING, single(behind.waiting)
    yield metrics.WRITES_WAITING_BYTES, single(behind.waiting_bytes)
    yield metrics.ROUND_TRIP, single(behind.round_trips)
    yield metrics.LOOP_LAG, single(lag)
