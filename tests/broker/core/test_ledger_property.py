"""Whatever happens in whatever order: nothing raises, every command ends once, nothing is left."""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.actions import Action, Conclude, Send
from broker.core.ledger import ClusterAbsent
from broker.core.life import State
from broker.core.transcript import MAX_RECENT_BYTES
from openline.limits import COMMAND_CREDIT_BYTES, MAX_FRAME_BYTES
from openline.reasons import NO, Reason
from openline.v1 import command_pb2

# Few names, so that they collide: two clusters, two executors each, two instance ids shared by all of them.
CLUSTERS, EXECUTORS, INSTANCES = ("prod", "staging"), ("exec-1", "exec-2"), ("i-1", "i-2")
SLOT = st.integers(0, 7)  # which of the commands, or of the connections, so far
SIZES = st.sampled_from([0, 1, 60_000, MAX_FRAME_BYTES, MAX_FRAME_BYTES + 1])
FRAMES = ["accepted", "started", "rejected", "finished", "outcome"]

STEP = st.one_of(
    st.tuples(
        st.just("submit"),
        st.sampled_from(CLUSTERS),
        st.fixed_dictionaries(
            {
                "timeout_s": st.sampled_from([1.0, 5.0, 60.0]),
                "wait_for_cluster_s": st.sampled_from([0.0, 0.0, 3.0, 30.0]),
                "owner": st.sampled_from(["alice", "bob"]),
                "correlation_id": st.sampled_from(["", "c-1"]),
                "live": st.booleans(),
                "max_output_bytes": st.sampled_from([1, 100_000]),
            }
        ),
    ),
    st.tuples(
        st.just("connect"),
        st.tuples(
            st.sampled_from(CLUSTERS),
            st.sampled_from(EXECUTORS),
            st.sampled_from(INSTANCES),
            st.sampled_from([1, 1, 4]),
        ),
        st.tuples(st.sets(SLOT, max_size=3), st.sets(SLOT, max_size=3)),
    ),
    st.tuples(st.sampled_from(["disconnect", "drain"]), SLOT, st.none()),
    st.tuples(st.sampled_from(FRAMES), SLOT, SLOT),
    st.tuples(st.sampled_from(["output", "again", "gap"]), SLOT, st.tuples(SLOT, SIZES)),
    st.tuples(st.just("cancel"), SLOT, st.none()),
    st.tuples(st.just("settle"), SLOT, st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 6.0, 11.0]), st.none()),
)


class Watchdog:
    """Looks at every action, and at the whole ledger after every step."""

    def __init__(self, desk: Any) -> None:
        self.desk = desk
        self.ledger = desk.ledger
        # By command: the instances that it was written to.
        self.written: defaultdict[str, set[Any]] = defaultdict(set)

    def look(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send) and action.frame.HasField("execute"):
                name = action.frame.execute.command_id
                command = self.ledger.commands[name]
                self.written[name].add(action.connection.instance)
                # Never a second time once it was accepted, and never to anybody else.
                assert command.state is State.WRITTEN
                assert self.written[name] == {command.instance}
            if isinstance(action, Send) and action.frame.HasField("credit"):
                assert action.frame.credit.bytes > 0

    def check(self) -> None:
        account = self.ledger._account
        waiting = {command.command_id for queue in account.queues.values() for command in queue}
        queued = {name for name, command in self.ledger.commands.items() if command.state is State.QUEUED}
        joined = {
            name: command
            for command in self.ledger.commands.values()
            if command.twin is not None
            for name in command.twin.joined
        }
        # Whoever waits stands in one line, or waits for one that has not ended and is like it.
        assert waiting.isdisjoint(joined)
        assert waiting | joined.keys() == queued
        for name, lead in joined.items():
            command = self.ledger.commands[name]
            assert command.twin.lead is lead
            assert command.twin.key == lead.twin.key
            assert not command.twin.joined
            assert lead.state is not State.DONE
        for cluster_id, queue in account.queues.items():
            # A queue is there only while somebody waits in it, and nobody waits beside a free place.
            assert len(queue) > 0
            assert not any(c.has_room and not c.draining for c in self.ledger.connections.of_cluster(cluster_id))
        held: Counter[str] = Counter()
        for connection in [
            *account.away.values(),
            *(
                one
                for cluster in self.ledger.connections.clusters()
                for one in self.ledger.connections.of_cluster(cluster)
            ),
        ]:
            held.update(connection.commands)
            for name in connection.commands:
                assert self.ledger.commands[name].instance == connection.instance
        # Whoever is not done and not queued is counted on exactly one connection.
        assert held == Counter(
            name for name, command in self.ledger.commands.items() if command.state not in (State.QUEUED, State.DONE)
        )
        for command in self.ledger.commands.values():
            is_for_others = command.twin is not None and bool(command.twin.joined)
            assert command.result is not None or command.state is not State.DONE
            assert command.result is None or command.state is State.DONE or is_for_others or command.cancel_why
            assert command.uncredited_bytes < COMMAND_CREDIT_BYTES // 2
            kept = sum(len(piece.data) for piece in command.transcript.since(0))
            assert kept <= (MAX_RECENT_BYTES if command.ask.live else command.ask.max_output_bytes)


