"""Breaks an installation for some minutes, at random, and holds what callers are told against what ran.

`python tests/chaos [--seconds 240] [--seed N]`: real processes on loopback. The seed decides what is asked and what
breaks when; how fast the machine is decides the rest. Prints the seed first and an account last; ends with 1 if
anything is in it that must not be, and then keeps the logs.
"""

import argparse
import asyncio
import contextlib
import random
import shutil
import sys
import tempfile
from pathlib import Path

import redis
from callers import Callers
from faults import Faults
from judging import Account, keys_without_ttl
from stage import Stage

from openline.logs import set_up_logs

# When everything is whole again: an executor that was frozen is noticed after 23 s, and a reconnect waits for seconds.
SETTLE_S = 45.0
WATCH_KEYS_EVERY_S = 3.0


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def watch_keys(stage: Stage, found: set[str]) -> None:
    while True:
        await asyncio.sleep(WATCH_KEYS_EVERY_S)
        if not stage.redis_process.is_busy:
            with contextlib.suppress(redis.RedisError):
                found.update(await asyncio.to_thread(keys_without_ttl, stage.redis))


async def play(here: Path, *, seconds: float, seed: int, callers_count: int) -> Account:
    async with Stage.set_up(here) as stage:
        warm = Callers(stage, seed, count=10, prefix="warm", longest_s=0.2)
        await warm.run(2)
        await stage.until_all_connected(SETTLE_S)
        processes = [*stage.brokers, *stage.executors.values()]
        before = {
            process.name: (process.open_files(without=stage.redis_port), process.memory_mib()) for process in processes
        }
        faults = Faults(stage, seed)
        callers = Callers(stage, seed, count=callers_count)
        eternal: set[str] = set()
        watch = asyncio.create_task(watch_keys(stage, eternal))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(faults.run(seconds))
                group.create_task(callers.run(seconds))
        finally:
            watch.cancel()
            (here / "faults").write_text("".join(f"{line}\n" for line in faults.happened))
            (here / "asked").write_text("".join(f"{each}\n" for each in callers.asked))
        stuck = ""
        try:
            await stage.until_all_connected(SETTLE_S)
        except TimeoutError:
            seen = [await stage.clusters(number) for number in range(len(stage.brokers))]
            stuck = " ".join(str(seen).split())
        account = Account(callers.asked, stage.runs_file, faults)
        account.rows += [("faults", len(faults.happened)), ("starts", sum(each.starts for each in stage.processes))]
        account.judge_answers(callers.lags)
        account.judge_runs()
        account.judge_cancels(callers.cancels, callers.lags)
        await account.judge_results(stage)
        account.require("keys that were seen without TTL meanwhile", sorted(eternal))
        await account.judge_leaks(stage, before, stuck)
        return account


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240.0, help="how long things break")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--callers", type=int, default=30)
    given = parser.parse_args()
    set_up_logs("error", "console")
    here = Path(tempfile.mkdtemp(prefix="openline-chaos-"))
    say(f"seed {given.seed}, {given.seconds:g} s, {given.callers} callers, in {here}")
    account = asyncio.run(play(here, seconds=given.seconds, seed=given.seed, callers_count=given.callers))
    say(str(account))
    if account.defects:
        (here / "defects").write_text("".join(f"{each}\n" for each in account.defects))
        for defect in account.defects[:20]:
            say(f"! {defect[:600]}")
        say(f"seed {given.seed}: {len(account.defects)} defects; everything is in {here}")
        return 1
    shutil.rmtree(here)
    return 0


if __name__ == "__main__":
    sys.exit(main())
