"""What one replica is made of: the ledger and everything around it that is not a gRPC service."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from time import monotonic

import structlog

from broker.admission import Admission
from broker.api_keys import ApiKeys
from broker.audit import Audit
from broker.core.checks import Sharing
from broker.core.credentials import Credentials
from broker.core.directory import Directory
from broker.core.ledger import Ledger
from broker.core.proof import Proof
from broker.core.quotas import Quota, Quotas
from broker.core.tokens import Token
from broker.dispatcher import Dispatcher
from broker.earlier import Earlier
from broker.executions import Executions
from broker.hearing import Hearing
from broker.killing import Killing
from broker.lasting import LastingCalls
from broker.listings import Listings
from broker.lookups import Lookups
from broker.opening import Opening
from broker.overview import Overview
from broker.own_overview import OwnOverview
from broker.presence import Presence
from broker.refusals import Refusals
from broker.registry import Registry
from broker.rivals import Rivals
from broker.rpc.peers import Peers
from broker.rpc.volume import Volume
from broker.settings import BrokerSettings
from broker.sharing import share_forever
from broker.store.store import Store
from broker.survey import Survey
from broker.tokens import Tokens
from broker.views import Views
from openline import errors
from openline.channels import Dialer
from openline.errors import OpenlineError
from openline.lag import measure_lag
from openline.reasons import Reason
from openline.settings import Address
from openline.tally import Histogram

# How long a stop waits to say in Redis that this replica is gone; without it the others find out by themselves.
LEAVE_S = 1.0

log = structlog.get_logger()


class Replica:
    """The parts, each made of those before it."""

    def __init__(self, settings: BrokerSettings, store: Store, credentials: Credentials) -> None:
        given, replica_id = settings.peer_secret, settings.replica_id
        secret = None if given is None else hashlib.sha256(given.get_secret_value().encode()).digest()
        self.proof = Proof(replica_id, secret=secret)
        self.directory = Directory(replica_id)
        self.ledger = Ledger(reconnect_grace_s=settings.reconnect_grace, directory=self.directory)
        self.rivals = Rivals(self.ledger.connections, self.directory)
        self.registry = Registry(credentials, store)
        self.opening = Opening()
        self.refusals = Refusals()
        self.volume = Volume()
        self.tokens = Tokens(credentials.tokens, store.tokens, self.proof)
        self.api_keys = ApiKeys(credentials.keys, store.api_keys, self.proof)
        self.lasting = LastingCalls(credentials)
        self.audit = Audit(store.audit, replica_id=replica_id, log_argv=settings.audit_log_argv)
        self._store = store
        self.dialer = Dialer(settings.peer_tls, use="peers", insecure=settings.insecure)
        self.peers = Peers(replica_id, self.proof, self.directory, self.dialer)
        self.presence = Presence(
            self.ledger.connections,
            self.directory,
            store.presence,
            replica_id=replica_id,
        )
        self.hearing = Hearing(
            self.ledger.connections,
            self.directory,
            store.presence,
            self.presence,
            self.peers,
            self.proof,
            clusters=lambda: self.registry.clusters,
            agrees_on_secret=secret is None,
        )
        self.overview = Overview(store.clusters, self.registry, self.presence, self.hearing.not_in_redis)
        store.behind.on_recovered = self._redis_is_back
        self.dispatcher = Dispatcher(
            self.ledger, self.directory, store, self.presence, self.peers, self.proof, self.audit
        )
        self.lag = Histogram()
        own = OwnOverview(self.ledger, self.dispatcher, self.presence, store.behind, self.lag)
        self.survey = Survey(own, self.peers, self.hearing, self.registry, self.directory, store.clusters)
        self.views = Views(self.survey)
        self.tokens.ended = self._close_streams
        self.api_keys.ended = self.lasting.end
        self.hearing.news = self._news
        self.peers.news = self.hearing.news_of_all
        self.lookups = Lookups(self.dispatcher, store, self.peers, self.audit)
        self.listings = Listings(self.dispatcher, store)
        self.quotas = Quotas(Quota(commands=settings.quota_commands_per_minute, in_flight=settings.quota_in_flight))
        self.conversations = Quotas.of_conversations(
            Quota(
                commands=settings.quota_conversation_commands_per_minute,
                in_flight=settings.quota_conversation_in_flight,
            )
        )
        self.executions = Executions(
            self.dispatcher,
            store,
            credentials,
            self.registry,
            Earlier(self.dispatcher, store, self.peers),
            Admission(self.dispatcher, self.quotas, self.conversations, self.audit),
            max_output_bytes=settings.max_output_bytes,
            sharing=Sharing(settings.share_within, settings.cache_for),
        )
        self.killing = Killing(self.dispatcher, self.executions.waiting, self.peers)

    def _close_streams(self, tokens: Sequence[Token]) -> None:
        """Nobody stays who has come in with one of these."""
        ended = {token.name for token in tokens}
        for connection in list(self.ledger.connections):
            if connection.token_name in ended:
                why = errors.error(Reason.UNAUTHENTICATED, "the token was revoked, or has expired")
                self.dispatcher.streams.break_off(connection, errors.OpenlineError(why))

    def _news(self, cluster_id: str) -> None:
        """Of the cluster's executors on other replicas, and of those here as soon as Redis knows it."""
        self.dispatcher.news(cluster_id)
        self.overview.news(cluster_id)

    def _redis_is_back(self) -> None:
        self.presence.write_again()
        self.hearing.read_again()

    @contextlib.asynccontextmanager
    async def known_at(self, address: Address) -> AsyncIterator[None]:
        """The other replicas find this one at the address, and it finds them, until the block is left."""
        async with self.peers.kept():
            tasks = (
                asyncio.create_task(self.presence.run(address), name="presence"),
                asyncio.create_task(self.hearing.run(), name="hearing"),
                asyncio.create_task(self.tokens.run(), name="tokens"),
                asyncio.create_task(self.api_keys.run(), name="api-keys"),
                asyncio.create_task(self.overview.run(), name="overview"),
                asyncio.create_task(measure_lag(self.lag), name="loop-lag"),
                asyncio.create_task(share_forever(self.quotas, self._store.quotas), name="quotas"),
                asyncio.create_task(share_forever(self.conversations, self._store.quotas), name="conversations"),
            )
            for task in tasks:
                task.add_done_callback(_report)
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self.dispatcher.close()
                began = monotonic()
                try:
                    async with asyncio.timeout(LEAVE_S):
                        await self.presence.leave()
                except (OpenlineError, TimeoutError):
                    log.warning("presence.left_behind", waited_s=round(monotonic() - began, 1))


def _report(task: asyncio.Task[None]) -> None:
    """Says that a task has ended which never does. Without it the replica still serves, and somebody has to know."""
    if not task.cancelled() and (defect := task.exception()) is not None:
        log.critical("replica.task_ended", task=task.get_name(), exc_info=defect)
