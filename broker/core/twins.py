"""Identical reads run once: one of them leads, and those that are asked for meanwhile join it and get its result.

Identical are commands of the same caller, with the same scopes, in the same cluster, that kubectl reads in the same way
and that want as much output. All of it is decided by the replica that has the executor, wherever they were asked for.

    QUEUED ─▶ it joins one that is in the same line ──────────────────────────┐
           ─▶ it joins one that was written no longer ago than it says        ├─ SHARED ─▶ DONE
           ─▶ it has the result of one that was written no longer ago and ────┘
              has succeeded

So what an answer shows is older than its request by no more than that. Nobody loses by it: whoever joins keeps its own
deadline, and is placed like any other when the one that it waits for has no result that would do for it.
"""

from collections.abc import Hashable, Iterable

from broker.core.account import Account, timed_out
from broker.core.actions import Action, Tell
from broker.core.alike import answer_of, key_of, will_do
from broker.core.command import Ask, Command
from broker.core.lately import Lately
from broker.core.life import Event, State
from broker.core.routes import Routes
from broker.core.twin import Twin
from openline import errors
from openline.limits import DEADLINE_ALLOWANCE_S
from openline.reasons import UNKNOWN, YES, Reason
from openline.v1 import command_pb2

# That join one command: all of them are answered in one turn of the loop.
MAX_JOINED = 250
# And in so many bytes; who has no part in it joins the next one.
MAX_ANSWERED_BYTES = 16 << 20
# What an answer takes beside its output.
ANSWER_BYTES = 1 << 10

CommandResult = command_pb2.CommandResult


