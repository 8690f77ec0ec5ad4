"""A broker's ledger and the executors that dial it, over links that lose what the test wants. No loop and no clock.

What happens is told line by line to `say`: a scenario compares the lines, a property keeps them for its failures.
"""

import itertools
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from broker.core import actions as does
from broker.core.account import Account
from broker.core.command import Ask, Command
from broker.core.connections import Connection
from broker.core.ledger import ClusterAbsent, Ledger, Outdated
from broker.core.life import State
from executor import actions as core_does
from executor.core import Core
from executor.spool import pack, unpack
from openline import limits
from openline.capture import Kept
from openline.errors import OpenlineError
from openline.policy import Allowed, Denied, Policy, Rule
from openline.reasons import EXECUTED_TEXT
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

GRACE_S = 10.0
STDOUT, STDERR = command_pb2.OUTPUT_SOURCE_STDOUT, command_pb2.OUTPUT_SOURCE_STDERR


@dataclass(eq=False)
class Link:
    """One Connect stream: what is on its way, and which of its ends are still open."""

    name: str
    hello: wire.Hello
    executor: "Executor | None" = None  # None: the test itself speaks for it
    up: deque[wire.ExecutorFrame] = field(default_factory=deque)
    down: deque[wire.BrokerFrame] = field(default_factory=deque)
    connection: Connection | None = None  # since Hello has arrived
    open_at_broker: bool = True
    open_at_executor: bool = True


@dataclass
class Process:
    """What kubectl would be."""

    live: bool
    started: bool = False
    killed: bool = False
    held: bool = False
    written: dict[int, bytes] = field(default_factory=lambda: {STDOUT: b"", STDERR: b""})


class Executor:
    """A program that runs, dies and is started again. What `spool` holds outlives it."""

    def __init__(self, world: "World", name: str, *, cluster_id: str, places: int, spools: bool) -> None:
        self.name = name
        self.cluster_id = cluster_id
        self.places = places
        self.spool: dict[str, bytes] | None = {} if spools else None
        self.instances = 0
        self._world = world
        self.start()

    def start(self) -> None:
        """A new process, which has not dialed yet."""
        self.instances += 1
        self.attempts = 0
        self.processes: dict[str, Process] = {}
        self.link: Link | None = None
        self.core = Core(max_concurrency=self.places, judge=_judge)
        for content in list((self.spool or {}).values()):
            self.do(self.core.restore(unpack(content), now=self._world.now))

    def lose_link(self) -> None:
        """This end of the connection is gone; what was on its way here is lost."""
        if self.link is not None:
            self._world.lost(f"on the way to {self.name}", self.link.down)
            self.link.open_at_executor = False
            self.link = None
            self.core.disconnected()

    def hear(self, frame: wire.BrokerFrame) -> None:
        now = self._world.now
        if frame.HasField("welcome"):
            self.do(self.core.welcomed(frame.welcome, now))
        else:
            self.do(self.core.received(frame, now))

    def started(self, command_id: str) -> None:
        """The process exists now."""
        self.processes[command_id].started = True
        self._world.began.add(command_id)
        self.do(self.core.started(command_id))

    def wrote(self, command_id: str, data: bytes, source: "command_pb2.OutputSource.ValueType" = STDOUT) -> None:
        """The process has written. What an ordinary command writes is told when it has ended."""
        process = self.processes[command_id]
        process.written[source] += data
        if process.live:
            self.do(self.core.wrote(command_id, source, data, self._world.now))

    def ended(self, command_id: str, exit_code: int = 0) -> None:
        """The process was reaped; one that was stopped before it existed never does."""
        process = self.processes.pop(command_id)
        end: core_does.Ended | core_does.NotStarted = core_does.NotStarted("it was stopped first")
        if process.started:
            out, err = (
                Kept(b"" if process.live else data, total_bytes=len(data), total_lines=data.count(b"\n"))
                for data in (process.written[STDOUT], process.written[STDERR])
            )
            end = core_does.Ended(exit_code, out, err, run_s=0.1, finished_at=1.7e9)
        self.do(self.core.ended(command_id, end, self._world.now))

    def do(self, actions: Sequence[core_does.Action]) -> None:
        world, processes = self._world, self.processes
        for action in actions:
            match action:
                case core_does.Send(frame) if self.link is not None:
                    self.link.up.append(frame)
                case core_does.Spawn(command_id, live=live):
                    world.say(f"{self.name} spawns {command_id}")
                    world.runs[command_id] += 1
                    world.spawned_at[command_id] = world.now
                    processes[command_id] = Process(live=live)
                case core_does.Kill(command_id):
                    world.say(f"{self.name} kills {command_id}")
                    processes[command_id].killed = True
                case core_does.Hold(command_id) | core_does.Resume(command_id):
                    processes[command_id].held = isinstance(action, core_does.Hold)
                    world.say(f"{self.name} {'holds up' if processes[command_id].held else 'lets go on'} {command_id}")
                case core_does.Store(result) if self.spool is not None:
                    self.spool[result.command_id] = pack(result)
                case core_does.Erase(command_id):
                    world.erased(command_id)
                    if self.spool is not None:
                        self.spool.pop(command_id, None)
                case _:
                    pass


