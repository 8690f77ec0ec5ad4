"""What processes use: CPU time and memory, as the kernel counts them."""

from collections.abc import Mapping

import psutil

US = 1e6


class Processes:
    """Some processes by name. One that has ended has used nothing since."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._last_s = dict.fromkeys(self._processes, 0.0)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds that each has used since it began; the kernel counts in steps of 10 ms."""
        for name, process in self._processes.items():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            self._last_s[name] = times.user + times.system
        return dict(self._last_s)


def memory_kib(pids: Mapping[str, int]) -> dict[str, float]:
    """What each of them occupies now, in KiB. Raises psutil.NoSuchProcess."""
    return {name: psutil.Process(pid).memory_info().rss / 1024 for name, pid in pids.items()}


def used_us(before: Mapping[str, float], after: Mapping[str, float], count: int) -> dict[str, float]:
    """CPU for each of `count` commands in µs, of the processes that used any; nothing when there was no command."""
    if not count:
        return {}
    spent = {name: (seconds - before.get(name, 0.0)) * US / count for name, seconds in after.items()}
    return {name: us for name, us in spent.items() if us > 0}
