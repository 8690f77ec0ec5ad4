"""Holds what callers were told against what ran, and prints the account of it."""

import asyncio
import gc
import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import grpc
import redis
from callers import CANCEL_TIMEOUT_S, Asked, Cancel
from faults import Faults
from stage import CLUSTERS, METADATA, REPLICAS, Stage

from openline.channels import CLIENT_OPTIONS
from openline.errors import OpenlineError, from_rpc_error
from openline.reasons import NO, YES, Reason
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import GetCommandRequest
from openline.v1.command_service_pb2_grpc import CommandServiceStub

# What a caller may be told when everything around it breaks; the rest is a defect of ours.
EXPLAINS = {
    Reason.CLUSTER_OFFLINE,
    Reason.CLUSTER_BUSY,
    Reason.EXECUTOR_LOST,
    Reason.COMMAND_TIMEOUT,
    Reason.CANCELLED,
    Reason.STORE_UNAVAILABLE,
    Reason.BROKER_UNAVAILABLE,
}
# What has no TTL, with its reason in broker/store/keys.py.
FOR_EVER = {"openline:audit", "openline:executor-tokens"}
FETCHES = 16
CLOSED_S = 15.0
# A replica may have all executors in the end that were spread before, and a pipe to and from every other replica.
MORE_FILES = sum(map(len, CLUSTERS.values())) + 2 * (REPLICAS - 1)
MORE_MIB = 48


class Account:
    """Rows of a table, and whatever was found that must not be."""

    def __init__(self, asked: Sequence[Asked], runs_file: Path, faults: Faults) -> None:
        self._asked = asked
        self._faults = faults
        self.runs = Counter(line.split()[0] for line in runs_file.read_text().splitlines())
        self._where = runs_file
        self.rows: list[tuple[str, object]] = []
        self.defects: list[str] = []

    def require(self, row: str, found: Sequence[object]) -> None:
        """None of these may be."""
        self.rows.append((row, len(found)))
        self.defects += [f"{row}: {each}" for each in found]

    def judge_answers(self, lags: Sequence[tuple[float, float]]) -> None:
        asked = self._asked
        told = [each for each in asked if each.answered_at is not None]
        self.rows.append(("asked", len(asked)))
        self.rows.append(("  with an idempotency key", sum(bool(each.request.idempotency_key) for each in asked)))
        self.rows.append(("  with live output", sum(each.live for each in asked)))
        self.rows.append(("the caller left", sum(each.has_left for each in asked)))
        self.rows.append(("answered with a result", sum(each.has_exited for each in asked)))
        self.rows.append(("  with the end of the output only", sum(each.is_cut for each in asked)))
        self.rows.append(("  with that of an earlier request", sum(each.replayed for each in asked)))
        reasons = Counter(
            (each.error.reason, command_pb2.Executed.Name(each.error.executed).removeprefix("EXECUTED_").lower())
            for each in told
            if each.error is not None
        )
        self.rows += [(f"failed: {reason}, executed={how}", count) for (reason, how), count in sorted(reasons.items())]
        self.require("neither answered nor explained", [each for each in asked if not _is_explained(each)])
        self.require("seen by a caller and wrong", [each for each in asked if each.wrong])
        ends_at = {each: each.asked_at + each.waited_s for each in asked}
        late = [
            each
            for each, at in ends_at.items()
            if not each.has_left and each.late_s > 1 + _lag_s(at - each.late_s, at, lags)
        ]
        self.require("waited past its deadline plus a second", late)
        self.rows.append(("  this process was late by, at most, s", f"{max((s for _, s in lags), default=0):.2f}"))

    def judge_cancels(self, cancels: Sequence[Cancel], lags: Sequence[tuple[float, float]]) -> None:
        late = [
            f"cancel of {each.asked} took {each.took_s:.1f} s"
            for each in cancels
            if each.took_s > CANCEL_TIMEOUT_S + 1 + _lag_s(each.began_at, each.began_at + each.took_s, lags)
        ]
        self.require("cancels that took too long", late)

    def judge_runs(self) -> None:
        by_name = defaultdict(list)
        for each in self._asked:
            by_name[each.name].append(each)
        again = [name for name, count in self.runs.items() if count > 1]
        # Whoever asks again with a key after Redis has lost its claims is a first one to it.
        excused = {name for name in again if self._has_lost_claim(by_name[name])}
        self.require("run twice", [[str(each) for each in by_name[name]] for name in again if name not in excused])
        self.rows.append(("  run again after Redis had lost the claim", len(excused)))
        no, yes, exits = [], [], []
        for name, asks in by_name.items():
            executed = {each.error.executed for each in asks if each.error is not None}
            had_time = any(map(_had_time, asks))
            surely_not = all(each.answered_at is not None and each.error is not None for each in asks)
            if self.runs[name] and surely_not and executed == {NO}:
                no.append([str(each) for each in asks])
            if not self.runs[name] and YES in executed and had_time:
                yes.append([str(each) for each in asks])
            if not self.runs[name] and any(each.has_exited for each in asks):
                exits.append([str(each) for each in asks])
        self.require("told executed=no, and run", no)
        self.require("told executed=yes, and not run", yes)
        self.require("told a result, and not run", exits)

    async def judge_results(self, stage: Stage) -> None:
        """Asks for every result again, each of some replica."""
        wanted = [each for each in self._asked if each.result is not None]
        fetched: dict[str, command_pb2.Command | OpenlineError] = {}
        todo = iter(wanted)

        async def fetch(stub: CommandServiceStub) -> None:
            for each in todo:
                assert each.result is not None
                fetched[each.request.command_id] = await _get(stub, each.result.command_id)

        channels = [grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS) for address in stage.addresses]
        async with asyncio.TaskGroup() as group:
            for _, channel in zip(range(FETCHES), itertools.cycle(channels), strict=False):
                group.create_task(fetch(CommandServiceStub(channel)))
        for channel in channels:
            await channel.close()
        lost, changed, other = [], [], []
        excused = cut = same = 0
        for each in wanted:
            found = fetched[each.request.command_id]
            if isinstance(found, OpenlineError):
                if any(emptied_at > each.asked_at for emptied_at in self._faults.emptied_at):
                    excused += 1
                elif each.has_exited:
                    lost.append(f"{each}: {found}")
                else:
                    other.append(f"{each}: {found}")
            elif each.live and _is_end(found.result, each.result):
                # The replica that had the beginning, and told it, was killed before Redis had taken the result.
                cut += 1
            elif _differs(each.result, found.result):
                (changed if each.has_exited else other).append(f"{each}: now {' '.join(str(found.result).split())}")
            else:
                same += 1
        self.rows.append(("results fetched again by id, the same", same))
        self.rows.append(("  the end of the output only", cut))
        self.rows.append(("  gone with what Redis had", excused))
        self.require("  gone though Redis had kept everything", lost)
        self.require("  another one than the caller was given", changed)
        self.rows.append(("  of commands that did not exit: gone or other", len(other)))
        (self._where.parent / "other-results").write_text("".join(f"{each}\n" for each in other))

    async def judge_leaks(self, stage: Stage, before: dict[str, tuple[int, float]], stuck: str) -> None:
        self.require("executors not connected everywhere, or never idle again", [stuck] if stuck else [])
        self.require("keys without TTL", keys_without_ttl(stage.redis))
        leaks = []
        # The callers' own connections, which replicas have the other end of, close when nothing holds their calls.
        gc.collect()
        for process in (*stage.brokers, *stage.executors.values()):
            files, memory_mib = before[process.name]
            until = monotonic() + CLOSED_S
            while (now_files := process.open_files(without=stage.redis_port)) > files + MORE_FILES:
                if monotonic() > until:
                    break
                await asyncio.sleep(0.5)
            now_mib = process.memory_mib()
            self.rows.append(
                (f"  {process.name}: open files, MiB", f"{files} {memory_mib:.0f} -> {now_files} {now_mib:.0f}")
            )
            if now_files > files + MORE_FILES or now_mib > memory_mib + MORE_MIB:
                leaks.append(f"{process.name}: {files} files, {memory_mib:.0f} MiB -> {now_files}, {now_mib:.0f} MiB")
        self.require("processes with more open files or memory than before", leaks)
        self.require(
            "processes that ended as they must not", [end for each in stage.processes for end in each.bad_ends]
        )
        complaints = [f"{each.name}: {line}" for each in stage.processes[1:] for line in each.complaints()]
        self.require("errors in logs", complaints)

    def __str__(self) -> str:
        width = max(len(row) for row, _ in self.rows)
        return "\n".join(f"{row:{width}}  {value}" for row, value in self.rows)

    def _has_lost_claim(self, asks: Sequence[Asked]) -> bool:
        first, last = min(each.asked_at for each in asks), max(each.answered_at or each.asked_at for each in asks)
        has_key = len(asks) > 1 and all(each.request.idempotency_key for each in asks)
        return has_key and any(first < emptied_at < last for emptied_at in self._faults.emptied_at)


