"""The core against a broker that sends anything: it never raises, and costs bounded memory.

`OPENLINE_FUZZ_EXAMPLES` says how many stories of some forty frames are tried.
"""

import os
import tracemalloc
from collections.abc import Sequence

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executor.actions import Action, Ended, Note, NotStarted, Send, Spawn
from executor.admission import QUEUE_PER_PLACE
from executor.core import Core
from executor.policy import PolicyInForce
from executor.report import STDERR, STDOUT
from openline import limits
from openline.capture import Kept
from openline.v1 import executor_service_pb2 as wire

FRAMES_AN_EXAMPLE = 40
EXAMPLES = int(os.environ.get("OPENLINE_FUZZ_EXAMPLES", "200"))
PLACES = 2

texts = st.one_of(st.sampled_from(["a", "b", "c", ""]), st.text(max_size=20), st.just("x" * 300))
numbers = st.one_of(st.sampled_from([0, 1, 70_000, (1 << 64) - 1]), st.integers(0, (1 << 64) - 1))
seconds = st.one_of(st.sampled_from([0.0, 1.0, 1e300]), st.floats())
argvs = st.one_of(
    st.sampled_from([["get", "pods"], ["logs", "-f", "x"], ["delete"], []]),
    st.lists(st.text(max_size=10), max_size=70),
)
stream_limits = st.builds(
    wire.StreamLimits, max_frame_bytes=numbers, command_credit_bytes=numbers, stream_credit_bytes=numbers
)
verdicts = st.builds(
    wire.Verdict, command_id=texts, action=st.sampled_from([*wire.VerdictAction.values(), 99]), next_seq=numbers
)
welcomes = st.builds(wire.Welcome, limits=stream_limits, verdicts=st.lists(verdicts, max_size=5))
executes = st.builds(
    wire.Execute,
    command_id=texts,
    argv=argvs,
    timeout_s=seconds,
    live=st.booleans(),
    correlation_id=texts,
)
frames = st.one_of(
    st.builds(wire.BrokerFrame, execute=executes),
    st.builds(wire.BrokerFrame, cancel=st.builds(wire.Cancel, command_id=texts, why=texts)),
    st.builds(wire.BrokerFrame, result_ack=st.builds(wire.ResultAck, command_id=texts)),
    st.builds(wire.BrokerFrame, credit=st.builds(wire.Credit, command_id=texts, bytes=numbers)),
    st.builds(wire.BrokerFrame, activity=st.builds(wire.Activity, active_for_s=seconds)),
    st.builds(wire.BrokerFrame, welcome=welcomes),
    st.just(wire.BrokerFrame()),
)
ends = st.one_of(
    st.just(NotStarted("no")),
    st.builds(lambda data: Ended(0, Kept(data, total_bytes=len(data)), Kept(), 0.1, 0.0), st.binary(max_size=100)),
)
events = st.one_of(
    st.tuples(st.just("frame"), frames),
    st.tuples(st.just("welcomed"), welcomes),
    st.tuples(st.just("disconnected"), st.none()),
    st.tuples(st.just("started"), texts),
    st.tuples(st.just("wrote"), st.tuples(texts, st.sampled_from([STDOUT, STDERR]), st.binary(max_size=50))),
    st.tuples(st.just("ended"), st.tuples(texts, ends)),
    st.tuples(st.just("expire"), st.none()),
)


