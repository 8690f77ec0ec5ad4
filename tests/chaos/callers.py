"""Callers that ask for commands all the time, each as its own seed says, and write down what they were told."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from time import monotonic

from stage import CLUSTERS, GATEWAYS, KEY, Stage

from openline import ids
from openline.errors import OpenlineError
from openline.limits import DEADLINE_ALLOWANCE_S
from openline.pipes import Pipes
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.watching import execute_stream

# What a gateway gives the broker beyond the command's own time.
ALLOWANCE_S = 2 * DEADLINE_ALLOWANCE_S
CANCEL_TIMEOUT_S = 5.0


@dataclass(slots=True, eq=False)
class Asked:
    """One Execute and what came of it. Instants are time.monotonic's."""

    name: str
    request: pb.ExecuteRequest
    gateway: int
    live: bool
    asked_at: float = 0.0
    answered_at: float | None = None
    result: command_pb2.CommandResult | None = None
    error: command_pb2.Error | None = None
    replayed: bool = False
    # The caller went away on purpose, or somebody asked for a cancel.
    has_left: bool = False
    cancelled: bool = False
    # What no caller may ever see.
    wrong: str = ""
    # Of its output, a part is missing in the result.
    is_cut: bool = False

    def __str__(self) -> str:
        request = self.request
        told = "no answer" if self.answered_at is None else f"after {self.answered_at - self.asked_at:.2f} s"
        if self.result is not None:
            told += f" {command_pb2.Outcome.Name(self.result.outcome)}"
        if self.error is not None:
            executed = command_pb2.Executed.Name(self.error.executed)
            told += f" {self.error.reason} {executed} {self.error.message!r}"
        flags = [name for name in ("live", "replayed", "has_left", "cancelled") if getattr(self, name)]
        return (
            f"{self.name} {request.command_id} {request.cluster_id} {request.argv[-1]} timeout={request.timeout_s:.2f} "
            f"wait={request.wait_for_cluster_s:.1f} key={request.idempotency_key or '-'} gateway={self.gateway} "
            f"{' '.join(flags)}: {told} {self.wrong}"
        )

    @property
    def patience_s(self) -> float:
        return self.request.timeout_s + self.request.wait_for_cluster_s + ALLOWANCE_S

    @property
    def waited_s(self) -> float:
        return (self.answered_at or monotonic()) - self.asked_at

    @property
    def late_s(self) -> float:
        """How long after its deadline the caller was told."""
        return self.waited_s - self.patience_s

    @property
    def has_exited(self) -> bool:
        return self.result is not None and self.result.outcome == command_pb2.OUTCOME_EXITED


@dataclass(frozen=True, slots=True)
class Cancel:
    """A cancel that was asked for, and how long its answer took."""

    asked: Asked
    began_at: float
    took_s: float


