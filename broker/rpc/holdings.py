"""What executors bring along: commands that they hold, as far as a replica has sent them, as the seal on each tells."""

from time import monotonic

import structlog

from broker.core.checks import ask_of
from broker.core.ledger import Held
from broker.core.proof import Proof
from broker.seldom import Seldom
from openline import errors
from openline.ids import is_command_id
from openline.reasons import NO, Reason
from openline.v1 import executor_service_pb2

# No command writes so many frames.
MAX_SEQ = 1 << 48
# A replica that began without Redis cannot tell a seal. For so long executors that hold something are to try others, or
# to come again: what is not known to be theirs is dropped, and some of it may be in no other place.
UNSURE_S = 30.0

log = structlog.get_logger()


class Holdings:
    """Of all executors. Made when the replica begins."""

    def __init__(self, proof: Proof) -> None:
        self._proof = proof
        self._sure_at = monotonic() + UNSURE_S
        self._sent_away = Seldom()

    def check(self, hello: executor_service_pb2.Hello) -> None:
        """Of one that has shown a credential. Raises BROKER_UNAVAILABLE while some of what it holds cannot be told."""
        if self._proof.is_common or monotonic() > self._sure_at or len(self.read(hello)) == len(hello.held):
            return
        why = "this replica has not reached Redis yet, and cannot tell what the executor holds"
        if count := self._sent_away.count():
            log.warning("executors.sent_away", hellos=count, last_from=hello.cluster_id, why=why)
        raise errors.OpenlineError(errors.error(Reason.BROKER_UNAVAILABLE, why, executed=NO))

    def read(self, hello: executor_service_pb2.Hello) -> dict[str, Held]:
        """By command id."""
        return {
            each.execute.command_id: Held(ask_of(each.execute, hello.cluster_id), each.first_seq)
            for each in hello.held
            if is_command_id(each.execute.command_id)
            and each.first_seq <= MAX_SEQ
            and self._proof.is_sealed(each.execute, cluster_id=hello.cluster_id, executor_id=hello.executor_id)
        }
