"""What a caller asks for, from the key to the answer: checks, session, placing, and what to say of an absent cluster.

The usual command is admitted and sent without waiting for anything. Only a session that is not fresh in memory and a
cluster that is not connected here cost a look into Redis, and a task.
"""

import asyncio
import difflib
from collections.abc import Callable, Coroutine
from time import monotonic

from broker.core.checks import check_execute
from broker.core.command import Ask, Command
from broker.core.credentials import Credentials
from broker.core.ledger import ClusterAbsent
from broker.dispatcher import Dispatcher
from broker.store.store import Store
from openline import errors
from openline.ids import is_cluster_id
from openline.reasons import Reason
from openline.v1 import command_pb2, command_service_pb2

OFFLINE_RETRY_AFTER_S = 5.0

Answer = command_service_pb2.ExecuteResponse | command_pb2.Error


class Execution:
    """One Execute on its way. Answers once, unless it was abandoned before."""

    __slots__ = ("_answer", "_cancel_on_disconnect", "_dispatcher", "command")

    def __init__(self, dispatcher: Dispatcher, answer: Callable[[Answer], None], *, cancel_on_disconnect: bool) -> None:
        self._dispatcher = dispatcher
        self._answer: Callable[[Answer], None] | None = answer
        self._cancel_on_disconnect = cancel_on_disconnect
        self.command: Command | None = None

    @property
    def abandoned(self) -> bool:
        return self._answer is None

    def answer(self, answer: Answer) -> None:
        """Tells the caller, once."""
        tell, self._answer = self._answer, None
        if tell is not None:
            tell(answer)

    def abandon(self) -> None:
        """The caller is gone: the command runs on, unless it was to be cancelled then."""
        self._answer = None
        if self.command is not None:
            self._dispatcher.leave(self.command)
            if self._cancel_on_disconnect:
                self._dispatcher.cancel(self.command, why="the caller is gone")


class Executions:
    """Starts executions; `run` owns the tasks of those that have to wait for Redis."""

    def __init__(
        self, dispatcher: Dispatcher, store: Store, credentials: Credentials, *, max_output_bytes: int
    ) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._credentials = credentials
        self._max_output_bytes = max_output_bytes
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(
        self, request: command_service_pb2.ExecuteRequest, key: str | None, answer: Callable[[Answer], None]
    ) -> Execution:
        """Begins to execute; `answer` is called once with the result or the reason why there is none.

        It may be called before this returns.
        """
        execution = Execution(self._dispatcher, answer, cancel_on_disconnect=request.cancel_on_disconnect)
        try:
            caller = self._credentials.caller(key)
            caller.require("execute")
            ask = check_execute(request, caller, max_output_bytes=self._max_output_bytes)
            self._check_built(request)
            if ask.cluster_id not in self._credentials.clusters:
                raise errors.OpenlineError(self.unknown(ask.cluster_id))
            if ask.session_id and not self._in_believed_session(ask):
                self._spawn(self._in_session(ask, execution))
            else:
                self._dispatch(ask, execution)
        except errors.OpenlineError as refusal:
            execution.answer(refusal.error)
        return execution

    async def close(self) -> None:
        """Ends the executions that still wait for Redis."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def unknown(self, cluster_id: str) -> command_pb2.Error:
        """The error for a cluster that does not exist for this caller, with those that do."""
        available = sorted(self._credentials.clusters)
        # One that could not be an id is near to nothing, and may be megabytes.
        near = difflib.get_close_matches(cluster_id, available, n=3) if is_cluster_id(cluster_id) else []
        cluster_id = errors.short(cluster_id)
        return errors.error(
            Reason.CLUSTER_UNKNOWN,
            f"no cluster {cluster_id!r}" + (f"; did you mean {', '.join(near)}?" if near else ""),
            metadata={"cluster_id": cluster_id, "available": ",".join(available[:100]), "near": ",".join(near)},
        )

    def _dispatch(self, ask: Ask, execution: Execution) -> None:
        try:
            execution.command = self._dispatcher.dispatch(
                ask, lambda command: execution.answer(self._response(command))
            )
        except ClusterAbsent:
            self._spawn(self._say_offline(ask, execution))

    def _response(self, command: Command) -> command_service_pb2.ExecuteResponse:
        return command_service_pb2.ExecuteResponse(result=command.result, degraded=self._store.degraded)

    def _check_built(self, request: command_service_pb2.ExecuteRequest) -> None:
        """Refuses what the contract has and this version has not, rather than ignore it."""
        for field in ("idempotency_key", "wait_for_cluster_s"):
            if getattr(request, field):
                raise errors.OpenlineError(errors.error(Reason.NOT_BUILT, f"{field} is not built yet"))

    # What has to wait for Redis

    def _in_believed_session(self, ask: Ask) -> bool:
        """Whether the session was found a moment ago; then it is used. Raises as `_in_session` answers."""
        session = self._store.sessions.believed(ask.session_id, now=monotonic())
        if session is None:
            return False
        _check_session(ask, owner=session.owner, cluster_id=session.cluster_id)
        self._store.sessions.use(session, now=monotonic(), found=False)
        return True

    async def _in_session(self, ask: Ask, execution: Execution) -> None:
        try:
            session = await self._store.sessions.get(ask.session_id)
            if session is None:
                raise errors.OpenlineError(errors.error(Reason.SESSION_UNKNOWN, "Session not found"))
            _check_session(ask, owner=session.owner, cluster_id=session.cluster_id)
            if execution.abandoned:
                return
            self._store.sessions.use(session, now=monotonic(), found=True)
            self._dispatch(ask, execution)
        except errors.OpenlineError as refusal:
            execution.answer(refusal.error)

    async def _say_offline(self, ask: Ask, execution: Execution) -> None:
        metadata = {"cluster_id": ask.cluster_id}
        message = f"no executor of cluster {ask.cluster_id!r} is connected"
        try:
            [cluster] = await self._store.clusters.get([ask.cluster_id])
            if cluster.HasField("last_seen"):
                metadata["last_seen"] = cluster.last_seen.ToJsonString()
                message += f"; last seen {metadata['last_seen']}"
        except errors.OpenlineError:
            message += "; since when is not known, Redis is out of reach"
        offline = errors.error(Reason.CLUSTER_OFFLINE, message, retry_after_s=OFFLINE_RETRY_AFTER_S, metadata=metadata)
        execution.answer(offline)

    def _spawn(self, waiting: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(waiting)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _check_session(ask: Ask, *, owner: str, cluster_id: str) -> None:
    """Raises unless the session is this caller's and for this cluster."""
    if owner != ask.owner:
        raise errors.OpenlineError(errors.error(Reason.SESSION_UNKNOWN, "Session not found"))
    if cluster_id != ask.cluster_id:
        raise errors.OpenlineError(errors.error(Reason.SESSION_MISMATCH, "Session cluster mismatch"))
