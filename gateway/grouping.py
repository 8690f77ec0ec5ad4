"""What came out in many clusters, with what is the same said once. Pure.

Of output that is the same only the first is kept, so that the same megabyte from two hundred clusters is one megabyte.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from gateway.command_models import CommandAnswer
from gateway.fanout_models import FanoutAnswer, FanoutGroup, FanoutResult

# In the sentence; all of them are in the list.
MAX_NAMED = 5


@dataclass(slots=True)
class _Group:
    first: CommandAnswer
    clusters: list[str] = field(default_factory=list)


class Grouping:
    """Answers and problems as they come; `answer` puts them in the order of `clusters`."""

    def __init__(self, clusters: Sequence[str], *, labels_unknown: Sequence[str] = ()) -> None:
        self._order = {cluster_id: place for place, cluster_id in enumerate(clusters)}
        self._labels_unknown = list(labels_unknown)
        self._groups: dict[str, _Group] = {}
        self._results: list[FanoutResult] = []
        self._problems: list[dict[str, Any]] = []

    def add(self, answer: CommandAnswer) -> None:
        digest = _shown_digest(answer)
        self._groups.setdefault(digest, _Group(answer)).clusters.append(answer.cluster_id)
        self._results.append(
            FanoutResult(
                cluster_id=answer.cluster_id,
                command_id=answer.command_id,
                executor_id=answer.executor_id,
                exit_code=answer.exit_code,
                success=answer.success,
                digest=answer.digest,
                truncated=answer.truncated,
                timings=answer.timings,
                observed_at=answer.observed_at,
                served_from=answer.served_from,
            )
        )

    def add_problem(self, problem: dict[str, Any]) -> None:
        """It has a `cluster_id`."""
        self._problems.append(problem)

    def answer(self, *, with_output: bool = True) -> FanoutAnswer:
        by_size = sorted(self._groups.items(), key=lambda item: (-len(item[1].clusters), self._first(item[1])))
        groups = [self._group(digest, group, with_output=with_output) for digest, group in by_size]
        problems = sorted(self._problems, key=lambda problem: self._order[problem["cluster_id"]])
        return FanoutAnswer(
            summary=summary([len(group.clusters) for group in groups], problems),
            groups=groups,
            results=sorted(self._results, key=lambda result: self._order[result.cluster_id]),
            problems=problems,
            labels_unknown=self._labels_unknown,
        )

    def _first(self, group: _Group) -> int:
        return min(self._order[cluster_id] for cluster_id in group.clusters)

    def _group(self, digest: str, group: _Group, *, with_output: bool) -> FanoutGroup:
        answer = group.first
        # Whose command the cursor is for is named first, the others as they were given.
        others = sorted(group.clusters[1:], key=self._order.__getitem__)
        return FanoutGroup(
            clusters=[answer.cluster_id, *others],
            digest=digest,
            exit_code=answer.exit_code,
            output=answer.stdout if with_output else None,
            stderr=answer.stderr if with_output else None,
            shaping=answer.shaping if with_output else None,
        )


def summary(sizes: Sequence[int], problems: Sequence[dict[str, Any]]) -> str:
    """A sentence on groups of these sizes, the largest first, and on what failed."""
    parts = [_alike(sizes)] if sizes else []
    if problems:
        named = [f"{problem['cluster_id']} ({problem['reason']})" for problem in problems[:MAX_NAMED]]
        more = [f"{len(problems) - MAX_NAMED} more"] if len(problems) > MAX_NAMED else []
        parts.append(f"{len(problems)} failed: {', '.join(named + more)}")
    return "; ".join(parts) or "no cluster was asked"


def _alike(sizes: Sequence[int]) -> str:
    total = sum(sizes)
    if total == 1:
        return "1 cluster answered"
    if len(sizes) == 1:
        return f"all {total} clusters the same" if total > 2 else "both clusters the same"
    if sizes[0] == 1:
        return f"{total} clusters, each different"
    rest = total - sizes[0]
    return f"{sizes[0]} clusters the same, {rest} {'differs' if rest == 1 else 'differ'}"


def _shown_digest(answer: CommandAnswer) -> str:
    stdout, stderr = ((text or "").encode(errors="surrogatepass") for text in (answer.stdout, answer.stderr))
    hashed = sha256(b"%d %d " % (answer.exit_code or 0, len(stdout)))
    hashed.update(stdout + stderr)
    return f"sha256:{hashed.hexdigest()}"
