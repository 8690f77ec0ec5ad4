"""Two processes with one executor id: each takes the other's place, or is refused it, and comes again.

No single line of the log shows that, so one says it for both.
"""

from time import monotonic

import structlog

from broker.core.connections import Connection, Connections
from broker.core.directory import Directory

WINDOW_S = 60.0
# Of a restart one is left behind, or two.
TELL_AT = 5
# At some 200 bytes each.
MAX_EXECUTORS = 1000

log = structlog.get_logger()


class Rivals:
    """Of one replica."""

    def __init__(self, connections: Connections, directory: Directory) -> None:
        self._connections = connections
        self._directory = directory
        # By cluster and executor id: since when it is counted, and how often it happened. The oldest first.
        self._windows: dict[tuple[str, str], tuple[float, int]] = {}

    def met(self, connection: Connection) -> None:
        """A connection has ended, or was refused. If another process has its place by now, that is counted."""
        executor = connection.cluster_id, connection.executor_id
        other = self._instance_there(connection)
        if other in (None, connection.instance_id):
            return
        now = monotonic()
        began, count = self._windows.get(executor, (now, 0))
        if now - began >= WINDOW_S:
            del self._windows[executor]
            began, count = now, 0
        self._windows[executor] = began, count + 1
        if len(self._windows) > MAX_EXECUTORS:
            del self._windows[next(iter(self._windows))]
        if count + 1 == TELL_AT:
            log.warning(
                "executor.id_shared",
                cluster_id=connection.cluster_id,
                executor_id=connection.executor_id,
                instance_ids=[connection.instance_id, other],
                why="two processes have this id and take each other's place: each needs an --executor-id of its own",
            )

    def _instance_there(self, connection: Connection) -> str | None:
        executor = connection.cluster_id, connection.executor_id
        if (current := self._connections.of_executor(*executor)) is not None:
            return current.instance_id
        elsewhere = self._directory.elsewhere(connection.instance)
        return None if elsewhere is None else elsewhere.executor.instance_id
