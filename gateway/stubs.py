"""Sessions, clusters, credentials, looks and lists: unary calls, asked of one replica after the other.

None of them runs a command. A session that was made twice expires unused, and a secret that was made twice nobody has.
All that one request looks up has the time of one lookup together.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import grpc

from gateway.callers import Caller
from openline.errors import OpenlineError, error
from openline.ids import is_cluster_id, is_command_id, is_token
from openline.lookups import CANCEL_ALL_S, MAX_PAGES, TIMEOUT_S, Lookups
from openline.near import cluster_unknown
from openline.pipes import Pipes
from openline.reasons import Reason
from openline.v1 import (
    admin_service_pb2,
    cluster_service_pb2,
    command_pb2,
    command_service_pb2,
    overview_pb2,
    session_service_pb2,
)
from openline.v1.admin_service_pb2_grpc import AdminServiceStub
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub
from openline.v1.command_service_pb2_grpc import CommandServiceStub
from openline.v1.session_service_pb2_grpc import SessionServiceStub

# A replica waits three seconds for another one, and a second replica may have to be asked.
DRAIN_S = 8.0

Q = TypeVar("Q")
A = TypeVar("A")


class Stubs:
    """The unary services of whichever replica answers. Every method raises OpenlineError."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes

    async def create_session(
        self, request: session_service_pb2.CreateSessionRequest, caller: Caller
    ) -> session_service_pb2.Session:
        answer = await self._ask(lambda channel: SessionServiceStub(channel).CreateSession, request, caller)
        return answer.session

    async def get_session(self, session_id: str, caller: Caller) -> session_service_pb2.Session:
        request = session_service_pb2.GetSessionRequest(session_id=session_id)
        answer = await self._ask(lambda channel: SessionServiceStub(channel).GetSession, request, caller)
        return answer.session

    async def delete_session(self, session_id: str, caller: Caller) -> None:
        request = session_service_pb2.DeleteSessionRequest(session_id=session_id)
        await self._ask(lambda channel: SessionServiceStub(channel).DeleteSession, request, caller)

    async def list_sessions(
        self, request: session_service_pb2.ListSessionsRequest, caller: Caller
    ) -> session_service_pb2.ListSessionsResponse:
        return await self._ask(lambda channel: SessionServiceStub(channel).ListSessions, request, caller)

    async def list_commands(
        self, request: command_service_pb2.ListCommandsRequest, caller: Caller
    ) -> command_service_pb2.ListCommandsResponse:
        """A broker of before has the key's own, newest first, whatever is asked: what cannot be had is said here."""
        answer = await self._ask(lambda channel: CommandServiceStub(channel).ListCommands, request, caller)
        oldest_first = command_service_pb2.COMMAND_ORDER_OLDEST_FIRST
        if request.order == oldest_first and answer.order != oldest_first:
            raise OpenlineError(error(Reason.NOT_BUILT, "this broker lists the newest first only"))
        if answer.owner != request.owner:
            raise OpenlineError(error(Reason.NOT_BUILT, "this broker lists the key's own commands only"))
        return answer

    async def list_audit_entries(
        self, request: admin_service_pb2.ListAuditEntriesRequest, caller: Caller
    ) -> admin_service_pb2.ListAuditEntriesResponse:
        return await self._ask(lambda channel: AdminServiceStub(channel).ListAuditEntries, request, caller)

    async def get_cluster(self, cluster_id: str, caller: Caller) -> cluster_service_pb2.Cluster:
        request = cluster_service_pb2.GetClusterRequest(cluster_id=cluster_id)
        answer = await self._ask(lambda channel: ClusterServiceStub(channel).GetCluster, request, caller)
        return answer.cluster

    async def list_cluster_ids(self, caller: Caller) -> list[str]:
        """Sorted; those that the key may see."""
        return [cluster.cluster_id for cluster in await self.list_all_clusters(caller)]

    async def list_all_clusters(self, caller: Caller) -> list[cluster_service_pb2.Cluster]:
        """Sorted by id; those that the key may see."""
        clusters: list[cluster_service_pb2.Cluster] = []
        token = ""
        for _ in range(MAX_PAGES):
            page = await self.list_clusters(caller, page_token=token)
            clusters += page.clusters
            token = page.next_page_token
            if not token:
                break
        return sorted(clusters, key=lambda cluster: cluster.cluster_id)

    async def list_clusters(
        self, caller: Caller, *, page_size: int = 0, page_token: str = ""
    ) -> cluster_service_pb2.ListClustersResponse:
        """A page, of a thousand if nothing else is said."""
        request = cluster_service_pb2.ListClustersRequest(page_size=page_size, page_token=page_token)
        return await self._ask(lambda channel: ClusterServiceStub(channel).ListClusters, request, caller)

    async def create_token(
        self, request: admin_service_pb2.CreateExecutorTokenRequest, caller: Caller
    ) -> admin_service_pb2.CreateExecutorTokenResponse:
        return await self._ask(lambda channel: AdminServiceStub(channel).CreateExecutorToken, request, caller)

    async def list_tokens(self, cluster_id: str, caller: Caller) -> Sequence[admin_service_pb2.ExecutorToken]:
        """All of the cluster, which are fewer than a page holds."""
        request = admin_service_pb2.ListExecutorTokensRequest(cluster_id=cluster_id)
        answer = await self._ask(lambda channel: AdminServiceStub(channel).ListExecutorTokens, request, caller)
        return answer.executor_tokens

    async def revoke_tokens(self, cluster_id: str, caller: Caller, *, token_id: str) -> None:
        """All executor tokens of the cluster, or the one of this id."""
        request = admin_service_pb2.RevokeExecutorTokenRequest(cluster_id=cluster_id, token_id=token_id)
        await self._ask(lambda channel: AdminServiceStub(channel).RevokeExecutorToken, request, caller)

    async def create_key(
        self, request: admin_service_pb2.CreateApiKeyRequest, caller: Caller
    ) -> admin_service_pb2.CreateApiKeyResponse:
        return await self._ask(lambda channel: AdminServiceStub(channel).CreateApiKey, request, caller)

    async def list_keys(
        self, request: admin_service_pb2.ListApiKeysRequest, caller: Caller
    ) -> admin_service_pb2.ListApiKeysResponse:
        return await self._ask(lambda channel: AdminServiceStub(channel).ListApiKeys, request, caller)

    async def revoke_key(self, key_id: str, caller: Caller) -> None:
        request = admin_service_pb2.RevokeApiKeyRequest(key_id=key_id)
        await self._ask(lambda channel: AdminServiceStub(channel).RevokeApiKey, request, caller)

    async def cancel_all(
        self, request: admin_service_pb2.CancelAllRequest, caller: Caller
    ) -> admin_service_pb2.CancelAllResponse:
        """That replica asks the others, some of which may not answer: it has more time than for a look."""
        return await self._ask(
            lambda channel: AdminServiceStub(channel).CancelAll, request, caller, most_s=CANCEL_ALL_S
        )

    async def set_log_level(
        self, request: admin_service_pb2.SetLogLevelRequest, caller: Caller
    ) -> admin_service_pb2.SetLogLevelResponse:
        """That replica asks the others, as for `cancel_all`."""
        return await self._ask(
            lambda channel: AdminServiceStub(channel).SetLogLevel, request, caller, most_s=CANCEL_ALL_S
        )

    async def get_overview(self, caller: Caller) -> overview_pb2.Overview:
        request = overview_pb2.GetOverviewRequest()
        answer = await self._ask(lambda channel: AdminServiceStub(channel).GetOverview, request, caller)
        return answer.overview

    async def drain(self, request: admin_service_pb2.DrainRequest, caller: Caller) -> admin_service_pb2.DrainResponse:
        """That replica may have to ask another one."""
        return await self._lookups(caller).ask_each_once(
            lambda channel: AdminServiceStub(channel).Drain, request, timeout_s=caller.left_s(DRAIN_S)
        )

    async def cancel_commands(
        self, request: command_service_pb2.CancelCommandsRequest, caller: Caller
    ) -> command_service_pb2.CancelCommandsResponse:
        """As `cancel_all`, of the caller's own."""
        return await self._ask(
            lambda channel: CommandServiceStub(channel).CancelCommands, request, caller, most_s=CANCEL_ALL_S
        )

    async def require_admin(self, caller: Caller) -> None:
        """Whether the key has the admin scope is the broker's to say: it is asked for something that takes it."""
        request = admin_service_pb2.ListExecutorTokensRequest(page_size=1)
        await self._ask(lambda channel: AdminServiceStub(channel).ListExecutorTokens, request, caller)

    async def no_such_cluster(self, cluster_id: str, caller: Caller) -> OpenlineError:
        """The error for an id that no cluster can have, which a broker would call malformed, with the ids there are."""
        try:
            available = await self.list_cluster_ids(caller)
        except OpenlineError as failure:
            if failure.reason is not Reason.SCOPE_MISSING:
                raise
            available = []
        return OpenlineError(cluster_unknown(cluster_id, available))

    async def check_ids(self, request: command_service_pb2.ExecuteRequest, caller: Caller) -> None:
        """Raises CLUSTER_UNKNOWN or SESSION_UNKNOWN for what cannot be an id, which a broker would call malformed."""
        if not is_cluster_id(request.cluster_id):
            raise await self.no_such_cluster(request.cluster_id, caller)
        if request.session_id:
            await self.check_session_id(request.session_id, caller)

    async def check_session_id(self, session_id: str, caller: Caller) -> None:
        """Raises SESSION_UNKNOWN for what cannot be one."""
        if not is_token(session_id):
            await self.check_key(caller)
            raise OpenlineError(error(Reason.SESSION_UNKNOWN, "no such session"))

    async def check_command_id(self, command_id: str, caller: Caller) -> None:
        """Raises COMMAND_UNKNOWN for what cannot be one."""
        if not is_command_id(command_id):
            await self.check_key(caller)
            raise OpenlineError(error(Reason.COMMAND_UNKNOWN, "no such command"))

    async def get_command(self, command_id: str, caller: Caller, *, wait_s: float = 0.0) -> command_pb2.Command:
        """A command, running or done; `wait_s` waits for its end, and where the header says less, not as long."""
        left_s = caller.left_s(wait_s + TIMEOUT_S)
        wait_s = min(wait_s, max(left_s - TIMEOUT_S, left_s / 2))
        return await self._lookups(caller).get_command(command_id, wait_s=wait_s, timeout_s=left_s - wait_s)

    async def check_key(self, caller: Caller) -> None:
        """Raises UNAUTHENTICATED, which comes before anything else: by a question that has no other purpose."""
        try:
            # The page behind all ids has nothing on it: for that a broker looks at the key, and not into Redis.
            await self.list_clusters(caller, page_token="~")  # noqa: S106  (of a page)
        except OpenlineError as failure:
            if failure.reason is not Reason.SCOPE_MISSING:
                raise

    async def refuse_wrong_key(self, caller: Caller) -> None:
        """Raises UNAUTHENTICATED. Of a key that nobody knows of in time, what needs no broker is said all the same."""
        try:
            await self.check_key(caller)
        except OpenlineError as failure:
            if failure.reason is Reason.UNAUTHENTICATED:
                raise

    async def _ask(
        self,
        method: Callable[[grpc.aio.Channel], grpc.aio.UnaryUnaryMultiCallable[Q, A]],
        request: Q,
        caller: Caller,
        *,
        most_s: float = TIMEOUT_S,
    ) -> A:
        return await self._lookups(caller).ask(method, request, timeout_s=caller.left_s(most_s))

    def _lookups(self, caller: Caller) -> Lookups:
        exchange = caller.exchange
        return Lookups(
            self._pipes,
            api_key=caller.api_key,
            correlation_id=exchange.given_correlation_id,
            traceparent=exchange.traceparent,
        )
