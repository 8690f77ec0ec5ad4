"""Whether there is room for an executor; those for which there is none are in no list, so a line of the log tells."""

from collections import defaultdict

import structlog

from broker.core.connections import Connections
from broker.seldom import Seldom
from openline.errors import OpenlineError

log = structlog.get_logger()


class Crowding:
    """Of one replica."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        # By cluster: none has many executors without a good token.
        self._refusals: defaultdict[str, Seldom] = defaultdict(Seldom)

    def check(self, cluster_id: str, executor_id: str) -> None:
        """Raises as `Connections.check_room`. Of an executor that has shown a credential."""
        try:
            self._connections.check_room(cluster_id, executor_id)
        except OpenlineError as refusal:
            if count := self._refusals[cluster_id].count():
                log.warning(
                    "executors.crowded", cluster_id=cluster_id, hellos=count, last_from=executor_id, why=str(refusal)
                )
            raise