class World:
    """Everything there is, at the instant `now`."""

    def __init__(self, say: Callable[[str], None] = lambda _line: None) -> None:
        self.say = say
        self.now = 0.0
        self.ledger = Ledger(reconnect_grace_s=GRACE_S)
        self.commands: dict[str, Command] = {}
        self.executors: dict[str, Executor] = {}
        self.links: list[Link] = []
        self.unsettled: list[Command] = []
        # For properties: how often each command was to be run, which had a process, how often each was made and ended.
        self.runs: Counter[str] = Counter()
        self.began: set[str] = set()
        self.asked: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.spawned_at: dict[str, float] = {}
        # What was told before the end of those that ran on for others.
        self.told: dict[str, command_pb2.CommandResult] = {}
        self._epochs = itertools.count(1)
        self._names: Counter[str] = Counter()
        self._states: dict[str, State] = {}

    @property
    def account(self) -> Account:
        """What the ledger knows."""
        return self.ledger._account

    # Callers, and the store

    def submit(self, command_id: str, argv: Sequence[str] = ("get", "pods"), **fields: Any) -> None:
        usual: dict[str, Any] = {"cluster_id": "prod", "timeout_s": 10.0, "owner": "alice", "max_output_bytes": 1 << 20}
        ask = Ask(command_id=command_id, argv=tuple(argv), **(usual | fields))
        try:
            command, actions = self.ledger.submit(ask, asked_at=Timestamp(), now=self.now)
        except ClusterAbsent as absent:
            self.say(f"refuse {command_id}: cluster {absent.cluster_id} is absent")
        except OpenlineError as refusal:
            self.say(f"refuse {command_id} {refusal.reason} retry-after={refusal.error.retry_after_s:g}")
        else:
            self.asked[command_id] += command is not self.commands.get(command_id)
            self.commands[command_id] = command
            self.do(actions)

    def cancel(self, command_id: str, why: str) -> None:
        self.do(self.ledger.cancel(self.commands[command_id], why=why, now=self.now))

    def settle(self, command: Command, *, stored: bool) -> None:
        """Redis has the result, or has no room for it."""
        self.unsettled.remove(command)
        self.do(self.ledger.settled(command, stored=stored))

    # Links

    def dial(self, executor: Executor) -> Link:
        """The executor opens a connection; Hello is on its way. Of an older one it knows nothing any more."""
        executor.lose_link()
        executor.attempts += 1
        held = executor.core.held()
        hello = wire.Hello(
            cluster_id=executor.cluster_id,
            executor_id=executor.name,
            instance_id=instance_id(executor.name, executor.instances),
            max_concurrency=executor.places,
            in_flight_ids=held.in_flight_ids,
            unacked_ids=held.unacked_ids,
            attempt=executor.attempts,
        )
        executor.link = self.link(hello, executor)
        executor.link.up.append(wire.ExecutorFrame(hello=hello))
        return executor.link

    def link(self, hello: wire.Hello, executor: Executor | None = None) -> Link:
        """A connection of which the broker has not heard yet: the first of an executor has its name."""
        self._names[hello.executor_id] += 1
        number = self._names[hello.executor_id]
        self.links.append(Link(hello.executor_id + (f"#{number}" if number > 1 else ""), hello, executor))
        return self.links[-1]

    def to_broker(self, link: Link, frame: wire.ExecutorFrame) -> None:
        """A frame arrives at the broker."""
        if frame.HasField("hello"):
            self._welcome(link)
            return
        if link.connection is None:
            raise AssertionError("a frame before Hello")
        if frame.HasField("draining"):
            link.connection.draining = True
        self.do(self.ledger.receive(link.connection, frame, now=self.now))

    def broker_loses(self, link: Link) -> None:
        """The broker's end is gone; what was on its way there is lost."""
        self.lost("on the way to the broker", link.up)
        link.open_at_broker = False
        if link.connection is not None:
            _, actions = self.ledger.disconnect(link.connection, now=self.now)
            self.do(actions)

    def lost(self, where: str, frames: "deque[Any]") -> None:
        for frame in frames:
            self.say(f"lost {where}: {words(frame)}")
        frames.clear()

    def erased(self, command_id: str) -> None:
        """An executor has forgotten a result; a property looks at this."""

    # Time

    def pass_time(self, seconds: float) -> None:
        """Everything that falls due happens at its instant."""
        until = self.now + seconds
        while (due := self.next_due()) is not None and due <= until:
            self.now = max(self.now, due)
            for executor in self.executors.values():
                executor.do(executor.core.expire(self.now))
            self.do(self.ledger.tick(now=self.now))
        self.now = until

    def next_due(self) -> float | None:
        dues = [self.ledger.next_due(), *(executor.core.next_deadline() for executor in self.executors.values())]
        return min((due for due in dues if due is not None), default=None)

    # What the ledger wants done

    def do(self, actions: Sequence[does.Action]) -> None:
        for action in actions:
            match action:
                case does.Send(connection, frame):
                    self._send(self._carrying(connection), frame)
                case does.Close(connection, why):
                    self.say(f"{self._carrying(connection).name}: close: {why}")
                case does.Tell(command):
                    assert command.result is not None
                    self.told[command.command_id] = command.result
                    self.say(conclusion(command).replace("conclude", "tell", 1))
                case does.Conclude(command):
                    assert self.told.get(command.command_id, command.result) == command.result
                    self.ends[command.command_id] += 1
                    self.unsettled.append(command)
                    self.say(conclusion(command))
        self._tell_states()

    def _welcome(self, link: Link) -> None:
        hello = link.hello
        link.connection = Connection(
            cluster_id=hello.cluster_id,
            executor_id=hello.executor_id,
            instance_id=hello.instance_id,
            epoch=next(self._epochs),
            max_concurrency=hello.max_concurrency,
            capabilities=hello.capabilities,
            versions=hello.versions,
            connected_at=Timestamp(),
            attempt=hello.attempt,
        )
        listed = {"in_flight": hello.in_flight_ids, "unacked": hello.unacked_ids}
        try:
            verdicts, actions = self.ledger.connect(link.connection, **listed, now=self.now)
        except Outdated as refusal:
            self.say(f"{link.name}: refuse: {refusal}")
            link.connection = None
            self.broker_loses(link)
            return
        allowed = wire.StreamLimits(
            max_frame_bytes=limits.MAX_FRAME_BYTES,
            command_credit_bytes=limits.COMMAND_CREDIT_BYTES,
            stream_credit_bytes=limits.STREAM_CREDIT_BYTES,
        )
        self._send(link, wire.BrokerFrame(welcome=wire.Welcome(limits=allowed, verdicts=verdicts)))
        self.do(actions)

    def _send(self, link: Link, frame: wire.BrokerFrame) -> None:
        if link.executor is None:
            self.say(f"{link.name}: {words(frame)}")
        elif link.open_at_broker and link.open_at_executor:
            link.down.append(frame)

    def _carrying(self, connection: Connection) -> Link:
        return next(link for link in self.links if link.connection is connection)

    def _tell_states(self) -> None:
        for command_id, command in self.commands.items():
            if self._states.get(command_id) is not command.state:
                self._states[command_id] = command.state
                if command.state is not State.DONE:
                    self.say(f"state {command_id} {command.state.name}")