def _lag_s(since: float, until: float, lags: Sequence[tuple[float, float]]) -> float:
    """How late this process was meanwhile."""
    return sum(late_s for at, late_s in lags if since <= at <= until + 0.2)


def _had_time(asked: Asked) -> bool:
    """A process that was stopped at once may not have come so far as to say that it ran."""
    if asked.error is None or asked.error.reason == Reason.CANCELLED or asked.waited_s <= 1:
        return False
    # Zero is that of one whose executor did not say.
    run_s = 0.0 if asked.result is None else asked.result.timings.run_s
    return not 0 < run_s <= 0.5


def keys_without_ttl(store: "redis.Redis") -> list[str]:
    return [
        key.decode() for key in store.scan_iter(count=1000) if key.decode() not in FOR_EVER and store.ttl(key) == -1
    ]


def _is_explained(asked: Asked) -> bool:
    if asked.has_left or asked.has_exited:
        return True
    if asked.error is None or asked.error.reason not in set(EXPLAINS):
        return False
    if asked.error.reason == Reason.CANCELLED:
        is_stopped = asked.error.message == "the executor is stopping"
        return asked.cancelled or asked.request.cancel_on_disconnect or is_stopped
    return asked.error.executed != command_pb2.EXECUTED_UNSPECIFIED


def _differs(one: command_pb2.CommandResult | None, other: command_pb2.CommandResult) -> bool:
    assert one is not None
    return (one.outcome, one.exit_code, one.stdout) != (other.outcome, other.exit_code, other.stdout)


def _is_end(one: command_pb2.CommandResult, whole: command_pb2.CommandResult | None) -> bool:
    """Whether it is the same result without the beginning of its output, and says so."""
    assert whole is not None
    missing = len(whole.stdout) - len(one.stdout)
    says = one.stdout_summary.cut_bytes - whole.stdout_summary.cut_bytes
    return 0 < missing == says and whole.stdout.endswith(one.stdout) and one.outcome == whole.outcome


async def _get(stub: CommandServiceStub, command_id: str) -> command_pb2.Command | OpenlineError:
    try:
        return (await stub.GetCommand(GetCommandRequest(command_id=command_id), metadata=METADATA, timeout=5)).command
    except grpc.RpcError as status:
        return from_rpc_error(status)
