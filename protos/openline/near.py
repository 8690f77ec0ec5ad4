"""Which of the names that there are was probably meant by one that there is not. Pure; cheap also among many."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from openline import errors
from openline.reasons import Reason
from openline.v1 import command_pb2

# Of many thousands of names those are looked at that sort next to the word: some milliseconds' worth.
MAX_LOOKED_AT = 256
MAX_NEAR = 3
# In an error, for a person or a model to choose from.
MAX_LISTED = 100
# A word that is longer is no slip of anybody's.
MAX_CHARACTERS = 100
# Of a long word; a shorter one has one for every three characters.
MAX_SLIPS = 3
# A part that two names have in common says something from this length on.
MIN_PART = 3


def near(word: str, names: Sequence[str], *, most: int = MAX_NEAR) -> list[str]:
    """The names, of a sorted list of them, that are like the word: the most alike first.

    Alike are those that are a few slips of the keyboard away, and those that begin or end with the word.
    """
    if not word or len(word) > MAX_CHARACTERS:
        return []
    word = word.lower().replace("_", "-").replace(".", "-").replace(" ", "-")
    allowed = min(len(word) // 3, MAX_SLIPS)
    found: list[tuple[int, str]] = []
    for name in _candidates(word, names):
        if (slips := distance(word, name, most=allowed)) <= allowed:
            found.append((slips, name))
        elif len(word) >= MIN_PART and (name.startswith(word) or name.endswith(word)):
            found.append((allowed + 1, name))
    return [name for _, name in sorted(found)[:most]]


def cluster_unknown(cluster_id: str, available: Sequence[str]) -> command_pb2.Error:
    """The refusal of a cluster that is not among those which the caller sees, sorted; with those, and what is near."""
    found = near(cluster_id, available)
    shown = errors.short(cluster_id)
    failure = errors.error(
        Reason.CLUSTER_UNKNOWN,
        f"no cluster {shown!r}" + (f"; did you mean {', '.join(found)}?" if found else ""),
        metadata={"cluster_id": shown, "available": ",".join(available[:MAX_LISTED]), "near": ",".join(found)},
    )
    if found:
        failure.metadata[errors.NEXT_STEP] = f"Ask again with {' or '.join(found)}; `available` has all that there are."
    return failure


def _candidates(word: str, names: Sequence[str]) -> Iterator[str]:
    begin = max(0, min(bisect_left(names, word) - MAX_LOOKED_AT // 2, len(names) - MAX_LOOKED_AT))
    return iter(names[begin : begin + MAX_LOOKED_AT])


def distance(one: str, other: str, *, most: int) -> int:
    """How many characters were left out, added, exchanged or swapped with their neighbours; `most` + 1 for any more."""
    # What both begin and end with costs nothing, and it is most of such names.
    one, other = _without_common(one, other)
    one, other = _without_common(one[::-1], other[::-1])
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        last, row = row, [i]
        for j, wanted in enumerate(other, start=1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
        before = last
    return min(row[-1], most + 1)


def _without_common(one: str, other: str) -> tuple[str, str]:
    """Both without what they begin with together."""
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[same:], other[same:]