def _judge(argv: Sequence[str], *, streamed: bool, remaining_s: float) -> Allowed | Denied:
    denied = Denied(Rule.VERB, "not here", "get")
    return denied if argv[0] == "delete" else Allowed(tuple(argv), Policy())


def instance_id(name: str, number: int) -> str:
    """The UUIDv7 of an executor's n-th process: later than that of the one before."""
    return f"{number:08x}-0000-7000-8000-{name.encode().hex():0>12}"


# How things are said


def instance_name(instance_id: str) -> str:
    """`e1-2` for the second process of e1."""
    number, *_, name = instance_id.split("-")
    return f"{bytes.fromhex(name).lstrip(bytes(1)).decode()}-{int(number, 16)}"


def words(frame: wire.BrokerFrame | wire.ExecutorFrame) -> str:
    """A frame in a few words: `execute c1 timeout=10`, `output c1 seq=0 "NAME READY"`."""
    kind = str(frame.WhichOneof("frame"))
    content = getattr(frame, kind)
    told = [kind.replace("_", "-"), getattr(content, "command_id", "")]
    match kind:
        case "hello":
            told = [f"hello instance={instance_name(content.instance_id)}"]
            told += [f"in-flight={','.join(content.in_flight_ids)}"] if content.in_flight_ids else []
            told += [f"unacked={','.join(content.unacked_ids)}"] if content.unacked_ids else []
        case "welcome":
            told += [
                f"{wire.VerdictAction.Name(v.action).removeprefix('VERDICT_ACTION_').lower()} {v.command_id}"
                + (f" from={v.next_seq}" if v.next_seq else "")
                for v in content.verdicts
            ]
        case "execute":
            told.append(f"timeout={content.timeout_s:g}")
        case "cancel":
            told.append(f'"{content.why}"')
        case "credit":
            told = ["credit", content.command_id or "stream", str(content.bytes)]
        case "rejected":
            told.append(content.error.reason)
        case "output":
            told += [f"seq={content.seq}", _data(content.data)]
        case "finished":
            told.append(command_pb2.Outcome.Name(content.outcome).removeprefix("OUTCOME_"))
    return " ".join(filter(None, told))


