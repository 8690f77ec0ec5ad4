"""The core under any order of events: at most one run an id, every accepted command ends, memory is bounded."""

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from executor.actions import Action, Ended, Kill, NotStarted, Send, Spawn
from executor.core import QUEUE_PER_PLACE, Core
from executor.output import Kept
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

IDS = st.sampled_from([f"c{index}" for index in range(12)])
PLACES = 2


class Executor(RuleBasedStateMachine):
    """The core, a broker that asks for anything at any time, and processes that do what they are told."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Core(max_concurrency=PLACES, check=self.check)
        self.now = 0.0
        self.connected = False
        self.processes: set[str] = set()
        self.spawned: list[str] = []
        self.accepted: set[str] = set()
        self.over: set[str] = set()

    def check(self, argv: Sequence[str]) -> command_pb2.Error | None:
        return None

    def do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Send(frame):
                    assert self.connected, "sent without a connection"
                    if frame.HasField("accepted"):
                        self.accepted.add(frame.accepted.command_id)
                    if frame.HasField("finished"):
                        self.over.add(frame.finished.command_id)
                case Spawn(command_id):
                    assert command_id in self.accepted
                    self.spawned.append(command_id)
                    self.processes.add(command_id)
                case Kill(command_id):
                    assert command_id in self.processes

    @rule(action=st.sampled_from(wire.VerdictAction.values()))
    def connect(self, action: "wire.VerdictAction.ValueType") -> None:
        self.disconnect()
        held = self.core.held()
        listed = [*held.in_flight_ids, *held.unacked_ids]
        if action == wire.VERDICT_ACTION_DROP:
            self.over.update(listed)
        if action == wire.VERDICT_ACTION_STORED:
            self.over.update(held.unacked_ids)
        self.connected = True
        verdicts = [wire.Verdict(command_id=command_id, action=action) for command_id in listed]
        self.do(self.core.welcomed(wire.Welcome(verdicts=verdicts), self.now))

    @rule()
    def disconnect(self) -> None:
        self.connected = False
        self.core.disconnected()

    @rule(command_id=IDS, timeout_s=st.sampled_from([0.0, 1.0, 3.0, 100.0]))
    def execute(self, command_id: str, timeout_s: float) -> None:
        self.frame(wire.BrokerFrame(execute=wire.Execute(command_id=command_id, argv=["get"], timeout_s=timeout_s)))

    @rule(command_id=IDS)
    def cancel(self, command_id: str) -> None:
        self.frame(wire.BrokerFrame(cancel=wire.Cancel(command_id=command_id)))

    @rule(command_id=IDS)
    def acknowledge(self, command_id: str) -> None:
        self.frame(wire.BrokerFrame(result_ack=wire.ResultAck(command_id=command_id)))

    def frame(self, frame: wire.BrokerFrame) -> None:
        if self.connected:
            self.do(self.core.received(frame, self.now))

    @rule(command_id=IDS)
    def start(self, command_id: str) -> None:
        if command_id in self.processes:
            self.do(self.core.started(command_id))

    @rule(command_id=IDS, fails=st.booleans())
    def end(self, command_id: str, fails: bool) -> None:
        if command_id in self.processes:
            self.processes.discard(command_id)
            kept = Kept(b"x", total_bytes=1)
            end = NotStarted("no") if fails else Ended(0, kept, Kept(), run_s=0.1, finished_at=0.0)
            self.do(self.core.ended(command_id, end, self.now))

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = self.core.next_deadline()
        if due is not None and due <= self.now:
            self.do(self.core.expire(self.now))

    @invariant()
    def nothing_runs_twice(self) -> None:
        assert len(self.spawned) == len(set(self.spawned))

    @invariant()
    def places_and_queue_are_bounded(self) -> None:
        assert len(self.processes) == self.core.running <= PLACES
        assert self.core.queued <= PLACES * QUEUE_PER_PLACE

    def teardown(self) -> None:
        """Whatever came before: with a connection and an end of the processes, every accepted command has ended."""
        self.connect(wire.VERDICT_ACTION_KEEP)
        self.do(self.core.stop_all("the end", self.now))
        for command_id in sorted(self.processes):
            self.end(command_id, fails=False)
        assert self.core.running == self.core.queued == 0
        assert self.accepted <= self.over


TestExecutor = Executor.TestCase
TestExecutor.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
