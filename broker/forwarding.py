"""Commands that are other replicas' business, each with a task: handed over, followed where they run, or looked for.

What comes of it is told to the ledger, which decides; only the asking is here.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from time import monotonic

import structlog

from broker.core import relaying, whereabouts
from broker.core.actions import Action
from broker.core.command import Command
from broker.core.directory import Directory
from broker.core.life import State
from broker.core.relayed import Relayed
from broker.core.routes import FORWARD_ALLOWANCE_S
from broker.rpc.finding import Found
from broker.rpc.peers import Peers
from broker.store.results import Results
from openline import errors
from openline.errors import OpenlineError
from openline.events import CommandEvents
from openline.ids import made_at
from openline.reasons import NO, Reason
from openline.tracing.calls import Call, calling
from openline.v1 import command_pb2

# A pipe that is not open is about to be, or its replica is gone.
PIPE_WAIT_S = 0.5
# How long a command is looked for: an executor whose replica froze notices that after 16 s, and dials another one; and
# 20 s after the last word of a replica, Redis forgets it, and nobody waits for its answer.
SEEK_S = 25.0
LOOK_AGAIN_S = 0.25
# Clocks of those who make ids may be off by so much.
CLOCK_SLACK_S = 2.0

log = structlog.get_logger()


class Forwarding:
    """Owns the tasks until `close`. `tell` carries out what the ledger decides about a command."""

    def __init__(
        self,
        relayed: Relayed,
        peers: Peers,
        directory: Directory,
        results: Results,
        *,
        replica_id: str,
        tell: Callable[[Command, Sequence[Action]], None],
    ) -> None:
        self._relayed = relayed
        self._peers = peers
        self._directory = directory
        self._results = results
        self._replica_id = replica_id
        self._tell = tell
        self._carrying: dict[Command, asyncio.Task[None]] = {}
        # Tasks that tell a replica of a cancel, and those that were let go and have not ended.
        self._ending: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Forwarding {len(self._carrying)}>"

    def __len__(self) -> int:
        return len(self._carrying) + len(self._ending)

    def forward(self, command: Command) -> None:
        """The command is FORWARDED; or it was before, and is to be cancelled."""
        if command not in self._carrying:
            self._carrying[command] = asyncio.get_running_loop().create_task(self._carry(command))
        elif command.cancel_why is not None and command.replica_id:
            task = asyncio.get_running_loop().create_task(self._cancel(command))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def let_go(self, command: Command) -> None:
        """The command is not FORWARDED any more."""
        task = self._carrying.pop(command, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def let_go_of_others(self) -> None:
        """Executors have brought some of the commands here."""
        for command in [command for command in self._carrying if command.state is not State.FORWARDED]:
            self.let_go(command)

    async def close(self) -> None:
        tasks = [*self._carrying.values(), *self._ending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, command: Command) -> None:
        try:
            while command.state is State.FORWARDED:
                if command.is_sought:
                    await self._seek(command)
                elif command.is_known_there:
                    await self._follow(command)
                else:
                    await self._hand_over(command)
        except Exception:
            log.exception("forwarding.failed", **command.ask.names)
            error = errors.error(Reason.INTERNAL, "internal error; see the broker's log")
            self._tell(command, self._relayed.refused(command, error, monotonic()))
        finally:
            if self._carrying.get(command) is asyncio.current_task():
                del self._carrying[command]

    async def _hand_over(self, command: Command) -> None:
        """Asks the replica that has the executor to run the command."""
        replica_id = command.replica_id
        try:
            left_s = max(0.001, command.deadline - monotonic())
            pipe = await self._peers.pipe(replica_id, timeout_s=min(PIPE_WAIT_S, left_s))
            request = relaying.execution(command, monotonic())
            times = {"timeout_s": request.timeout_s + FORWARD_ALLOWANCE_S}
            forwarded = relaying.forwarded(command, by=self._replica_id)
            if command.cancel_why is not None:
                cancelled = errors.error(Reason.CANCELLED, command.cancel_why, executed=NO)
                self._tell(command, self._relayed.refused(command, cancelled, monotonic()))
                return
            if command.ask.live:
                with calling("CommandService/ExecuteStream", request, server=replica_id) as call:
                    events = pipe.execute_stream(request, api_key="", forwarded=forwarded, **times)
                    await self._relay(command, events, call)
            else:
                with calling("CommandService/Execute", request, server=replica_id) as call:
                    response = await pipe.execute(request, api_key="", forwarded=forwarded, **times)
                    call.result(response.result)
                whereabouts.check_ran(response.result)
                result, degraded = response.result, response.degraded
                self._tell(command, self._relayed.answered(command, result, monotonic(), degraded=degraded))
        except OpenlineError as failure:
            self._failed(command, replica_id, failure)

    async def _relay(self, command: Command, events: CommandEvents, call: Call) -> None:
        """Tells what happens to the command there, to its end."""
        async with aclosing(events):
            async for event in events:
                if event.HasField("result"):
                    call.result(event.result)
                whereabouts.check_ran(event.result)
                self._tell(command, self._relayed.event(command, event, monotonic()))

    def _failed(self, command: Command, replica_id: str, failure: OpenlineError) -> None:
        """What the other replica says instead of a result."""
        now, error = monotonic(), failure.error
        if failure.reason is Reason.CLUSTER_OFFLINE and error.executed == NO:
            is_moving = error.metadata.get("moving") == "yes"
            self._directory.not_there(command.ask.cluster_id, replica_id, moving=is_moving, now=now)
            self._tell(command, self._relayed.returned(command, now))
        elif failure.reason is Reason.BROKER_UNAVAILABLE and error.executed == NO:
            self._directory.unreachable(replica_id, now=now)
            self._tell(command, self._relayed.returned(command, now))
        elif failure.reason is Reason.BROKER_UNAVAILABLE:
            self._tell(command, self._relayed.lost_sight(command, now))
        else:
            self._tell(command, self._relayed.refused(command, error, now))

    async def _follow(self, command: Command) -> None:
        """Watches a command that another replica has."""
        replica_id = command.replica_id
        try:
            left_s = max(0.001, command.deadline - monotonic())
            pipe = await self._peers.pipe(replica_id, timeout_s=min(PIPE_WAIT_S, left_s))
            if command.cancel_why is not None:
                self.forward(command)
            request = relaying.watch(command)
            forwarded = relaying.forwarded(command, by=self._replica_id)
            timeout_s = left_s + FORWARD_ALLOWANCE_S
            with calling("CommandService/WatchCommand", request, server=replica_id) as call:
                events = pipe.watch(request, api_key="", timeout_s=timeout_s, forwarded=forwarded)
                await self._relay(command, events, call)
        except OpenlineError as failure:
            # A process that began after its executors had come to the one before knows nothing of what they hold.
            cluster_id, began_us = command.ask.cluster_id, whereabouts.began_us(failure.error)
            is_current = self._directory.is_current(cluster_id, replica_id, began_us=began_us)
            if failure.reason is Reason.CLUSTER_OFFLINE:
                self._failed(command, replica_id, failure)
            elif failure.reason is Reason.COMMAND_UNKNOWN and is_current:
                self._tell(command, self._relayed.unknown(command, monotonic()))
            else:
                self._tell(command, self._relayed.lost_sight(command, monotonic()))
                # Found again at once, it may be refused again at once.
                await asyncio.sleep(LOOK_AGAIN_S)

    async def _seek(self, command: Command) -> None:
        """Looks for a command in the store and on every replica, until it is found or surely nowhere."""
        began = monotonic()
        since = began - max(0.0, time.time() - made_at(command.command_id)) - CLOCK_SLACK_S
        while command.is_sought:
            stored, is_store_known = None, True
            try:
                stored = await self._results.get(command.command_id)
            except OpenlineError:  # the replicas are asked all the same; but a result may be stored that is not seen
                is_store_known = False
            found = stored or await self._peers.find(command.command_id)
            now = monotonic()
            if isinstance(found, command_pb2.Command | Found):
                record = found if isinstance(found, command_pb2.Command) else found.record
                if not command.ask.is_same(record):
                    self._tell(command, self._relayed.mistaken(command, now))
                elif isinstance(found, Found):
                    is_queued = record.state == command_pb2.COMMAND_STATE_QUEUED
                    self._tell(command, self._relayed.found(command, found.replica_id, now, is_queued=is_queued))
                else:
                    self._tell(command, self._relayed.answered(command, found.result, now))
                return
            cluster_id = command.ask.cluster_id
            is_nowhere = (
                is_store_known
                and not found.silent
                and self._directory.is_accounted_for(cluster_id, answered=found.answered, since=since)
            )
            if command.may_return and is_nowhere:
                self._tell(command, self._relayed.returned(command, now))
                return
            if now - began > SEEK_S:
                why = "the replica that had it is gone, and no executor has brought it back"
                self._tell(command, self._relayed.given_up(command, why, now))
                return
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _cancel(self, command: Command) -> None:
        try:
            await self._peers.cancel(command.replica_id, command.command_id, why=command.cancel_why or "")
        except OpenlineError as failure:
            log.info("forwarding.cancel_failed", **command.ask.names, why=failure.error.message)