def conclusion(command: Command) -> str:
    """How a command ended, for whoever waits: `conclude c1 TIMED_OUT COMMAND_TIMEOUT executed=yes "so far"`."""
    result = command.result
    if result is None:
        raise AssertionError("concluded without a result")
    told = ["conclude", command.command_id, command_pb2.Outcome.Name(result.outcome).removeprefix("OUTCOME_")]
    if result.HasField("error"):
        told += [result.error.reason, f"executed={EXECUTED_TEXT[result.error.executed]}"]
    else:
        told.append(f"code={result.exit_code}")
    told += [_data(data) for data in (result.stdout, result.stderr) if data]
    if result.served_from:
        how = command_pb2.ServedFrom.Name(result.served_from).removeprefix("SERVED_FROM_").lower()
        told.append(f"{how}={result.run_by_command_id} age={result.age_s:g}")
    told += [f"({result.error.message})"] if result.outcome == command_pb2.OUTCOME_LOST else []
    return " ".join(told)


def _data(data: bytes) -> str:
    return f'"{data.decode()}"' if len(data) <= 40 else f"<{len(data)} bytes>"


@pytest.fixture(scope="session")
def new_world() -> type[World]:
    return World


@pytest.fixture(scope="session")
def new_executor() -> type[Executor]:
    return Executor


@pytest.fixture(scope="session", name="words")
def words_of_frames() -> Callable[[wire.BrokerFrame | wire.ExecutorFrame], str]:
    return words