class Twins:
    """The part of the ledger that shares."""

    def __init__(self, account: Account, routes: Routes) -> None:
        self._account = account
        self._routes = routes
        # The newest of each kind that runs, or waits to.
        self._leads: dict[Hashable, Command] = {}
        self._lately = Lately()
        account.ended = self._ended
        account.stalled = self._stalled
        routes.placing = self.place

    def __repr__(self) -> str:
        return f"<Twins leads={len(self._leads)} {self._lately!r}>"

    def place(self, command: Command, now: float) -> list[Action]:
        """As `Routes.place`, where it is not the same as another one. Raises what that raises."""
        ask = command.ask
        # One that is to be forwarded is shared there; one that has come back and is waited for leads on.
        is_wanted = ask.share_s and (command.twin is None or not command.twin.joined)
        key = key_of(ask) if is_wanted and self._account.connections.of_cluster(ask.cluster_id) else None
        if key is None:
            return self._routes.place(command, now)
        command.twin = Twin(key)
        ended = self._lately.find(key, now=now, within_s=ask.cache_s) if ask.cache_s else None
        if ended is not None and ended.result is not None and self._is_current(ended):
            self._account.commands[command.command_id] = command
            return self._answer(command, ended, ended.result, command_pb2.SERVED_FROM_CACHE, now)
        lead = self._leads.get(key)
        if lead is not None and lead is not command and self._takes(lead, ask, now):
            self._account.commands[command.command_id] = command
            self._join(command, lead)
            # With as much time as one that runs it waits for what that has written by then.
            has_as_much = lead.state is not State.QUEUED and command.deadline >= lead.deadline
            allowed_s = DEADLINE_ALLOWANCE_S if has_as_much else 0.0
            self._account.deadlines.add(command.command_id, command.deadline + allowed_s)
            return []
        actions = self._routes.place(command, now)
        self._lead(command)
        return actions

    def are_waiting_for(self, command: Command) -> bool:
        """Whether others wait for what an executor does for this one."""
        return command.twin is not None and bool(command.twin.joined) and command.state is not State.QUEUED

    def part(self, command: Command, why: str, now: float) -> list[Action]:
        """The command is cancelled, and what it runs goes on for the others."""
        error = errors.error(Reason.CANCELLED, why, executed=YES if command.state is State.RUNNING else UNKNOWN)
        command.end(command_pb2.OUTCOME_CANCELLED, error, now)
        return [Tell(command)]

    def next_due(self) -> float | None:
        """When `forget` has something to do."""
        return self._lately.next_due()

    def forget(self, now: float) -> None:
        """Drops results that are too old for anybody."""
        self._lately.forget(now)

    # Who joins

    def _takes(self, lead: Command, ask: Ask, now: float) -> bool:
        """Whether what comes of the lead will do for this, and comes no later."""
        if lead.result is not None or lead.cancel_why is not None:
            return False
        if lead.twin is None or len(lead.twin.joined) >= MAX_JOINED:
            return False
        if lead.state is State.QUEUED:
            # In another line its own turn may come sooner.
            return lead.waits_until is None and lead.ask.share == ask.share
        return now - lead.written_at <= ask.share_s and self._is_current(lead)

    def _is_current(self, command: Command) -> bool:
        """Whether it was written to an executor that is still there, on the same stream and with the same policy."""
        connection = self._account.connections.of_instance(command.instance)
        announced = None if command.twin is None else command.twin.announced
        return connection is not None and connection.capabilities is announced

    def _join(self, command: Command, lead: Command) -> None:
        if command.twin is not None and lead.twin is not None:
            command.twin.lead = lead
            lead.twin.joined[command.command_id] = command

    def _lead(self, command: Command) -> None:
        if command.twin is not None and command.state in (State.QUEUED, State.WRITTEN):
            self._leads[command.twin.key] = command

    # What follows from ends

    def _ended(self, command: Command, now: float) -> list[Action]:
        if (twin := command.twin) is None:
            return []
        if (lead := twin.lead) is not None:
            return self._leave(command, lead, now)
        if command.ask.cache_s and twin.ran is None and self._is_current(command):
            self._lately.keep(twin.key, command, now)
        joined = self._let_go(command, twin)
        result = twin.ran or command.result
        if not joined or result is None:
            return []
        actions: list[Action] = []
        others = []
        room = MAX_ANSWERED_BYTES
        for each in joined:
            room -= ANSWER_BYTES + len(result.stdout) + len(result.stderr)
            # One always has it, so that this comes to an end.
            if (room >= 0 or not actions) and will_do(result, command, each, now):
                actions += self._answer(each, command, result, command_pb2.SERVED_FROM_SHARED, now)
            else:
                others.append(each)
        return actions + self._place_again(others, now)

    def _stalled(self, command: Command, now: float) -> list[Action]:
        """The others may not be ready to wait for their cluster as long as this one."""
        return [] if command.twin is None else self._place_again(self._let_go(command, command.twin), now)

    def _let_go(self, command: Command, twin: Twin) -> list[Command]:
        """Nobody waits for it any more; those who did."""
        if self._leads.get(twin.key) is command:
            del self._leads[twin.key]
        if not twin.joined:
            return []
        joined, twin.joined = list(twin.joined.values()), {}
        for each in joined:
            if each.twin is not None:
                each.twin.lead = None
        return joined

    def _leave(self, command: Command, lead: Command, now: float) -> list[Action]:
        """It does not wait for the lead any more; which stops, if it ran for it alone."""
        if command.twin is None or lead.twin is None:
            return []
        command.twin.lead = None
        del lead.twin.joined[command.command_id]
        if lead.twin.joined or lead.result is None or lead.state is State.DONE:
            return []
        return self._account.stop(lead, lead.result.error.message, now)

    def _answer(
        self,
        command: Command,
        other: Command,
        result: CommandResult,
        served_from: command_pb2.ServedFrom.ValueType,
        now: float,
    ) -> list[Action]:
        """The command has this result of the other one's."""
        command.conclude(answer_of(command, other, result, served_from, now))
        command.apply(Event.SHARED)
        command.transcript = other.transcript
        command.is_degraded = other.is_degraded
        return self._account.concluded(command, now)

    def _place_again(self, commands: Iterable[Command], now: float) -> list[Action]:
        """Places one of them, which the others join; until nothing is left to be placed."""
        actions: list[Action] = []
        waiting: list[Command] = []
        # The one with the most time leads: what has become of it by its deadline will do for all.
        for each in sorted(commands, key=lambda command: command.deadline):
            if each.deadline > now:
                waiting.append(each)
            else:
                outcome, error = command_pb2.OUTCOME_TIMED_OUT, timed_out(each)
                actions += self._account.end(each, Event.EXPIRED, outcome, error, now)
        while waiting:
            lead = waiting.pop()
            actions += self._routes.place_again(lead, now)
            if lead.state is State.DONE or lead.waits_until is not None:
                continue
            self._lead(lead)
            others, waiting = waiting, []
            for each in others:
                if lead.state is State.QUEUED and each.ask.share != lead.ask.share:
                    waiting.append(each)
                else:
                    self._join(each, lead)
        return actions
