"""What a scrape of the broker reads: counts that its parts keep anyway, looked at only when somebody asks."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import structlog

from broker.core.life import State
from broker.replica import Replica
from broker.rpc.pipe import Pipes
from broker.store.store import Store
from openline import __version__, metrics
from openline.exposition import CONTENT_TYPE, Exposition, Reading, single, yes_no
from openline.page import Page, serve_page
from openline.settings import Address
from openline.v1 import command_pb2

Values = Iterator[tuple[tuple[str, ...], float]]

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def serve_metrics(listen: Address, replica: Replica, store: Store, pipes: Pipes) -> AsyncIterator[None]:
    """Answers `GET /metrics` while the block runs. Raises OSError when the address cannot be had."""
    exposition = Exposition(lambda: read(replica, store, pipes))
    page = lambda: Page(exposition.text(), content_type=CONTENT_TYPE.encode())  # noqa: E731
    async with serve_page(listen, b"/metrics", page) as port:
        log.info("metrics.listening", address=f"{listen.rpartition(':')[0]}:{port}")
        yield


def read(replica: Replica, store: Store, pipes: Pipes) -> Iterator[Reading]:
    """Everything in `metrics.BROKER`, as it is now."""
    tally, behind, ledger = replica.dispatcher.tally, store.behind, replica.ledger
    yield metrics.BROKER_BUILD, [((__version__, replica.presence.replica_id), 1)]
    yield metrics.DRAINING, single(replica.presence.is_draining)
    yield metrics.COMMANDS, (((o, reason, yes_no(agent)), n) for (o, reason, agent), n in tally.ended.items())
    yield metrics.POLICY_DENIALS, (((rule,), n) for rule, n in tally.denied.items())
    yield metrics.COMMAND_DURATION, (((yes_no(agent),), each) for agent, each in tally.durations.items())
    yield metrics.STAGE, (((stage,), each) for stage, each in tally.stages.items())
    states = Counter(command.state for command in ledger.commands.values())
    yield metrics.IN_FLIGHT, (((s.name.lower(),), states[s]) for s in State if s is not State.DONE)
    yield metrics.WAITING, _waiting(replica, queued=states[State.QUEUED])
    yield metrics.FORWARDED, single(tally.forwarded)
    yield metrics.SHARED, single(tally.shared[command_pb2.SERVED_FROM_SHARED])
    yield metrics.CACHED, single(tally.shared[command_pb2.SERVED_FROM_CACHE])
    yield metrics.OUTPUT, single(tally.output_bytes)
    yield metrics.OUTPUT_CUT, single(tally.output_cut_bytes)
    yield metrics.TRUNCATED, single(tally.truncated)
    refused = replica.quotas.refused | replica.conversations.refused
    yield metrics.QUOTA_REFUSALS, (((name,), n) for name, n in refused.items())
    yield metrics.REFUSED_CREDENTIALS, (((kind,), n) for kind, n in replica.refusals.counts.items())
    yield metrics.CROWDED_OUT, single(replica.opening.crowded_out)
    yield metrics.CLUSTERS, _clusters(replica)
    yield metrics.CONNECTIONS, single(len(ledger.connections))
    yield metrics.CONNECTS, (((kind,), n) for kind, n in tally.connects.items())
    yield metrics.AWAY, single(ledger.away)
    yield metrics.UNKNOWN_FRAMES, single(tally.unknown_frames)
    yield metrics.RECEIVED, (((method,), n) for method, n in replica.volume.received.items())
    yield metrics.SENT, (((method,), n) for method, n in replica.volume.sent.items())
    yield metrics.PIPES, single(len(pipes))
    yield metrics.PEERS, single(len(replica.peers.reachable))
    yield metrics.CERTIFICATE_EXPIRES, single(_expires_at(replica))
    yield metrics.DEGRADED, single(store.degraded)
    yield metrics.WRITES_WAITING, single(behind.waiting)
    yield metrics.WRITES_WAITING_BYTES, single(behind.waiting_bytes)
    yield metrics.WRITES_LOST, (((why,), n) for why, n in behind.lost.items())
    yield metrics.RECORDS_LOST, _lost(replica, store)
    yield metrics.ROUND_TRIP, single(behind.round_trips)
    yield metrics.LOOP_LAG, single(replica.lag)


def _expires_at(replica: Replica) -> float:
    """It is shown to the other replicas as to everybody."""
    files = replica.dialer.files
    return 0.0 if files is None or files.expires_at is None else files.expires_at


def _waiting(replica: Replica, *, queued: int) -> Values:
    commands = replica.ledger.commands.values()
    absent = sum(command.state is State.QUEUED and command.waits_until is not None for command in commands)
    yield ("place",), queued - absent
    yield ("cluster",), absent
    yield ("redis",), len(replica.executions.waiting)


def _clusters(replica: Replica) -> Values:
    here, elsewhere = set(replica.ledger.connections.clusters()), replica.directory
    registered = replica.registry.clusters
    connected = sum(cluster_id in here or elsewhere.has(cluster_id) for cluster_id in registered)
    yield ("connected",), connected
    yield ("offline",), len(registered) - connected


def _lost(replica: Replica, store: Store) -> Values:
    yield ("result",), replica.dispatcher.lost_results
    yield ("history",), store.history.lost
    yield ("audit",), store.audit.lost
