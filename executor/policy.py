"""The policy in force: the default one, or what --policy FILE says, read again when the file changes."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from executor.policy_file import PolicyUnusable, read_policy
from openline.policy import Allowed, Denied, Policy
from openline.policy import judge as judge_by

# How long a change may go unnoticed. A look at a file takes microseconds.
LOOK_EVERY_S = 1.0

log = structlog.get_logger()

# What tells one state of a file from another: Kubernetes replaces a mounted file by another one.
Mark = tuple[int, int, int] | None


class PolicyInForce:
    """Without a file it is the default one for good. Raises PolicyUnusable for a file that cannot be used."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._mark = self._look()
        self.policy = Policy() if file is None else read_policy(file)

    def judge(self, argv: Sequence[str], *, streamed: bool, remaining_s: float) -> Allowed | Denied:
        """Decides by the policy of this moment; see `openline.policy.judge`."""
        return judge_by(argv, self.policy, streamed=streamed, remaining_s=remaining_s)

    async def watch(self, changed: Callable[[Policy], None]) -> None:
        """Looks at the file until it is cancelled by its owner, and calls `changed` after each change of the policy."""
        while self._file is not None:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._read_again(self._file):
                changed(self.policy)

    def _read_again(self, file: Path) -> bool:
        """Takes over what the file says, if that is new and can be used; otherwise the policy stays as it is."""
        mark = self._look()
        if mark == self._mark:
            return False
        # Before it is read: what is written meanwhile is read the next time.
        self._mark = mark
        try:
            policy = read_policy(file)
        except PolicyUnusable as problem:
            log.error("policy.refused", why=str(problem), digest=self.policy.digest)
            return False
        if policy == self.policy:
            return False
        self.policy = policy
        log.info("policy.changed", digest=policy.digest)
        return True

    def _look(self) -> Mark:
        """None for a file that cannot be looked at."""
        if self._file is None:
            return None
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
