"""The answers of many clusters to one command, and which of them are the same. Pure."""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

from openline.client.results import Result
from openline.errors import OpenlineError

# What one cluster said: a failure of one is no failure of the others.
Answer = Result | OpenlineError


@dataclass(frozen=True, slots=True)
class Group:
    """Clusters that said the same: the same end, exit code and output, or the same reason for having none."""

    cluster_ids: tuple[str, ...]
    # Of the first one.
    answer: Answer


class Answers(Mapping[str, Answer]):
    """By cluster id, in the order in which the clusters were named."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = dict(answers)

    def __repr__(self) -> str:
        return f"<Answers clusters={len(self)} groups={len(self.groups())}>"

    def __getitem__(self, cluster_id: str) -> Answer:
        return self._answers[cluster_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._answers)

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def results(self) -> dict[str, Result]:
        """Of the clusters that ran the command, whatever its exit code."""
        return {cluster_id: answer for cluster_id, answer in self._answers.items() if isinstance(answer, Result)}

    @property
    def failures(self) -> dict[str, OpenlineError]:
        """Of the others."""
        return {cluster_id: answer for cluster_id, answer in self._answers.items() if isinstance(answer, OpenlineError)}

    def groups(self) -> list[Group]:
        """Those that said the same together, the largest group first."""
        same: dict[Hashable, list[str]] = {}
        for cluster_id, answer in self._answers.items():
            same.setdefault(_said(answer), []).append(cluster_id)
        # Stable: of two of one size the first stays first.
        largest_first = sorted(same.values(), key=len, reverse=True)
        return [Group(tuple(ids), self._answers[ids[0]]) for ids in largest_first]


def _said(answer: Answer) -> Hashable:
    if isinstance(answer, Result):
        cut = answer.stdout_summary.cut_bytes, answer.stderr_summary.cut_bytes
        return answer.outcome, answer.exit_code, answer.stdout, answer.stderr, cut
    # Messages name clusters and times; what was written until then is output like any other.
    ended = answer.result
    return answer.reason, answer.executed, *((ended.stdout, ended.stderr) if ended is not None else ())
