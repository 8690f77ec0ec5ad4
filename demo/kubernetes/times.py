"""Instants and durations as Kubernetes writes them. Instants are seconds since the epoch, as float."""

import re
from datetime import UTC, datetime

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "y": 31536000}
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 31536000

# Below this many seconds: shown in this unit, and with the remainder in that one. As in apimachinery's HumanDuration.
_HUMAN: tuple[tuple[float, str, str], ...] = (
    (2 * _MINUTE, "s", ""),
    (10 * _MINUTE, "m", "s"),
    (3 * _HOUR, "m", ""),
    (8 * _HOUR, "h", "m"),
    (48 * _HOUR, "h", ""),
    (8 * _DAY, "d", "h"),
    (2 * _YEAR, "d", ""),
    (8 * _YEAR, "y", "d"),
    (float("inf"), "y", ""),
)


def stamp(instant: float) -> str:
    """RFC 3339 in whole seconds: metav1.Time."""
    return datetime.fromtimestamp(int(instant), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_stamp(instant: float) -> str:
    """RFC 3339 in microseconds: metav1.MicroTime."""
    return datetime.fromtimestamp(instant, UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def instant(text: str) -> float:
    """The instant that an RFC 3339 stamp names. Raises ValueError for anything else."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def seconds(text: str) -> float:
    """`3d4h` or `90s` in seconds. Raises ValueError for anything else."""
    parts = re.findall(r"(\d+)([smhdy])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"not a duration: {text!r}")
    return float(sum(int(number) * _SECONDS[unit] for number, unit in parts))


def human(duration_s: float) -> str:
    """A duration as it stands in an AGE column: `45s`, `9m30s`, `3d4h`, `41d`."""
    whole = int(duration_s)
    if whole < -1:
        return "<invalid>"
    whole = max(whole, 0)
    unit, rest = next((unit, rest) for limit, unit, rest in _HUMAN if whole < limit)
    count, left = divmod(whole, _SECONDS[unit])
    tail = left // _SECONDS[rest] if rest else 0
    return f"{count}{unit}{tail}{rest}" if tail else f"{count}{unit}"


def ago(text: str | None, now: float) -> str:
    """The time since a stamp, as an AGE column shows it."""
    return human(now - instant(text)) if text else "<unknown>"