class Watched:
    """A core, and what it must hold whatever it hears."""

    def __init__(self) -> None:
        self.core = Core(max_concurrency=PLACES, judge=PolicyInForce().judge)
        self.now = 0.0
        self.spawned: list[str] = []
        self.accepted: set[str] = set()
        self.explained: set[str] = set()
        self.connected = False

    def hear(self, event: str, what: object) -> None:
        self.now += 0.1
        unacked = set(self.core.held().unacked_ids)
        actions = self.apply(event, what)
        self.look(actions)
        assert len(self.spawned) == len(set(self.spawned))
        assert self.core.queued <= PLACES * QUEUE_PER_PLACE
        gone = unacked - set(self.core.held().unacked_ids)
        warned = {str(a.fields["command_id"]) for a in actions if isinstance(a, Note) and a.warning}
        for command_id in gone - warned:
            assert allows(event, what, command_id), "a result was dropped that nobody had acknowledged"
            self.explained.add(command_id)

    def apply(self, event: str, what: object) -> list[Action]:
        core = self.core
        match event, what:
            case "frame", wire.BrokerFrame() as frame if self.connected:
                return core.received(wire.BrokerFrame.FromString(frame.SerializeToString()), self.now)
            case "welcomed", wire.Welcome() as welcome:
                self.disconnect()
                self.connected = True
                return core.welcomed(welcome, self.now)
            case "disconnected", _:
                self.disconnect()
            case "started", str(command_id) if command_id in self.spawned:
                return core.started(command_id)
            case "wrote", (str(command_id), source, bytes(data)) if command_id in self.spawned:
                return core.wrote(command_id, source, data, self.now)
            case "ended", (str(command_id), end) if command_id in self.spawned:
                return core.ended(command_id, end, self.now)
            case "expire", _:
                return core.expire(self.now)
        return []

    def disconnect(self) -> None:
        self.connected = False
        self.core.disconnected()

    def look(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Spawn(command_id):
                    assert command_id in self.accepted
                    self.spawned.append(command_id)
                case Send(frame):
                    assert self.connected
                    assert len(frame.output.data) <= limits.MAX_FRAME_BYTES
                    self.accepted |= {frame.accepted.command_id} - {""}
                    self.explained |= {frame.finished.command_id} - {""}


def allows(event: str, what: object, command_id: str) -> bool:
    """Whether what was heard lets a result go: ResultAck, or a verdict that is not KEEP."""
    if isinstance(what, wire.BrokerFrame):
        return what.result_ack.command_id == command_id
    letting_go = (wire.VERDICT_ACTION_DROP, wire.VERDICT_ACTION_STORED)
    return isinstance(what, wire.Welcome) and any(
        verdict.command_id == command_id and verdict.action in letting_go for verdict in what.verdicts
    )


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(st.lists(events, min_size=FRAMES_AN_EXAMPLE // 2, max_size=FRAMES_AN_EXAMPLE * 2))
def test_whatever_it_hears_it_holds_its_promises(heard: list[tuple[str, object]]) -> None:
    """Never raises, at most one run an id, no result lost in silence, and every accepted command comes to an end."""
    watched = Watched()
    watched.hear("welcomed", wire.Welcome())
    for event, what in heard:
        watched.hear(event, what)
    watched.hear("welcomed", wire.Welcome())
    core = watched.core
    watched.look(core.stop_all("the end", watched.now))
    for command_id in watched.spawned:
        watched.look(core.ended(command_id, Ended(0, Kept(), Kept(), 0.1, 0.0), watched.now))
    for _ in range(20):
        watched.look(core.received(wire.BrokerFrame(credit=wire.Credit(bytes=1 << 30)), watched.now))
        for command_id in core.held().unacked_ids:
            credit = wire.Credit(command_id=command_id, bytes=1 << 30)
            watched.look(core.received(wire.BrokerFrame(credit=credit), watched.now))
    assert core.running == core.queued == 0
    dropped = {verdict.command_id for _, what in heard if isinstance(what, wire.Welcome) for verdict in what.verdicts}
    assert watched.accepted <= watched.explained | dropped


@settings(max_examples=EXAMPLES)
@given(st.lists(st.binary(max_size=60), max_size=FRAMES_AN_EXAMPLE))
def test_bytes_that_happen_to_be_a_frame_cost_nothing(messages: list[bytes]) -> None:
    watched = Watched()
    watched.hear("welcomed", wire.Welcome())
    for message in messages:
        try:
            frame = wire.BrokerFrame.FromString(message)
        except DecodeError:
            continue  # such a message never reaches the core
        watched.hear("frame", frame)


def test_garbage_leaves_no_memory_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that are refused, acknowledged, cancelled or unknown, over and over: nothing of them adds up."""
    monkeypatch.setattr("executor.memory.MAX_IDS", 100)
    watched = Watched()
    watched.hear("welcomed", wire.Welcome())

    def round_of(number: int) -> None:
        for index in range(200):
            name = f"c{number}-{index}"
            for frame in (
                wire.BrokerFrame(execute=wire.Execute(command_id=name, argv=["delete"], timeout_s=1.0)),
                wire.BrokerFrame(execute=wire.Execute(command_id=name, argv=["get", "pods"], timeout_s=-1.0)),
                wire.BrokerFrame(credit=wire.Credit(command_id=name, bytes=(1 << 64) - 1)),
                wire.BrokerFrame(cancel=wire.Cancel(command_id=name)),
                wire.BrokerFrame(result_ack=wire.ResultAck(command_id=name)),
            ):
                watched.core.received(frame, 0.0)

    round_of(0)
    tracemalloc.start()
    round_of(1)
    before, _ = tracemalloc.get_traced_memory()
    for number in range(2, 12):
        round_of(number)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 64 << 10
    assert "ids=100" in repr(watched.core)
