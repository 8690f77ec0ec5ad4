"""The policy in force: the default one, or what --policy FILE says, read again when the file changes."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from executor.policy_file import PolicyUnusable, read_policy
from openline.fresh import Mark, look
from openline.policy import Allowed, Denied, Policy
from openline.policy import judge as judge_by

# A change is taken over at the second look after it. A look at a file takes microseconds.
LOOK_EVERY_S = 1.0

log = structlog.get_logger()


class PolicyInForce:
    """Without a file it is the default one for good. Raises PolicyUnusable for a file that cannot be used."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        # Of the state that was taken or refused last, and of the one that was there at the last look.
        self._mark = self._seen = self._look()
        self.policy = Policy() if file is None else self._read(file)

    def judge(self, argv: Sequence[str], *, streamed: bool, remaining_s: float) -> Allowed | Denied:
        """Decides by the policy of this moment; see `openline.policy.judge`."""
        return judge_by(argv, self.policy, streamed=streamed, remaining_s=remaining_s)

    async def watch(self, changed: Callable[[Policy], None]) -> None:
        """Looks at the file until it is cancelled by its owner, and calls `changed` after each change of the policy."""
        while self._file is not None:
            await asyncio.sleep(LOOK_EVERY_S)
            if self.read_again():
                changed(self.policy)

    def read_again(self) -> bool:
        """Looks once, and takes over what is new and can be used; otherwise the policy stays as it is.

        Not before it has stayed the same for two looks: the first part of a file may be a wider policy than the whole.
        """
        if self._file is None:
            return False
        mark, before = self._look(), self._seen
        self._seen = mark
        if mark == self._mark or mark != before:
            return False
        # Before it is read: what is written meanwhile is read the next time.
        self._mark = mark
        try:
            policy = self._read(self._file)
        except PolicyUnusable as problem:
            log.error("policy.refused", why=str(problem), digest=self.policy.digest)
            return False
        if policy == self.policy:
            return False
        self.policy = policy
        log.info("policy.changed", digest=policy.digest)
        return True

    def _read(self, file: Path) -> Policy:
        """What the file says in the state in which it was seen last; raises PolicyUnusable for any other."""
        policy = read_policy(file)
        if self._look() != self._seen:
            raise PolicyUnusable(f"{file} was written while it was read")
        return policy

    def _look(self) -> Mark:
        return None if self._file is None else look(self._file)