class Callers:
    """`run` asks until the time is up and every answer is there."""

    def __init__(self, stage: Stage, seed: int, *, count: int, prefix: str = "c", longest_s: float = 9.0) -> None:
        self._stage = stage
        self._seed = seed
        self._count = count
        self._prefix = prefix
        self._longest_s = longest_s
        self._pipes: list[Pipes] = []
        self.asked: list[Asked] = []
        self.cancels: list[Cancel] = []
        # When this process itself was late, and by how much: what it adds to the waits that end then.
        self.lags: list[tuple[float, float]] = []

    async def run(self, seconds: float) -> None:
        until = monotonic() + seconds
        async with AsyncExitStack() as stack:
            for gateway in range(GATEWAYS):
                pipes = Pipes(self._stage.pipe_addresses(gateway), client=f"chaos {gateway}")
                self._pipes.append(await stack.enter_async_context(pipes))
            lag = asyncio.create_task(self._measure_lag())
            async with asyncio.TaskGroup() as callers:
                for number in range(self._count):
                    callers.create_task(self._call(number, until))
            lag.cancel()

    async def _measure_lag(self) -> None:
        while True:
            due = monotonic() + 0.1
            await asyncio.sleep(0.1)
            if (late_s := monotonic() - due) > 0.1:
                self.lags.append((monotonic(), late_s))

    async def _call(self, number: int, until: float) -> None:
        draw = random.Random(f"{self._seed} caller {number}")
        for count in range(1_000_000):
            await asyncio.sleep(draw.uniform(0, 0.8))
            if monotonic() > until:
                return
            asks = self._draw(draw, f"{self._prefix}{number}n{count}", number % GATEWAYS)
            delays = [0.0, *(draw.choice([0, draw.uniform(0, 4)]) for _ in asks[1:])]
            cancel_after_s = draw.uniform(0, 2) if draw.random() < 0.08 else None
            leave_after_s = draw.uniform(0, 1.5) if draw.random() < 0.05 else None
            async with asyncio.TaskGroup() as group:
                for asked, delay_s in zip(asks, delays, strict=True):
                    group.create_task(self._ask(asked, delay_s, leave_after_s))
                if cancel_after_s is not None:
                    group.create_task(self._cancel(asks, cancel_after_s))

    def _draw(self, draw: random.Random, name: str, gateway: int) -> list[Asked]:
        """The asks for one command: with a key it is asked for several times, each time under an id of its own."""
        sleep_s = draw.choices([0, draw.uniform(0.1, 2), draw.uniform(4, 9)], [70, 22, 8])[0]
        sleep_s = min(sleep_s, self._longest_s)
        timeout_s = draw.choices([sleep_s + 15, draw.uniform(0.2, 1.5)], [85, 15])[0]
        key = f"key-{name}" if draw.random() < 0.3 else ""
        cluster_id = draw.choices(list(CLUSTERS), [4, 4, 2])[0]
        live = draw.random() < 0.35
        wait_s = draw.choice([0, 0, 5])
        cancel_on_disconnect = draw.random() < 0.05
        asks = []
        for _ in range(draw.choice([1, 2, 3]) if key else 1):
            request = pb.ExecuteRequest(
                cluster_id=cluster_id,
                argv=["get", "pods", name, "-n", f"sleep-{sleep_s:.2f}".replace(".", "-")],
                timeout_s=timeout_s,
                wait_for_cluster_s=wait_s,
                idempotency_key=key,
                command_id=ids.new_id(),
                cancel_on_disconnect=cancel_on_disconnect,
            )
            asks.append(Asked(name, request, gateway if not asks else draw.randrange(GATEWAYS), live))
        return asks

    async def _ask(self, asked: Asked, delay_s: float, leave_after_s: float | None) -> None:
        await asyncio.sleep(delay_s)
        asked.request.command_id = ids.new_id()  # when it was made tells the broker whether it may be known
        asked.asked_at = monotonic()
        self.asked.append(asked)
        try:
            async with asyncio.timeout(leave_after_s):
                await (self._execute_live(asked) if asked.live else self._execute(asked))
        except OpenlineError as failure:
            asked.error = failure.error
            asked.result = failure.result
        except TimeoutError:
            asked.has_left = True
        except Exception as defect:
            asked.wrong = f"a caller saw {defect!r}"
        if not asked.has_left:
            asked.answered_at = monotonic()

    async def _execute(self, asked: Asked) -> None:
        pipes = self._pipes[asked.gateway]
        response = await pipes.execute(asked.request, api_key=KEY, timeout_s=asked.patience_s)
        asked.replayed = response.replayed
        _keep(asked, response.result)

    async def _execute_live(self, asked: Asked) -> None:
        pipes = self._pipes[asked.gateway]
        stdout, next_seq, is_whole = b"", 0, True
        async with aclosing(execute_stream(pipes, asked.request, api_key=KEY, timeout_s=asked.patience_s)) as events:
            async for event in events:
                if asked.result is not None:
                    asked.wrong = "something came after the result"
                match event.WhichOneof("event"):
                    case "output":
                        if event.output.seq < next_seq:
                            asked.wrong = f"output {event.output.seq} came again"
                        next_seq = event.output.seq + 1
                        if event.output.source == command_pb2.OUTPUT_SOURCE_STDOUT:
                            stdout += event.output.data
                    case "gap":
                        is_whole = False
                    case "result":
                        _keep(asked, event.result)
        if asked.result is None:
            asked.wrong = "the stream ended without a result"
        elif is_whole and asked.has_exited and not stdout.endswith(asked.result.stdout):
            asked.wrong = f"live output {stdout!r} is not that of the result, {asked.result.stdout!r}"

    async def _cancel(self, asks: Sequence[Asked], after_s: float) -> None:
        await asyncio.sleep(after_s)
        for asked in asks:
            asked.cancelled = True
        asked = asks[0]
        began_at = monotonic()
        try:
            request = pb.CancelCommandRequest(command_id=asked.request.command_id)
            pipes = self._pipes[(asked.gateway + 1) % GATEWAYS]
            await pipes.cancel(request, api_key=KEY, timeout_s=CANCEL_TIMEOUT_S)
        except OpenlineError:
            pass  # too early, too late, or out of reach
        self.cancels.append(Cancel(asked, began_at, monotonic() - began_at))


def _keep(asked: Asked, result: command_pb2.CommandResult) -> None:
    asked.result = result
    if result.HasField("error"):
        asked.error = result.error
    elif result.outcome != command_pb2.OUTCOME_EXITED:
        asked.wrong = "an outcome that is neither an exit nor explained"
    elif result.exit_code == 0:
        whole = f"begun {asked.name}\ndone {asked.name}\n".encode()
        # A replica that takes over a command with live output has only what came since; it says how much is missing.
        cut = len(whole) - len(result.stdout)
        if not whole.endswith(result.stdout) or result.stdout_summary.cut_bytes != cut or (cut and not asked.live):
            asked.wrong = f"the output is not the command's: {result.stdout!r}"
        asked.is_cut = cut > 0
