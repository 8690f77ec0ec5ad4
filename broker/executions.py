"""What a caller asks for, from the key to the answer: checks, idempotency, session, placing.

The usual command is admitted and sent without waiting for anything. An idempotency key, a session that is not fresh in
memory and a cluster that is not connected cost a look into Redis, and a task.
"""

import time
from collections.abc import Callable
from functools import partial
from time import monotonic

from broker.admission import Admission
from broker.core.access import rule
from broker.core.account import offline
from broker.core.checks import ALONE, Sharing, check_execute
from broker.core.command import Ask, Command
from broker.core.credentials import Caller, Credentials
from broker.core.ledger import ClusterAbsent
from broker.dispatcher import Dispatcher
from broker.earlier import Earlier
from broker.execution import Answer, Execution, Source
from broker.registry import Registry
from broker.sessions import UsedSessions
from broker.store.store import Store
from broker.waiting import Waiting
from openline import errors
from openline.reasons import NO, Reason
from openline.v1 import command_pb2, command_service_pb2

# Of all ways to execute.
RULE = rule("CommandService.Execute")

Request = command_service_pb2.ExecuteRequest
Response = command_service_pb2.ExecuteResponse
Forwarded = command_service_pb2.Forwarded


class Executions:
    """Starts executions. Some have to be `waiting` for Redis, until `close`."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: Store,
        credentials: Credentials,
        registry: Registry,
        earlier: Earlier,
        admission: Admission,
        *,
        max_output_bytes: int,
        sharing: Sharing,
    ) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._sessions = UsedSessions(store.sessions)
        self._credentials = credentials
        self._registry = registry
        self._earlier = earlier
        self._admission = admission
        self._max_output_bytes = max_output_bytes
        self._sharing = sharing
        self.waiting = Waiting(dispatcher.expected)

    def start(
        self,
        request: Request,
        key: str | None,
        answer: Callable[[Answer], None],
        *,
        forwarded: Forwarded | None = None,
        begun: Callable[[Source], None] | None = None,
    ) -> Execution:
        """Begins to execute; `answer` is called once with the result or the reason why there is none.

        It may be called before this returns. With `begun` the output is wanted as it comes. What is `forwarded` was
        checked by the replica that sends it.
        """
        execution = Execution(self._dispatcher, answer, begun=begun, cancel_on_disconnect=request.cancel_on_disconnect)
        try:
            if forwarded is not None:
                self._dispatch(self._forwarded(request, forwarded, live=begun is not None), execution)
                return execution
            asked_at = monotonic()
            execution.on_refusal = partial(self._admission.refused, request, None, asked_at)
            caller = self._credentials.caller(key, clock_s=time.time())
            execution.caller = caller
            execution.on_refusal = partial(self._admission.refused, request, caller, asked_at)
            RULE.check(caller)
            self._registry.require(request.cluster_id, caller)
            ask = self._check(request, caller, live=begun is not None, sharing=self._sharing)
            if request.idempotency_key:
                self.waiting.add(partial(self._claim, ask, request.idempotency_key), execution, ask)
            elif ask.attach or (request.command_id and self._dispatcher.may_be_done(ask.command_id)):
                self.waiting.add(partial(self._find_or_go_on, ask), execution, ask)
            elif ask.session_id and not self._sessions.use_believed(ask):
                self.waiting.add(partial(self._in_session, ask), execution, ask, is_new=True)
            else:
                self._dispatch(ask, execution)
        except errors.OpenlineError as refusal:
            execution.answer(refusal.error)
        return execution

    @property
    def degraded(self) -> bool:
        """Results are kept in memory until Redis takes them."""
        return self._store.degraded

    async def close(self) -> None:
        """Ends the executions that still wait for Redis."""
        await self.waiting.close()

    def _dispatch(self, ask: Ask, execution: Execution) -> None:
        """Raises OpenlineError when there is no room, or its caller's quota is used up."""
        try:
            command = self._admission.dispatch(ask)
        except ClusterAbsent as absent:
            execution.free_key()
            if ask.origin:
                execution.answer(_not_here(absent))
            else:
                self._say_offline(ask.cluster_id, execution)
        else:
            self._follow(command, execution)

    def _forwarded(self, request: Request, forwarded: Forwarded, *, live: bool) -> Ask:
        """What another replica asks for its caller. Raises INVALID_COMMAND."""
        caller = Caller(owner=forwarded.identity.owner, scopes=tuple(forwarded.identity.scopes))
        origin = forwarded.origin_replica_id or "?"
        # As it is usual there; and one of a version before says nothing.
        sharing = Sharing(forwarded.share_s, forwarded.cache_s) if self._sharing.share_s else ALONE
        return self._check(request, caller, live=live, origin=origin, sharing=sharing)

    def _check(self, request: Request, caller: Caller, *, live: bool, sharing: Sharing, origin: str = "") -> Ask:
        most = self._max_output_bytes
        return check_execute(request, caller, max_output_bytes=most, live=live, origin=origin, sharing=sharing)

    def _follow(self, command: Command, execution: Execution) -> None:
        execution.follow(command, lambda done: self._conclude(done, execution))

    def _conclude(self, command: Command, execution: Execution) -> None:
        """The command has its result. Raises nothing: it is the dispatcher who calls."""
        error = None if command.result is None else command.result.error
        if error is not None and error.executed == NO:
            execution.free_key()
        if execution.live:
            return
        if error is not None and error.reason == Reason.CLUSTER_OFFLINE and not command.ask.origin:
            self._say_offline(command.ask.cluster_id, execution)
        else:
            self._answer(command.ask, command.result, execution, is_degraded=command.is_degraded)

    def _answer(
        self, ask: Ask, result: command_pb2.CommandResult | None, execution: Execution, *, is_degraded: bool = False
    ) -> None:
        degraded, quotas = self.degraded or is_degraded, self._admission.states(ask)
        if execution.is_late and result is not None:
            result = _by_itself(result)
        execution.answer(Response(result=result, replayed=execution.replayed, degraded=degraded, quotas=quotas))

    def _say_offline(self, cluster_id: str, execution: Execution) -> None:
        """Answers CLUSTER_OFFLINE; since when is left out if too many wait for Redis already."""
        try:
            self.waiting.add(partial(self._look_and_say_offline, cluster_id), execution)
        except errors.OpenlineError:
            execution.answer(offline(cluster_id))

    # What has to wait for Redis

    async def _claim(self, ask: Ask, key: str, execution: Execution) -> None:
        earlier = await self._earlier.by_key(ask, key, execution)
        if earlier is None:
            await self._find_or_go_on(ask, execution)
        else:
            execution.replayed = True
            execution.is_late = not isinstance(earlier, Command) or earlier.result is not None
            self._answer_with(ask, earlier, execution)

    async def _find_or_go_on(self, ask: Ask, execution: Execution) -> None:
        if (earlier := await self._earlier.by_id(ask)) is not None:
            self._answer_with(ask, earlier, execution)
        elif ask.session_id and not self._sessions.use_believed(ask):
            await self._in_session(ask, execution)
        elif execution.over:
            execution.free_key()
        else:
            self._dispatch(ask, execution)

    def _answer_with(self, ask: Ask, earlier: Command | command_pb2.Command, execution: Execution) -> None:
        if isinstance(earlier, Command):
            self._follow(earlier, execution)
            return
        execution.begin(earlier)
        if not execution.live:
            self._answer(ask, earlier.result, execution)

    async def _in_session(self, ask: Ask, execution: Execution) -> None:
        session = await self._sessions.find(ask)
        if execution.over:
            execution.free_key()
            return
        self._sessions.use(session)
        self._dispatch(ask, execution)

    async def _look_and_say_offline(self, cluster_id: str, execution: Execution) -> None:
        execution.answer(await self._registry.offline(cluster_id))


def _by_itself(result: command_pb2.CommandResult) -> command_pb2.CommandResult:
    """Without what was cancelled with it: that was before its caller asked, and to ask again is allowed."""
    if errors.CANCELLED_WITH not in result.error.metadata:
        return result
    alone = command_pb2.CommandResult()
    alone.CopyFrom(result)
    del alone.error.metadata[errors.CANCELLED_WITH]
    return alone


def _not_here(absent: ClusterAbsent) -> command_pb2.Error:
    """For another replica, which may know where the cluster's executors are now."""
    error = offline(absent.cluster_id)
    error.metadata["moving"] = "yes" if absent.is_moving else "no"
    return error
