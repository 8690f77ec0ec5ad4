"""What this replica shows of itself: what it has counted, what runs and waits here, how loaded its executors are.

All of it is in memory and read in one step; commands and connections are gone through once.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from time import monotonic

from broker.core.command import Ask, Command
from broker.core.connections import Connections
from broker.core.ledger import Ledger
from broker.core.life import State
from broker.core.patterns import Patterns
from broker.dispatcher import Dispatcher
from broker.ended import Ended
from broker.presence import Presence
from broker.records import shorten
from broker.store.behind import WriteBehind
from openline import __version__
from openline.tally import Histogram
from openline.v1 import cluster_service_pb2, command_pb2, overview_pb2

# Of one replica, and of all together.
MOST_COMMANDS = 200
MOST_ENDED = 100
MAX_ARGV_CHARACTERS = 400
# What the field holds. The count is of what executors say, each within bounds, and has none.
MAX_UINT64 = (1 << 64) - 1

Sees = Callable[[str], bool]
ConnectedExecutor = cluster_service_pb2.ConnectedExecutor


class OwnOverview:
    def __init__(
        self, ledger: Ledger, dispatcher: Dispatcher, presence: Presence, behind: WriteBehind, lag: Histogram
    ) -> None:
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._presence = presence
        self._behind = behind
        self._lag = lag

    @property
    def connections(self) -> Connections:
        return self._ledger.connections

    def read(self, within: Patterns) -> overview_pb2.Overview:
        """Of clusters that these patterns see: an overview with this replica alone, and without clusters."""
        # A pattern is held against a cluster's name once, however many commands it has.
        sees = within.sees if within.is_every else cache(within.sees)
        now = monotonic()
        overview = overview_pb2.Overview(is_whole=within.is_every)
        replica = overview.replicas.add(reachable=True, version=__version__)
        replica.replica.CopyFrom(self._presence.own_record(executors=sum(map(sees, self._clusters()))))
        self._read_commands(overview, replica, sees, now)
        replica.loads.extend(self._loads(sees, now))
        if within.is_every:
            self._read_figures(replica.figures)
        ended = (each for each in self._dispatcher.ended.newest() if sees(each.ask.cluster_id))
        overview.ended.extend(
            _ended(each, self._presence.replica_id, now) for each in itertools.islice(ended, MOST_ENDED)
        )
        return overview

    def executors(self, cluster_id: str) -> Iterator[ConnectedExecutor]:
        """The cluster's executors that are connected here, without what they can do."""
        for connection in self._ledger.connections.of_cluster(cluster_id):
            yield ConnectedExecutor(
                executor_id=connection.executor_id,
                replica_id=self._presence.replica_id,
                connected_at=connection.connected_at,
                versions=connection.versions,
                max_concurrency=connection.max_concurrency,
                running=len(connection.commands),
                moving=connection.moving,
            )

    def _clusters(self) -> Iterator[str]:
        """Of each connection."""
        return (connection.cluster_id for connection in self._ledger.connections)

    def _read_commands(
        self, overview: overview_pb2.Overview, replica: overview_pb2.ReplicaOverview, sees: Sees, now: float
    ) -> None:
        states: Counter[State] = Counter()
        # In the order in which they came: the first ones have been here for the longest time.
        for command in self._ledger.commands.values():
            if command.state is not State.DONE and sees(command.ask.cluster_id):
                states[command.state] += 1
                if len(overview.commands) < MOST_COMMANDS:
                    overview.commands.append(_command(command, self._presence.replica_id, now))
        overview.more_commands = states.total() - len(overview.commands)
        replica.in_flight.extend(
            overview_pb2.StateCount(state=state.value, commands=states[state]) for state in State if states[state]
        )

    def _loads(self, sees: Sees, now: float) -> Iterator[overview_pb2.ClusterLoad]:
        active = {name: left_s for name, left_s in self._dispatcher.activity.active(now=now) if sees(name)}
        running: dict[str, list[overview_pb2.ExecutorLoad]] = {}
        for connection in self._ledger.connections:
            if connection.commands and sees(connection.cluster_id):
                load = overview_pb2.ExecutorLoad(executor_id=connection.executor_id, running=len(connection.commands))
                running.setdefault(connection.cluster_id, []).append(load)
        for cluster_id in active.keys() | running.keys():
            yield overview_pb2.ClusterLoad(
                cluster_id=cluster_id,
                active_for_s=active.get(cluster_id, 0.0),
                executors=running.get(cluster_id, ()),
            )

    def _read_figures(self, figures: overview_pb2.Figures) -> None:
        tally = self._dispatcher.tally
        figures.ends.extend(
            overview_pb2.EndCount(outcome=outcome, reason=reason, agent_call=is_agent_call, count=count)
            for (outcome, reason, is_agent_call), count in tally.ended.items()
            if count
        )
        figures.total.CopyFrom(_durations(*tally.durations.values()))
        figures.stages.extend(
            overview_pb2.StageDurations(stage=stage, durations=_durations(histogram))
            for stage, histogram in tally.stages.items()
        )
        figures.loop_lag.CopyFrom(_durations(self._lag))
        figures.forwarded = tally.forwarded
        figures.output_bytes = min(tally.output_bytes, MAX_UINT64)
        figures.redis_degraded = self._behind.degraded
        figures.redis_writes_waiting = self._behind.waiting


def _durations(*histograms: Histogram) -> overview_pb2.Durations:
    """Of histograms with the same bounds, together."""
    return overview_pb2.Durations(
        bounds_s=histograms[0].bounds,
        counts=[sum(counts) for counts in zip(*(each.counts for each in histograms), strict=True)],
        sum_s=sum(each.total for each in histograms),
    )


def _command(command: Command, replica_id: str, now: float) -> overview_pb2.CommandOverview:
    shown = _outline(command.ask, command.state)
    shown.created_at.CopyFrom(command.asked_at)
    return overview_pb2.CommandOverview(
        command=shown,
        elapsed_s=now - command.created_at,
        running_s=now - command.written_at if command.written_at else 0.0,
        executor_id=command.executor_id,
        replica_id=replica_id,
        cancelling=command.cancel_why is not None,
    )


def _ended(ended: Ended, replica_id: str, now: float) -> overview_pb2.EndedCommand:
    shown = _outline(ended.ask, State.DONE)
    shown.created_at.CopyFrom(ended.asked_at)
    return overview_pb2.EndedCommand(
        command=shown,
        outcome=ended.outcome,
        exit_code=ended.exit_code,
        reason=ended.reason,
        total_s=ended.total_s,
        ended_s_ago=now - ended.ended_at,
        executor_id=ended.executor_id,
        replica_id=ended.replica_id or replica_id,
    )


def _outline(ask: Ask, state: State) -> command_pb2.Command:
    return command_pb2.Command(
        command_id=ask.command_id,
        cluster_id=ask.cluster_id,
        session_id=ask.session_id,
        correlation_id=ask.correlation_id,
        state=state.value,
        argv=shorten(ask.argv, room=MAX_ARGV_CHARACTERS),
        owner=ask.owner,
        live=ask.live,
    )
