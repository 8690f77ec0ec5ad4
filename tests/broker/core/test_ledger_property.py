"""Whatever happens in whatever order: nothing raises, every command ends once, nothing is left."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.actions import Conclude
from broker.core.ledger import ClusterAbsent
from broker.core.life import State
from openline.v1 import command_pb2

# Few names, so that they collide: two clusters, two executors each, two instance ids shared by all of them.
CLUSTERS, EXECUTORS, INSTANCES = ("prod", "staging"), ("exec-1", "exec-2"), ("i-1", "i-2")
SLOT = st.integers(0, 7)  # which of the commands, or of the connections, so far

STEP = st.one_of(
    st.tuples(st.just("submit"), st.sampled_from(CLUSTERS), st.sampled_from([1.0, 5.0, 60.0])),
    st.tuples(
        st.just("connect"),
        st.tuples(st.sampled_from(CLUSTERS), st.sampled_from(EXECUTORS), st.sampled_from(INSTANCES)),
        st.tuples(st.sets(SLOT, max_size=3), st.sets(SLOT, max_size=3)),
    ),
    st.tuples(st.just("disconnect"), SLOT, st.none()),
    st.tuples(st.sampled_from(["accepted", "started", "rejected", "finished", "output", "outcome"]), SLOT, SLOT),
    st.tuples(st.just("cancel"), SLOT, st.none()),
    st.tuples(st.just("settle"), SLOT, st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 6.0, 11.0]), st.none()),
)


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(STEP, max_size=60))
def test_the_ledger_holds(
    new_desk: Callable[[], Any], new_connection: Callable[..., Any], frames: Any, steps: list[tuple[str, Any, Any]]
) -> None:
    """No sequence of events raises; after enough time each command has ended exactly once, and every table is empty."""
    desk = new_desk()
    now = 0.0
    commands: list[Any] = []
    connections: list[Any] = []  # None for those that were disconnected
    settled: set[str] = set()

    def frame(kind: str, name: str) -> Any:
        match kind:
            case "output":
                return frames.output(name, 0, b"x")
            case "outcome":
                return frames.finished(name, outcome=99)
            case _:
                return getattr(frames, kind)(name)

    def settle(command: Any, stored: bool) -> None:
        if command in desk.concluded and command.command_id not in settled:
            settled.add(command.command_id)
            desk.settle(command, stored=stored)

    for step, what, more in steps:
        match step:
            case "submit":
                try:
                    commands.append(desk.submit(what, now=now, timeout_s=more))
                except ClusterAbsent:
                    assert desk.ledger.connections.of_cluster(what) == []
            case "connect":
                cluster_id, executor_id, instance_id = what
                connection = new_connection(cluster_id, executor_id=executor_id, instance_id=instance_id)
                in_flight, unacked = ({commands[n].command_id for n in some if n < len(commands)} for some in more)
                desk.connect(connection, in_flight=in_flight, unacked=unacked, now=now)
                assert set(desk.verdicts) == in_flight | unacked
                connections.append(connection)
            case "disconnect":
                if what < len(connections) and connections[what] is not None:
                    desk.disconnect(connections[what], now=now)
                    connections[what] = None
            case "cancel":
                if what < len(commands):
                    desk.cancel(commands[what])
            case "settle":
                if what < len(commands):
                    settle(commands[what], more)
            case "wait":
                now += what
                desk.tick(now)
            case kind:
                if what < len(connections) and connections[what] is not None:
                    name = commands[more].command_id if more < len(commands) else "unknown"
                    for action in desk.say(connections[what], frame(kind, name), now=now):
                        # A frame moves its own command, and no other.
                        assert not isinstance(action, Conclude) or action.command.command_id == name
        due = desk.ledger.next_due()
        assert due is None or due > now or step != "wait"

    desk.tick(now + 1000.0)
    for command in commands:
        settle(command, True)
    assert Counter(command.command_id for command in desk.concluded) == Counter(c.command_id for c in commands)
    for command in commands:
        assert command.state is State.DONE
        assert command.result is not None
        assert command.result.outcome in command_pb2.Outcome.values()
        assert command.result.HasField("error") == (command.result.outcome != command_pb2.OUTCOME_EXITED)
    desk.assert_empty()