@settings(max_examples=300)
@given(steps=st.lists(STEP, max_size=60), share_s=st.sampled_from([0.0, 5.0]))
def test_the_ledger_holds(
    new_desk: Callable[[], Any],
    new_connection: Callable[..., Any],
    frames: Any,
    steps: list[tuple[str, Any, Any]],
    share_s: float,
) -> None:
    """No sequence of events raises; after enough time each command has ended exactly once, and every table is empty.

    Where answers may be so old, all that is asked for in a cluster is the same.
    """
    same = {"owner": "alice", "live": False, "max_output_bytes": 100_000, "share_s": share_s, "cache_s": share_s}
    desk = new_desk()
    dog = Watchdog(desk)
    now = 0.0
    commands: list[Any] = []
    connections: list[Any] = []  # None for those that were disconnected
    settled: set[str] = set()

    def frame(kind: str, what: Any) -> Any:
        slot, size = what if isinstance(what, tuple) else (what, 0)
        command = commands[slot] if slot < len(commands) else None
        name = "unknown" if command is None else command.command_id
        due = 0 if command is None else command.transcript.next_seq
        match kind:
            case "output" | "again" | "gap":
                seq = {"output": due, "again": max(0, due - 1), "gap": due + 1}[kind]
                return name, frames.output(name, seq, b"x" * size, stderr=bool(seq % 3))
            case "outcome":
                return name, frames.finished(name, outcome=99)
            case _:
                return name, getattr(frames, kind)(name)

    def settle(command: Any, stored: bool) -> None:
        if command in desk.concluded and command.command_id not in settled:
            settled.add(command.command_id)
            dog.look(desk.settle(command, stored=stored))

    for step, what, more in steps:
        match step:
            case "submit":
                try:
                    commands.append(desk.submit(what, now=now, **(more | same if share_s else more)))
                    dog.look(desk.sent)
                except ClusterAbsent:
                    assert more["wait_for_cluster_s"] == 0.0
                    assert all(one.draining for one in desk.ledger.connections.of_cluster(what))
            case "connect":
                cluster_id, executor_id, instance_id, places = what
                connection = new_connection(
                    cluster_id, executor_id=executor_id, instance_id=instance_id, max_concurrency=places
                )
                in_flight, unacked = ({commands[n].command_id for n in some if n < len(commands)} for some in more)
                dog.look(desk.connect(connection, in_flight=in_flight, unacked=unacked, now=now))
                assert set(desk.verdicts) == in_flight | unacked
                connections.append(connection)
            case "disconnect":
                if what < len(connections) and connections[what] is not None:
                    desk.disconnect(connections[what], now=now)
                    dog.look(desk.sent)
                    connections[what] = None
            case "drain":
                if what < len(connections) and connections[what] is not None:
                    connections[what].draining = True
            case "cancel":
                if what < len(commands):
                    dog.look(desk.cancel(commands[what], now=now))
            case "settle":
                if what < len(commands):
                    settle(commands[what], more)
            case "wait":
                now += what
                dog.look(desk.tick(now))
            case kind:
                if what < len(connections) and connections[what] is not None:
                    name, said = frame(kind, more)
                    actions = desk.say(connections[what], said, now=now)
                    dog.look(actions)
                    for action in actions:
                        # A frame ends its own command, and no other but those that wait for it.
                        if isinstance(action, Conclude) and action.command.command_id != name:
                            assert action.command.result.run_by_command_id in (name, "")
                            assert action.command.ask.share_s
        dog.check()
        due = desk.ledger.next_due()
        assert due is None or due > now or step != "wait"

    # Enough for whoever waits for a cluster, for every deadline and for every grace.
    for _ in range(3):
        now += 1000.0
        dog.look(desk.tick(now))
        dog.check()
    for command in commands:
        settle(command, True)
    assert Counter(command.command_id for command in desk.concluded) == Counter(c.command_id for c in commands)
    for command in commands:
        assert command.state is State.DONE
        assert command.result.outcome in command_pb2.Outcome.values()
        assert command.result.HasField("error") == (command.result.outcome != command_pb2.OUTCOME_EXITED)
        # What was never written has surely not run; where the reason is ours, nothing else is said of it.
        if not dog.written[command.result.run_by_command_id or command.command_id]:
            assert command.result.error.executed == NO
        if command.result.error.reason == Reason.CLUSTER_OFFLINE:
            assert not dog.written[command.command_id]
    desk.assert_empty()


@settings(max_examples=100)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["alice", "bob", "carol"]), st.booleans()), min_size=1, max_size=120),
    places=st.integers(1, 4),
)
def test_nobody_is_starved(
    new_desk: Callable[[], Any],
    new_connection: Callable[..., Any],
    frames: Any,
    steps: list[tuple[str, bool]],
    places: int,
) -> None:
    """Whoever waits is served after at most one command of each other caller, however many those ask for."""
    desk = new_desk()
    open_ = new_connection(max_concurrency=places)
    desk.connect(open_)
    passed: Counter[tuple[str, str]] = Counter()  # (who waits, who was served meanwhile)

    def served(actions: list[Action]) -> None:
        for action in actions:
            if not (isinstance(action, Send) and action.frame.HasField("execute")):
                continue
            owner = desk.ledger.commands[action.frame.execute.command_id].ask.owner
            waiting = {command.ask.owner for queue in desk.ledger._account.queues.values() for command in queue}
            for other in waiting - {owner}:
                passed[other, owner] += 1
                assert passed[other, owner] <= 1
            for pair in [pair for pair in passed if pair[0] == owner]:
                del passed[pair]

    for n, (owner, finish) in enumerate(steps):
        desk.submit(owner=owner, correlation_id=f"c-{n}")
        if finish and open_.commands:
            served(desk.say(open_, *frames.ran(min(open_.commands))))
    while open_.commands:
        served(desk.say(open_, *frames.ran(min(open_.commands))))
    desk.settle_all()
    desk.assert_empty()
