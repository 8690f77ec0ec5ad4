"""The same asked for again and again, to the same end: noticed, and said to whoever does it. Pure.

It is in the memory of the replica that is asked, and nowhere else: a caller who changes replicas is counted anew, which
costs a hint and nothing else. `now` is the loop's clock.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from broker.core.command import Command
from openline.errors import HINT
from openline.reasons import MEANING, Reason, reason_of
from openline.v1 import command_pb2

# It is said when it is the third time within this.
WINDOW_S = 60.0
SAID_FROM = 3
# Of all callers; of so many the one that was asked for the longest ago is forgotten. Some 300 bytes each.
MAX_CALLS = 10_000
# Longer output is not looked at before its command is run for the second time: what is run once costs next to nothing.
SHORT_BYTES = 2048

# Who it is that repeats itself: an owner's session or correlation id, and without any at least the key, by its digest;
# where, and what.
Call = tuple[tuple[str, str | bytes], str, Sequence[str]]


@dataclass(slots=True)
class _Seen:
    """How a call has ended so far, in a row. Who asks before the last of them has ended repeats nothing: no count."""

    end: object
    count: int
    first_at: float
    # When the last three that count have ended, the oldest first.
    ended_at: tuple[float, float, float]


class Repetitions:
    def __init__(self, *, max_calls: int = MAX_CALLS) -> None:
        self._max_calls = max_calls
        # By their hashes. The one that was asked for last stands last.
        self._seen: OrderedDict[int, _Seen] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Repetitions calls={len(self._seen)}>"

    def __len__(self) -> int:
        return len(self._seen)

    def ended(self, call: Call, result: command_pb2.CommandResult, *, asked_at: float, now: float) -> str:
        """A command has its result; what its caller is to be told, empty for nothing."""
        key = hash(call)
        if result.outcome != command_pb2.OUTCOME_EXITED:
            return self.refused(call, result.error, asked_at=asked_at, now=now)
        total_bytes = result.stdout_summary.total_bytes
        end: object = None
        if total_bytes <= SHORT_BYTES or key in self._seen:
            stdout, stderr = result.stdout, result.stderr
            # Of which some was cut, that is never called the same.
            if len(stdout) == total_bytes and (not stderr or len(stderr) == result.stderr_summary.total_bytes):
                end = (result.exit_code, hash(stdout), hash(stderr))
        count, span_s = self._again(key, end, asked_at, now)
        return _same(_often(call, count, span_s)) if count else ""

    def concluded(self, command: Command, *, now: float) -> None:
        """Puts into the command's result what its caller is to be told, before anybody sees it."""
        ask, result = command.ask, command.result
        if result is None:
            return
        asker = ask.owner, ask.session_id or ask.correlation_id or ask.key
        call = asker, ask.cluster_id, ask.argv
        if hint := self.ended(call, result, asked_at=command.created_at, now=now):
            result.hint = hint
            if result.HasField("error"):
                result.error.metadata[HINT] = hint

    def refused(self, call: Call, error: command_pb2.Error, *, asked_at: float, now: float) -> str:
        """The same for a request that does not become a command."""
        count, span_s = self._again(hash(call), error.reason, asked_at, now)
        return _of(reason_of(error), _often(call, count, span_s)) if count else ""

    def _again(self, key: int, end: object, asked_at: float, now: float) -> tuple[int, float]:
        """How often it has ended so in a row, and in what time; 0 if not often enough within the window.

        None is another end each time.
        """
        seen = self._seen.get(key)
        if seen is None:
            self._seen[key] = _Seen(end, 1, now, (now, now, now))
            if len(self._seen) > self._max_calls:
                self._seen.popitem(last=False)
            return 0, 0.0
        self._seen.move_to_end(key)
        _, before_at, last_at = seen.ended_at
        if end is None or seen.end != end or now - last_at > WINDOW_S:
            seen.end, seen.count, seen.first_at = end, 0, now
        if not seen.count or asked_at >= last_at:
            seen.count += 1
            seen.ended_at = before_at, last_at, now
        # All that were asked for after the second answer are told, whichever of them ends first.
        oldest_at, second_at, _ = seen.ended_at
        is_told = seen.count >= SAID_FROM and now - oldest_at <= WINDOW_S and asked_at >= second_at
        return (seen.count, now - seen.first_at) if is_told else (0, 0.0)


def _same(often: str) -> str:
    return (
        f"This was asked for {often}, with the same result each time. Use what you have, or ask for"
        " something else. To wait for a change, follow it with --watch where output is streamed, or ask later."
    )


def _of(reason: Reason, often: str) -> str:
    begin = f"This was asked for {often}, and ended in {reason} each time"
    if MEANING[reason].retryable:
        return f"{begin}. Wait longer before asking again."
    if reason in (Reason.COMMAND_TIMEOUT, Reason.CANCELLED, Reason.EXECUTOR_LOST, Reason.INTERNAL):
        return f"{begin}. Do not go on in the same way."
    return f"{begin}: that will not change by asking again. See `next_step`."


def _often(call: Call, count: int, span_s: float) -> str:
    """Whoever names no conversation may be one of several who have the key."""
    (_, conversation), *_ = call
    by_whom = " with this key" if isinstance(conversation, bytes) else ""
    return f"{count} times{by_whom} in the last {max(1, round(span_s))} s"
