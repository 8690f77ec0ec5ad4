"""`idle`: what open streams cost a broker that has nothing to do: memory of each, and CPU of all."""

from dataclasses import dataclass

from pydantic import Field

from loadtest.bench import Bench
from loadtest.processes import Processes, memory_kib
from loadtest.report import Fact
from loadtest.screen import Screen
from loadtest.settings import ReportSettings, Seconds
from loadtest.stage import Stage, new_token, open_stage

# As executors that are started by a rollout. The crowd is not what is measured.
BETWEEN_STARTS_S = 0.002
# What the handshakes leave behind is gone then, and every executor has had a heartbeat.
SETTLE_S = 5.0
# A cluster of its own for each executor, up to here: a broker gets their tokens in one environment variable.
MAX_CLUSTERS = 1000


class IdleSettings(ReportSettings):
    """Opens streams that do nothing, and says what they cost the broker. Always on loopback."""

    streams: int = Field(5000, ge=1, le=20_000)
    """How many executors, each with a stream."""
    seconds: Seconds = 28.0
    """How long the CPU time is counted; two heartbeats of each, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Idle:
    """What idle streams cost a broker."""

    stream_kib: float  # memory of each
    cores: float  # CPU of all of them together, as a part of one core
    valkey_cores: float


async def run(settings: IdleSettings, bench: Bench) -> None:
    async with open_stage() as stage:
        idle = await measure_idle(stage, bench.screen, streams=settings.streams, seconds=settings.seconds)
    per_thousand = 1000 / settings.streams
    bench.report.facts += [
        Fact("streams", settings.streams, ""),
        Fact("broker memory per stream", idle.stream_kib, "KiB"),
        Fact("broker memory per 1,000 streams", idle.stream_kib * 1000 / 1024, "MiB"),
        Fact("broker CPU", idle.cores * 100, "% of a core"),
        Fact("broker CPU per 1,000 streams", idle.cores * 100 * per_thousand, "% of a core"),
        Fact("Valkey CPU", idle.valkey_cores * 100, "% of a core"),
    ]


async def measure_idle(stage: Stage, screen: Screen, *, streams: int, seconds: float) -> Idle:
    """Starts a broker, looks at its memory, opens the streams, and looks again. Raises StartFailed."""
    token = new_token()
    each = -(-streams // MAX_CLUSTERS)
    clusters = [f"idle-{number}" for number in range(-(-streams // each))]
    broker = await stage.broker("broker-idle", await stage.valkey("valkey-idle"), clusters, token)
    before_kib = memory_kib(stage.pids)["broker-idle"]
    flag = f"--between-starts={BETWEEN_STARTS_S}"
    await stage.executors("crowd", [broker], clusters, token, flag, each=each)
    await screen.wait("settling", SETTLE_S)
    processes = Processes(stage.pids)
    before = processes.cpu_s()
    await screen.wait(f"{each * len(clusters):,} idle streams", seconds)
    after = processes.cpu_s()
    used = {name: (after[name] - before[name]) / seconds for name in after}
    grown_kib = memory_kib(stage.pids)["broker-idle"] - before_kib
    return Idle(grown_kib / (each * len(clusters)), used["broker-idle"], used["valkey-idle"])
