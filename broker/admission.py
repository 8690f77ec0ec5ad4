"""Which commands are dispatched: those that their caller's quota allows, counted until they end. What is refused."""

import time

from broker.audit import Audit
from broker.core.command import Ask, Command
from broker.core.credentials import Caller
from broker.core.quotas import Admitted, Quotas, QuotaState
from broker.dispatcher import Dispatcher
from openline.reasons import Reason, reason_of
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ExecuteRequest

# Ends of commands that never were more than a request: the caller is not charged for them.
_NOT_CHARGED = frozenset({Reason.CLUSTER_OFFLINE, Reason.CLUSTER_BUSY})


class Admission:
    """In front of the dispatcher, for what callers ask of this replica; what is forwarded was counted at its origin."""

    def __init__(self, dispatcher: Dispatcher, quotas: Quotas, audit: Audit) -> None:
        self._dispatcher = dispatcher
        self._quotas = quotas
        self._audit = audit

    def dispatch(self, ask: Ask) -> Command:
        """As `Dispatcher.dispatch`, and raises QUOTA_EXCEEDED as well. What is known here already is not counted."""
        quota = None if ask.origin else self._quotas.applying(ask.quota)
        if quota is None or self._dispatcher.find(ask.command_id) is not None:
            return self._dispatcher.dispatch(ask)
        admitted = self._quotas.admit(ask.counted_as, quota, again=ask.attach, now=time.time())
        try:
            command = self._dispatcher.dispatch(ask)
        except BaseException:
            admitted.give_back()
            raise
        self._dispatcher.audience.attach(command, lambda done: _ended(admitted, done))
        return command

    def refused(self, request: ExecuteRequest, caller: Caller | None, error: command_pb2.Error) -> None:
        """A caller, who may not be known, is told that its request does not become a command."""
        self._dispatcher.tally.refused(reason_of(error), is_agent_call=bool(request.correlation_id))
        if caller is not None:  # else whoever has no key could write the trail full
            self._audit.refused(request, caller, error)

    def states(self, ask: Ask) -> list[QuotaState]:
        """What is left to the caller now; empty when no quota applies."""
        quota = None if ask.origin else self._quotas.applying(ask.quota)
        return [] if quota is None else self._quotas.states(ask.counted_as, quota, now=time.time())


def _ended(admitted: Admitted, command: Command) -> None:
    result = command.result
    if result is not None and result.HasField("error") and reason_of(result.error) in _NOT_CHARGED:
        admitted.give_back()
    else:
        admitted.end()
