"""The broker's ledger and the executors' cores against each other over links that break at any moment.

Whatever is lost, delayed, restarted, cancelled or late: no command runs twice, what a caller is told is so, every
command ends exactly once, no result is forgotten before the broker has it, and nothing is left in the end.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from broker.core.command import Command
from broker.core.life import State
from openline.reasons import NO, YES, Reason
from openline.v1 import command_pb2

# `make test` plays four hundred stories, the same each time; `make fuzz` others, and as many as it says.
EXAMPLES = int(os.environ.get("OPENLINE_FUZZ_EXAMPLES", "400"))
STEPS = 60

PICK = st.integers(0, 11)
# The last two are more than the credit of a command, so that output waits for the broker.
SIZES = st.sampled_from([0, 0, 3, 70_000, 300_000, 600_000])
DISTURBANCES = ["dial", "dial", "dial twice", "restart", "restart and dial", "executor", "broker"]
LONG_S = 5000.0
TIMEOUTS = st.sampled_from([30.0, 30.0, 5.0, 1.0])
STDOUT, STDERR = command_pb2.OUTPUT_SOURCE_STDOUT, command_pb2.OUTPUT_SOURCE_STDERR


class LossyLink(RuleBasedStateMachine):
    """One executor, or three of two clusters: two places each, `e2` with a spool."""

    def __init__(self, new_world: Any, new_executor: Any, words: Callable[[Any], str]) -> None:
        super().__init__()
        self.new_executor = new_executor
        self.words = words
        self.world = new_world(note)
        self.world.erased = self.erased
        # Commands whose process ended by itself: their exit code, and what they wrote.
        self.exits: dict[str, tuple[int, dict[int, bytes]]] = {}
        self.told_not_executed: set[str] = set()
        self.cancelled: set[str] = set()
        # How old answers may be.
        self.share_s = 0.0

    @initialize(names=st.sampled_from([["e1"], ["e2"], ["e1", "e2", "e3"]]))
    def begin(self, names: list[str]) -> None:
        world = self.world
        for name in names:
            where = {"cluster_id": "west" if name == "e3" else "prod", "places": 2, "spools": name == "e2"}
            world.executors[name] = self.new_executor(world, name, **where)
            world.dial(world.executors[name])
        self.deliver_all()

    # Callers

    @rule(
        cluster_id=st.sampled_from(["prod", "prod", "prod", "west"]),
        timeout_s=TIMEOUTS,
        wait_s=st.sampled_from([0.0, 0.0, 20.0]),
        live=st.booleans(),
        owner=st.sampled_from(["alice", "bob"]),
    )
    def submit(self, cluster_id: str, timeout_s: float, wait_s: float, live: bool, owner: str) -> None:
        name = f"c{len(self.world.commands) + 1}"
        self.step(f"submit {name} {cluster_id} timeout={timeout_s} wait={wait_s} live={live}")
        ask = {"cluster_id": cluster_id, "timeout_s": timeout_s, "wait_for_cluster_s": wait_s}
        self.world.submit(name, live=live, owner=owner, **ask)

    @precondition(lambda self: self.world.commands)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        command_id = self.pick(self.world.commands, pick)
        self.step(f"cancel {command_id}")
        self.cancelled.add(command_id)
        self.world.cancel(command_id, "not needed")

    @precondition(lambda self: self.world.unsettled)
    @rule(pick=PICK, stored=st.sampled_from([True, True, True, False]))
    def settle(self, pick: int, stored: bool) -> None:
        command = self.pick(self.world.unsettled, pick)
        self.step(f"settle {command.command_id} stored={stored}")
        self.world.settle(command, stored=stored)

    # Links

    @precondition(lambda self: any(link.up and link.open_at_broker for link in self.world.links))
    @rule(pick=PICK, frames=st.integers(1, 6))
    def to_broker(self, pick: int, frames: int) -> None:
        link = self.pick([link for link in self.world.links if link.up and link.open_at_broker], pick)
        for _ in range(min(frames, len(link.up))):
            self.arrive_at_broker(link)

    @precondition(lambda self: any(link.down and link.open_at_executor for link in self.world.links))
    @rule(pick=PICK, frames=st.integers(1, 6))
    def to_executor(self, pick: int, frames: int) -> None:
        link = self.pick([link for link in self.world.links if link.down and link.open_at_executor], pick)
        for _ in range(min(frames, len(link.down))):
            self.arrive_at_executor(link)

    @rule()
    def deliver_all(self) -> None:
        """Fair weather: whatever is on its way arrives, and the ends of broken streams are noticed."""
        self.step("deliver all")
        for link in self.world.links:
            self.deliver(link)
            if link.open_at_broker != link.open_at_executor:
                self.break_link(link)

    @rule()
    def deliver_newest(self) -> None:
        """Fair weather on the streams that executors have now; what they sent on those before is still on its way."""
        self.step("deliver newest")
        for executor in self.world.executors.values():
            if executor.link is not None:
                self.deliver(executor.link)

    @rule(pick=PICK, what=st.sampled_from(DISTURBANCES))
    def disturb(self, pick: int, what: str) -> None:
        """One end of a connection is lost, with what is on its way there; the other end learns of it later, if at all.

        A new connection is dialed whether or not there is one, and may be given up at once.
        """
        executor = self.pick(self.world.executors.values(), pick)
        self.step(f"disturb {executor.name}: {what}")
        if "restart" in what:
            self.restart(executor)
        if "dial" in what:
            self.world.dial(executor)
        if "dial twice" in what:
            self.world.dial(executor)
        if what == "executor":
            executor.lose_link()
        links = [link for link in self.world.links if link.open_at_broker]
        if what == "broker" and links:
            self.world.broker_loses(self.pick(links, pick))

    # Processes

    @precondition(lambda self: any(executor.processes for executor in self.world.executors.values()))
    @rule(pick=PICK, size=SIZES, source=st.sampled_from([STDOUT, STDERR]), exit_code=st.sampled_from([0, 0, 3]))
    def run(self, pick: int, size: int, source: "command_pb2.OutputSource.ValueType", exit_code: int) -> None:
        """A process starts; one that has been started writes or ends."""
        executor, command_id, process = self.pick(self.processes(), pick)
        if not process.started and not (process.killed and exit_code):
            self.step(f"{executor.name} starts {command_id}")
            executor.started(command_id)
        elif process.held and not process.killed:
            return  # it can neither write nor end
        # So much that all of it fits into a result.
        elif size and not process.killed and sum(map(len, process.written.values())) + size < 1 << 20:
            self.step(f"{executor.name}: {command_id} writes {size} bytes")
            executor.wrote(command_id, bytes([97 + pick]) * size, source)
        else:
            self.end(executor, command_id, exit_code=exit_code)

    @rule(pick=PICK)
    def drain(self, pick: int) -> None:
        """Seldom: what is left takes no more commands until it is restarted."""
        if pick == 0:
            executor = self.pick(self.world.executors.values(), pick)
            self.step(f"{executor.name} drains")
            executor.do(executor.core.drain("stopping"))

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 4.0, 11.0]))
    def pass_time(self, seconds: float) -> None:
        self.step(f"{seconds} s pass")
        self.world.pass_time(seconds)

    # What holds at every moment

    @invariant()
    def nothing_runs_twice(self) -> None:
        assert all(runs == 1 for runs in self.world.runs.values())

    @invariant()
    def every_command_ends_at_most_once(self) -> None:
        assert all(ends == 1 for ends in self.world.ends.values())

    @invariant()
    def what_is_told_is_so(self) -> None:
        for command in self.world.unsettled:
            self.check_result(command)
        # Also of what a caller was told long ago.
        assert not self.told_not_executed & self.world.began

    @invariant()
    def what_waits_and_runs_is_bounded(self) -> None:
        for executor in self.world.executors.values():
            assert len(executor.processes) == executor.core.running <= executor.places
        account = self.world.account
        assert len(account.deadlines) <= len(account.commands)
        assert set(account.graces._when) == set(account.away)
        assert all(account.queues.values())

    def teardown(self) -> None:
        """After enough fair weather every command has ended, once, and nothing is left anywhere."""
        world = self.world
        for _ in range(2):
            for executor in world.executors.values():
                world.dial(executor)
            self.deliver_all()
        for _ in range(3):
            for executor, command_id, process in self.processes():
                if not process.started and not process.killed:
                    executor.started(command_id)
            world.pass_time(LONG_S)
            self.settle_all()
            for executor, command_id, process in self.processes():
                assert process.killed, f"{command_id} runs {LONG_S:g} s after its deadline"
                self.end(executor, command_id, exit_code=143)
            self.deliver_all()
            self.settle_all()
        assert set(world.ends) == set(world.commands)
        account = world.account
        assert (account.commands, account.away, account.queues) == ({}, {}, {})
        assert len(account.deadlines) == len(account.graces) == 0
        assert not [c for c in world.links if c.connection and c.open_at_broker and c.connection.commands]
        for executor in world.executors.values():
            assert executor.core.idle, executor.core
            assert not executor.core._handover._flow._ring
            assert not executor.spool

    # How it is done

    def check_result(self, command: Command) -> None:
        """What the caller is told of a command, against what has happened to it."""
        command_id, result = command.command_id, command.result
        assert command.state is State.DONE
        assert result is not None
        began = command_id in self.world.began
        ran_id = result.run_by_command_id or command_id
        if result.served_from:
            assert command_id not in self.world.runs
            assert self.world.commands[ran_id].ask.owner == command.ask.owner
            # It may have been lost on the way, and then nobody has seen anything.
            seen_s = command.created_at - self.world.spawned_at.get(ran_id, command.created_at)
            assert seen_s <= result.age_s + 1e-9 <= self.share_s + 2e-9
        if result.outcome == command_pb2.OUTCOME_EXITED:
            exit_code, written = self.exits[ran_id]
            assert result.exit_code == exit_code
            assert (result.stdout, result.stderr) == (written[STDOUT], written[STDERR])
            assert not result.stdout_summary.cut_bytes
            assert not result.stderr_summary.cut_bytes
            return
        assert "broke the protocol" not in result.error.message
        if result.error.executed == NO:
            assert not began, f"{command_id} was run, its caller was told that it was not"
            self.told_not_executed.add(command_id)
        if result.error.executed == YES:
            assert ran_id in self.world.began
        if "restarted" in result.error.message:
            # Not always while it was there: the Hello of the process before may arrive after that of the next one.
            assert self.world.executors[command.executor_id].instances > 1
        if "no memory" in result.error.message:
            raise AssertionError("an executor has forgotten what it had accepted")
        if result.error.reason == Reason.CANCELLED:
            assert command_id in self.cancelled

    def restart(self, executor: Any) -> None:
        executor.lose_link()
        executor.start()
        assert set(executor.core.held().unacked_ids) == set(executor.spool or ())

    def settle_all(self) -> None:
        self.what_is_told_is_so()
        for command in list(self.world.unsettled):
            self.world.settle(command, stored=True)
        self.deliver_all()

    def erased(self, command_id: str) -> None:
        """An executor forgets a result: the broker has it stored, or has another one for this command."""
        if (command := self.world.ledger.commands.get(command_id)) is not None:
            assert command.result is not None
            assert command.result.outcome != command_pb2.OUTCOME_EXITED

    def end(self, executor: Any, command_id: str, *, exit_code: int) -> None:
        process = executor.processes[command_id]
        self.step(f"{executor.name}: {command_id} ends")
        if not process.killed:
            self.exits[command_id] = exit_code, process.written
        executor.ended(command_id, exit_code)

    def deliver(self, link: Any) -> None:
        while link.open_at_broker and (link.up or link.down):
            if link.up:
                self.arrive_at_broker(link)
            elif link.open_at_executor:
                self.arrive_at_executor(link)
            else:
                link.down.clear()

    def arrive_at_broker(self, link: Any) -> None:
        frame = link.up.popleft()
        self.step(f"{link.name}: the broker hears {self.words(frame)}")
        self.world.to_broker(link, frame)

    def arrive_at_executor(self, link: Any) -> None:
        frame = link.down.popleft()
        self.step(f"{link.name}: the executor hears {self.words(frame)}")
        link.executor.hear(frame)

    def break_link(self, link: Any) -> None:
        self.step(f"the end of {link.name} is noticed")
        if link.open_at_broker:
            self.world.broker_loses(link)
        else:
            link.executor.lose_link()

    def processes(self) -> list[tuple[Any, str, Any]]:
        return [(e, c, p) for e in self.world.executors.values() for c, p in e.processes.items()]

    def pick(self, things: Any, pick: int) -> Any:
        things = list(things)
        return things[pick % len(things)]

    def step(self, told: str) -> None:
        note(f"> {told}")


class Crowd(LossyLink):
    """All that is asked for is the same, and is shared."""

    @rule(share_s=st.sampled_from([1.0, 5.0]))
    def agree(self, share_s: float) -> None:
        self.share_s = max(share_s, self.share_s)

    @rule(timeouts_s=st.lists(TIMEOUTS, min_size=1, max_size=4), wait_s=st.sampled_from([0.0, 0.0, 20.0]))
    def submit(self, timeouts_s: list[float], wait_s: float) -> None:  # type: ignore[override]
        for timeout_s in timeouts_s:
            name = f"c{len(self.world.commands) + 1}"
            self.step(f"submit {name} timeout={timeout_s} wait={wait_s} share={self.share_s}")
            ask = {"timeout_s": timeout_s, "wait_for_cluster_s": wait_s}
            self.world.submit(name, share_s=self.share_s, cache_s=self.share_s, **ask)

    @rule(exit_code=st.sampled_from([0, 0, 3]))
    def finish_all(self, exit_code: int) -> None:
        """Whatever runs comes to its end, and is heard of."""
        self.deliver_all()
        for executor, command_id, process in self.processes():
            if not process.started and not process.killed:
                executor.started(command_id)
            self.end(executor, command_id, exit_code=exit_code)
        self.deliver_all()


@pytest.mark.parametrize("stories", [LossyLink, Crowd])
def test_lossy_link(new_world: Any, new_executor: Any, words: Callable[[Any], str], stories: type[LossyLink]) -> None:
    """Holds whatever the links and the clock do."""
    play: Any = partial(stories, new_world, new_executor, words)
    run_state_machine_as_test(
        play,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
