"""Interleavings as stories: each `*.txt` here is replayed on the broker's ledger, and what comes out compared.

    > what happens            an input, see `Stage`; told again as it stands
    < what follows            what the ledger (or an executor's core) does about it, in order
    # anything                for whoever reads it

`e1` is an executor for which the story speaks (`connect`, `e1: accepted c1`), or, after `start e1`, an executor's own
core: then frames are on their way until they are delivered or lost. Every story ends with all streams gone and all time
passed, and nothing may be left. `OPENLINE_REWRITE=1 pytest tests/scenarios/test_scenarios.py` writes the outputs anew.
"""

import os
import shlex
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openline import errors
from openline.reasons import Reason
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

HERE = Path(__file__).parent
STORIES = sorted(HERE.glob("*.txt"))
REWRITE = "OPENLINE_REWRITE" in os.environ
LONG_S = 5000.0


class Stage:
    """Reads a story's inputs; what follows from each is in `lines`. The methods are the words of the language."""

    def __init__(self, new_world: Any, new_executor: Any, words: Callable[[Any], str]) -> None:
        self.lines: list[str] = []
        self.world = new_world(self._say)
        self._new_executor = new_executor
        self._words = words
        self._ticking = False

    def _say(self, line: str) -> None:
        self.lines.append(f"at {self.world.now:g}: {line}" if self._ticking else line)

    def play(self, story: str) -> None:
        """One input: `word argument… name=value…`, or `e1: frame…` for an executor that the story speaks for."""
        first, *rest = shlex.split(story)
        options = dict(word.split("=", 1) for word in rest if "=" in word)
        plain = [word for word in rest if "=" not in word]
        if first.endswith(":"):
            self._speak(first[:-1], plain, options)
        elif first in self.world.executors:
            self._process(self.world.executors[first], plain, options)
        else:
            getattr(self, first.replace("-", "_"))(*plain, **options)

    # Callers, the store, the clock

    def submit(
        self,
        command_id: str,
        *argv: str,
        cluster: str = "prod",
        owner: str = "alice",
        timeout: str = "10",
        wait: str = "0",
        session: str = "",
        live: str = "no",
        share: str = "0",
        cache: str = "0",
    ) -> None:
        """> submit c1 get pods timeout=10 share=1 -- with the result of one that was written a second ago at most"""
        ask = {"cluster_id": cluster, "owner": owner, "session_id": session, "live": live == "yes"}
        ask |= {"share_s": float(share), "cache_s": float(cache)}
        times = {"timeout_s": float(timeout), "wait_for_cluster_s": float(wait)}
        self.world.submit(command_id, argv or ("get", "pods"), **ask, **times)

    def submit_many(self, prefix: str, count: str, **options: str) -> None:
        """> submit-many a 256 owner=alice"""
        for number in range(1, int(count) + 1):
            before = len(self.lines)
            self.submit(f"{prefix}{number}", **options)
            if number < int(count):  # the last one speaks for all
                del self.lines[before:]

    def announces(self, name: str) -> None:
        """> announces e1 -- the policy of this executor has changed"""
        self._link(name).connection.capabilities = wire.Capabilities()

    def cancel(self, command_id: str, why: str = "not needed") -> None:
        """> cancel c1"""
        self.world.cancel(command_id, why)

    def stored(self, command_id: str) -> None:
        """> stored c1 -- Redis has the result"""
        self.world.settle(self.world.commands[command_id], stored=True)

    def dropped(self, command_id: str) -> None:
        """> dropped c1 -- there was no room for the result, not even behind Redis"""
        self.world.settle(self.world.commands[command_id], stored=False)

    def tick(self, seconds: str) -> None:
        """> tick +10.8"""
        self._ticking = True
        self.world.pass_time(float(seconds))
        self._ticking = False

    # Executors for which the story speaks

    def connect(self, name: str, *, instance: str = "a", cluster: str = "prod", places: str = "4", **held: str) -> None:
        """> connect e1 instance=a in-flight=c1 unacked=c2,c3 -- the next connection of e1 is e1#2"""
        listed: dict[str, Any] = {field.replace("-", "_") + "_ids": ids.split(",") for field, ids in held.items()}
        executor_id = name.partition("#")[0]
        hello = wire.Hello(cluster_id=cluster, executor_id=executor_id, max_concurrency=int(places), **listed)
        hello.instance_id = instance
        link = self.world.link(hello)
        assert link.name == name, f"it is {link.name}"
        self.world.to_broker(link, wire.ExecutorFrame(hello=hello))

    def disconnect(self, name: str) -> None:
        """> disconnect e1"""
        self.world.broker_loses(self._link(name))

    def _speak(self, name: str, said: list[str], options: dict[str, str]) -> None:
        """> e1: accepted c1, e1: output c1 0 "NAME" (or 65536B of it), e1: finished c1 exit=3, e1: draining"""
        kind, *more = said
        frame = wire.ExecutorFrame()
        getattr(frame, kind).SetInParent()
        content = getattr(frame, kind)
        if more:
            content.command_id = more[0]
        if kind == "output":
            content.seq = int(more[1])
            content.source = command_pb2.OUTPUT_SOURCE_STDOUT
            size = more[2].removesuffix("B")
            content.data = b"x" * int(size) if size.isdigit() else more[2].encode()
        if kind == "rejected":
            content.error.CopyFrom(errors.error(Reason(more[1]), "said the executor"))
        if kind == "finished":
            outcome = options.get("outcome", "EXITED")
            content.outcome = command_pb2.Outcome.Value(f"OUTCOME_{outcome}")
            content.exit_code = int(options.get("exit", "0"))
            if "executed" in options:
                content.error.executed = command_pb2.Executed.Value(f"EXECUTED_{options['executed'].upper()}")
        self.world.to_broker(self._link(name), frame)

    # Executors with a core of their own

    def start(self, name: str, *, cluster: str = "prod", places: str = "4", spool: str = "no") -> None:
        """> start e1 spool=yes -- or start it again after `kill`"""
        if name in self.world.executors:
            self.world.executors[name].start()
        else:
            made = self._new_executor(self.world, name, cluster_id=cluster, places=int(places), spools=spool == "yes")
            self.world.executors[name] = made

    def kill(self, name: str) -> None:
        """> kill e1 -- with -9: nobody says anything; what it has sent is still on its way"""
        self.world.executors[name].lose_link()
        self.world.executors[name].processes = {}

    def dial(self, name: str) -> None:
        """> dial e1 -- Hello is on its way"""
        self.world.dial(self.world.executors[name])

    def deliver(self, name: str, frames: str = "all", *, to: str = "both") -> None:
        """> deliver e1, deliver e1 to=broker, deliver e1 1 to=executor -- what is on its way arrives"""
        link = self._link(name)
        left = 1_000_000 if frames == "all" else int(frames)
        while left and ((link.up and to != "executor") or (link.down and to != "broker")):
            left -= 1
            if link.up and to != "executor":
                self._hear("broker", link.up, lambda frame: self.world.to_broker(link, frame))
            else:
                self._hear(link.executor.name, link.down, link.executor.hear)

    def _hear(self, who: str, frames: "deque[Any]", hear: Callable[[Any], None]) -> None:
        frame = frames.popleft()
        self._say(f"{who} hears {self._words(frame)}")
        hear(frame)

    def cut(self, name: str, at: str = "both") -> None:
        """> cut e1, cut e1 broker, cut e1 executor -- an end notices; what was on its way there is lost"""
        link = self._link(name)
        if at != "executor" and link.open_at_broker:
            self.world.broker_loses(link)
        if at != "broker" and link.open_at_executor:
            link.executor.lose_link()

    def _process(self, executor: Any, said: list[str], options: dict[str, str]) -> None:
        """> e1 starts c1, e1 writes c1 "so far" (or 65536B), e1 ends c1 exit=0, e1 drains"""
        verb, *more = said
        match verb:
            case "starts":
                executor.started(more[0])
            case "writes":
                size = more[1].removesuffix("B")
                executor.wrote(more[0], b"x" * int(size) if size.isdigit() else more[1].encode())
            case "ends":
                executor.ended(more[0], int(options.get("exit", "0")))
            case "drains":
                executor.do(executor.core.drain("stopping"))

    def _link(self, name: str) -> Any:
        return next(link for link in self.world.links if link.name == name)

    # The end of every story

    def fall(self) -> None:
        """The curtain: streams end, time passes, results are stored; then nothing is left, and nothing ran twice."""
        world = self.world
        for link in world.links:
            if link.open_at_broker:
                world.broker_loses(link)
        world.pass_time(LONG_S)
        for command in list(world.unsettled):
            world.settle(command, stored=True)
        account = world.account
        assert (account.commands, account.away, account.queues) == ({}, {}, {})
        assert len(account.deadlines) == len(account.graces) == len(account.connections) == 0
        assert world.ends == world.asked
        assert set(world.runs.values()) <= {1}


@pytest.mark.parametrize("path", STORIES, ids=[path.stem for path in STORIES])
def test_story(path: Path, new_world: Any, new_executor: Any, words: Callable[[Any], str]) -> None:
    """It goes as it is written."""
    stage = Stage(new_world, new_executor, words)
    written = path.read_text()
    told: list[str] = []
    for line in written.splitlines():
        if line.startswith("< "):
            continue
        told.append(line)
        if line.startswith("> "):
            stage.lines.clear()
            stage.play(line.removeprefix("> "))
            told += [f"< {line}" for line in stage.lines]
    if REWRITE:
        path.write_text("\n".join(told) + "\n")
    else:
        assert told == written.splitlines()
    stage.fall()


def test_there_are_stories() -> None:
    """A folder that has been moved would pass without one."""
    assert len(STORIES) > 20
