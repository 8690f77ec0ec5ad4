"""The core under any order of events: at most one run an id, every accepted command ends, memory is bounded.

The broker here believes what it is sent, frame by frame, so that it also holds that output has no gap, that it never
exceeds its credit, and that Finished is the last.
"""

from collections.abc import Collection, Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from executor.actions import Action, Ended, Hold, Kill, NotStarted, Resume, Send, Spawn
from executor.admission import QUEUE_PER_PLACE
from executor.core import Core
from executor.report import STDERR, STDOUT
from openline.capture import Kept
from openline.policy import Allowed, Policy
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

IDS = st.sampled_from([f"c{index}" for index in range(12)])
PICKS = st.integers(0, 10)
PLACES = 2
COMMAND_CREDIT, STREAM_CREDIT = 40, 60


def picked(ids: Collection[str], pick: int) -> str:
    """One of the ids, or none if there is none."""
    return sorted(ids)[pick % len(ids)] if ids else ""


class Executor(RuleBasedStateMachine):
    """The core, a broker that asks for anything at any time, and processes that do what they are told."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Core(max_concurrency=PLACES, judge=self.judge)
        self.now = 0.0
        self.connected = False
        self.processes: set[str] = set()
        self.spawned: list[str] = []
        self.accepted: set[str] = set()
        self.over: set[str] = set()
        self.live: set[str] = set()
        self.wrote: dict[str, bytes] = {}
        self.held: set[str] = set()
        # What the broker has: whole frames, by id; and what it allows.
        self.has: dict[str, list[bytes]] = {}
        self.allowed: dict[str, int] = {}
        self.taken: dict[str, int] = {}
        self.forgot: set[str] = set()

    def judge(self, argv: Sequence[str], *, streamed: bool, remaining_s: float) -> Allowed:
        return Allowed(tuple(argv), Policy())

    def do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Send(frame):
                    assert self.connected, "sent without a connection"
                    if frame.HasField("accepted"):
                        self.accepted.add(frame.accepted.command_id)
                    if frame.HasField("finished"):
                        self.over.add(frame.finished.command_id)
                        self.finish(frame.finished)
                    if frame.HasField("output"):
                        self.take(frame.output)
                case Spawn(command_id):
                    assert command_id in self.accepted
                    self.spawned.append(command_id)
                    self.processes.add(command_id)
                case Kill(command_id):
                    assert command_id in self.processes
                case Hold(command_id):
                    assert command_id in self.processes - self.held
                    self.held.add(command_id)
                case Resume(command_id):
                    self.held.remove(command_id)

    def take(self, output: command_pb2.Output) -> None:
        """The broker's end of a frame of output."""
        frames = self.has.setdefault(output.command_id, [])
        assert output.seq <= len(frames), "a gap"
        for key in ("", output.command_id):
            self.allowed[key] = self.allowed.get(key, COMMAND_CREDIT) - len(output.data)
            self.taken[key] = self.taken.get(key, 0) + len(output.data)
            assert self.allowed[key] >= 0, "more than was allowed"
        if output.seq == len(frames):
            frames.append(output.data)
        else:
            assert frames[output.seq] == output.data, "another frame under the same seq"

    def finish(self, finished: wire.Finished) -> None:
        """The broker's end of Finished: everything the process wrote is here, unless it was said that it is not."""
        if not finished.stdout_summary.cut_bytes:
            assert b"".join(self.has.get(finished.command_id, [])) == self.wrote.get(finished.command_id, b"")

    @rule(pick=PICKS, part=st.sampled_from([1, 2, 3]))
    def grant(self, pick: int, part: int) -> None:
        """Credit for what was taken, or for a part of it."""
        self.credit(picked(self.taken, pick), part=part)

    def credit(self, command_id: str, *, part: int = 1) -> None:
        size = self.taken.get(command_id, 0) // part
        if self.connected and size:
            self.taken[command_id] -= size
            self.allowed[command_id] = self.allowed.get(command_id, COMMAND_CREDIT) + size
            self.frame(wire.BrokerFrame(credit=wire.Credit(command_id=command_id, bytes=size)))

    @rule(pick=PICKS, data=st.binary(min_size=1, max_size=30), err=st.booleans())
    def write(self, pick: int, data: bytes, err: bool) -> None:
        """A live process writes, and is read from unless it is held up."""
        if command_id := picked((self.processes & self.live) - self.held, pick):
            self.wrote[command_id] = self.wrote.get(command_id, b"") + data
            self.do(self.core.wrote(command_id, STDERR if err else STDOUT, data, self.now))

    @rule(action=st.sampled_from(wire.VerdictAction.values()))
    def connect(self, action: "wire.VerdictAction.ValueType") -> None:
        self.disconnect()
        self.allowed = {"": STREAM_CREDIT}
        self.taken = {}
        held = self.core.held()
        listed = [*held.in_flight_ids, *held.unacked_ids]
        if action == wire.VERDICT_ACTION_DROP:
            self.over.update(listed)
        if action == wire.VERDICT_ACTION_STORED:
            self.over.update(held.unacked_ids)
        self.connected = True
        verdicts = [
            wire.Verdict(command_id=command_id, action=action, next_seq=len(self.has.get(command_id, [])))
            for command_id in listed
        ]
        allowed = wire.StreamLimits(command_credit_bytes=COMMAND_CREDIT, stream_credit_bytes=STREAM_CREDIT)
        self.do(self.core.welcomed(wire.Welcome(verdicts=verdicts, limits=allowed), self.now))

    @rule()
    def move(self) -> None:
        """To a replica that has only what Hello brings, and begins where that says: no output is gone before it."""
        self.disconnect()
        held = self.core.held()
        brought = self.core.hello(self.now).held
        assert [one.execute.command_id for one in brought] == [*held.in_flight_ids, *held.unacked_ids]
        for one in brought:
            assert one.execute.timeout_s > 0
            frames = self.has.setdefault(one.execute.command_id, [])
            assert one.first_seq <= len(frames) or one.execute.command_id in self.forgot, (
                "dropped before it had arrived"
            )
            del frames[one.first_seq :]
        self.connect(wire.VERDICT_ACTION_KEEP)

    @rule(lost=st.integers(0, 3))
    def break_off(self, lost: int) -> None:
        """The connection breaks with frames on the way: the broker never gets the last of each command."""
        for command_id in self.has:
            uncredited = self.taken.get(command_id, 0)
            for _ in range(lost):
                if self.has[command_id] and uncredited >= len(self.has[command_id][-1]):
                    uncredited -= len(self.has[command_id].pop())
                    if not self.connected:  # lost a second time: a broker that forgets what it gave credit for
                        self.forgot.add(command_id)
        self.disconnect()

    @rule()
    def disconnect(self) -> None:
        self.connected = False
        self.core.disconnected()

    @rule(command_id=IDS, timeout_s=st.sampled_from([0.0, 1.0, 3.0, 100.0]))
    def execute(self, command_id: str, timeout_s: float) -> None:
        """Each id is always live or never; a duplicate is sent by a broker that has nothing of the command."""
        live = int(command_id[1:]) % 2 == 1
        if live:
            self.live.add(command_id)
        if not (live and command_id in self.spawned) and self.connected:
            self.allowed[command_id] = COMMAND_CREDIT
            self.taken.pop(command_id, None)
            execute = wire.Execute(command_id=command_id, argv=["get"], timeout_s=timeout_s, live=live)
            self.frame(wire.BrokerFrame(execute=execute))

    @rule(command_id=IDS)
    def cancel(self, command_id: str) -> None:
        self.frame(wire.BrokerFrame(cancel=wire.Cancel(command_id=command_id)))

    @rule(command_id=IDS)
    def acknowledge(self, command_id: str) -> None:
        if self.connected and command_id in self.core.held().unacked_ids:
            self.over.add(command_id)  # the broker says that it has it all, and is believed
        self.frame(wire.BrokerFrame(result_ack=wire.ResultAck(command_id=command_id)))

    def frame(self, frame: wire.BrokerFrame) -> None:
        if self.connected:
            self.do(self.core.received(frame, self.now))

    @rule(pick=PICKS)
    def start(self, pick: int) -> None:
        if command_id := picked(self.processes, pick):
            self.do(self.core.started(command_id))

    @rule(pick=PICKS, fails=st.booleans())
    def end(self, pick: int, fails: bool) -> None:
        if command_id := picked(self.processes, pick):
            self.processes.discard(command_id)
            self.held.discard(command_id)
            fails = fails and command_id not in self.wrote  # what has written was started
            total = len(self.wrote.get(command_id, b""))
            kept = Kept(b"", total_bytes=total)
            if command_id not in self.live and not fails:
                self.wrote[command_id] = bytes(100)
                kept = Kept(bytes(100), total_bytes=100)
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
        self.credit_all()
        assert self.held <= self.core_dropped(), "held up although there is credit"
        while self.processes:
            self.end(0, fails=False)
        self.credit_all()
        assert self.core.running == self.core.queued == 0
        assert self.accepted <= self.over

    def credit_all(self) -> None:
        while any(self.taken.values()):
            for command_id in list(self.taken):
                self.credit(command_id)

    def core_dropped(self) -> set[str]:
        """Processes that nobody waits for, which are not read from any more."""
        return self.processes - set(self.core.held().in_flight_ids)


TestExecutor = Executor.TestCase
TestExecutor.settings = settings(max_examples=200, stateful_step_count=60)
