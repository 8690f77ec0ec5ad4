"""Which commands are dispatched: those that their caller's quota allows, counted until they end. What is refused."""

import time
from collections.abc import Sequence
from time import monotonic

from broker.audit import Audit
from broker.core.command import Ask, Command
from broker.core.credentials import Caller
from broker.core.quotas import Admitted, Quota, Quotas, QuotaState
from broker.dispatcher import Dispatcher
from openline import errors
from openline.reasons import Reason, reason_of
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ExecuteRequest

# Ends of commands that never were more than a request: the caller is not charged for them.
_NOT_CHARGED = frozenset({Reason.CLUSTER_OFFLINE, Reason.CLUSTER_BUSY})


class Admission:
    """In front of the dispatcher, for what callers ask of this replica; what is forwarded was counted at its origin."""

    def __init__(self, dispatcher: Dispatcher, quotas: Quotas, conversations: Quotas, audit: Audit) -> None:
        self._dispatcher = dispatcher
        self._quotas = quotas
        self._conversations = conversations
        self._audit = audit

    def dispatch(self, ask: Ask) -> Command:
        """As `Dispatcher.dispatch`, and raises QUOTA_EXCEEDED as well. What is known here already is not counted."""
        limits = self._limits(ask)
        if not limits or self._dispatcher.find(ask.command_id) is not None:
            return self._dispatcher.dispatch(ask)
        admitted: list[Admitted] = []
        try:
            # The owner's first: conversations that are made up take no room when that one is used up.
            for quotas, who, quota in limits:
                admitted.append(quotas.admit(who, quota, of=ask.owner, again=ask.attach, now=time.time()))
            command = self._dispatcher.dispatch(ask)
        except BaseException:
            for each in admitted:
                each.give_back()
            raise
        self._dispatcher.audience.attach(command, lambda done: _ended(admitted, done))
        return command

    def refused(
        self, request: ExecuteRequest, caller: Caller | None, asked_at: float, error: command_pb2.Error
    ) -> None:
        """A caller, who may not be known, is told that its request does not become a command."""
        self._dispatcher.tally.refused(reason_of(error), is_agent_call=bool(request.correlation_id))
        if caller is not None:  # else whoever has no key could write the trail full
            self._audit.refused(request, caller, error)
            asker = caller.owner, request.session_id or request.correlation_id or caller.digest
            call = asker, request.cluster_id, tuple(request.argv)
            if hint := self._dispatcher.repetitions.refused(call, error, asked_at=asked_at, now=monotonic()):
                error.metadata[errors.HINT] = hint

    def states(self, ask: Ask) -> list[QuotaState]:
        """What is left to the caller now; empty when no quota applies."""
        now = time.time()
        return [
            state
            for quotas, who, quota in self._limits(ask)
            for state in quotas.states(who, quota, of=ask.owner, now=now)
        ]

    def _limits(self, ask: Ask) -> list[tuple[Quotas, str, Quota]]:
        """What the command is counted in, and as whose."""
        if ask.origin:
            return []
        limits: list[tuple[Quotas, str, Quota]] = []
        if (quota := self._quotas.applying(ask.quota)) is not None:
            limits.append((self._quotas, ask.counted_as, quota))
        owner, conversation = ask.share
        if conversation and (quota := self._conversations.applying(None)) is not None:
            # No owner has a colon in its name, and no key's is a conversation.
            kind = "session" if ask.session_id else "correlation"
            limits.append((self._conversations, f"{kind}:{owner}:{conversation}", quota))
        return limits


def _ended(admitted: Sequence[Admitted], command: Command) -> None:
    result = command.result
    is_free = result is not None and result.HasField("error") and reason_of(result.error) in _NOT_CHARGED
    for each in admitted:
        if is_free:
            each.give_back()
        else:
            each.end()
