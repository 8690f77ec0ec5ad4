"""The ratios that openline is judged by, and whether they have become worse than those that are committed."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtest.compare.contenders import Rounds, Turn, median_of_ratios

Value = Callable[[Turn], float]


def p50(turn: Turn) -> float:
    return turn.p50_ms


def rate(turn: Turn) -> float:
    return turn.rate


def cpu_of(process: str) -> Value:
    return lambda turn: turn.cpu_us.get(process, 0.0)


@dataclass(frozen=True, slots=True)
class Ratio:
    """One contender over another."""

    over: str
    under: str
    value: Value
    under_value: Value | None = None  # where it is not the same
    more_is_better: bool = False

    def of(self, rounds: Rounds) -> float | None:
        """None when one of the two was not measured."""
        if self.over not in rounds or self.under not in rounds:
            return None
        return median_of_ratios(
            [self.value(turn) for turn in rounds[self.over]],
            [(self.under_value or self.value)(turn) for turn in rounds[self.under]],
        )


RATIOS: dict[str, Ratio] = {
    "pipe_c1_p50_over_nats": Ratio("pipe_c1", "nats_c1", p50),
    "pipe_c64_rate_over_nats": Ratio("pipe_c64", "nats_c64", rate, more_is_better=True),
    "pipe_c64_32clusters_rate_over_nats": Ratio("pipe_c64_32clusters", "nats_c64", rate, more_is_better=True),
    "unary_c1_p50_over_echo": Ratio("unary_c1", "echo_c1", p50),
    "forwarded_c1_p50_over_local": Ratio("forwarded_c1", "pipe_c1", p50),
    "rest_cpu_over_bare_uvicorn": Ratio("rest_c16", "bare_uvicorn_c16", cpu_of("gateway"), cpu_of("bare")),
    "rest_kubectl_p50_over_bare_kubectl": Ratio("rest_kubectl_c1", "bare_kubectl_c1", p50),
}
# Not a ratio of two contenders, but KiB of broker memory for an idle stream.
IDLE = "idle_stream_kib"
KEYS = (*RATIOS, IDLE)


def read_committed(file: Path) -> dict[str, float]:
    """The ratios of a file that `--json` has written. Raises ValueError."""
    try:
        ratios = json.loads(file.read_text())["ratios"]
        return {key: float(value) for key, value in ratios.items() if key in KEYS and value is not None}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"there are no ratios in {file}") from None


def worse(now: Mapping[str, float | None], committed: Mapping[str, float], *, tolerance: float) -> dict[str, str]:
    """A sentence for each key whose ratio is worse than the committed one by more than so large a part of it."""
    found = {}
    for key, before in committed.items():
        ratio = now.get(key)
        if ratio is None:
            continue
        more_is_better = key in RATIOS and RATIOS[key].more_is_better
        bound = before * (1 - tolerance) if more_is_better else before * (1 + tolerance)
        if ratio < bound if more_is_better else ratio > bound:
            side = "below" if more_is_better else "above"
            found[key] = f"{key} is {ratio:.2f}, {side} {bound:.2f} (committed: {before:.2f})"
    return found
