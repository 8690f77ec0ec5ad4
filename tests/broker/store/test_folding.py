"""Many SETs as one command."""

from redis.exceptions import OutOfMemoryError

from broker.store.client import open_redis, send_folded
from broker.store.folding import fold, unfold
from broker.store.single import RedisCommand


def results(count: int, *, seconds: int = 60) -> list[RedisCommand]:
    return [("SET", f"k{number}", b"v%d" % number, "EX", seconds) for number in range(count)]


def test_few_are_left_alone() -> None:
    """And so is whatever is no plain SET: one that must not replace, one of another kind."""
    commands: list[RedisCommand] = [*results(3), ("SET", "x", b"", "EX", 60, "NX"), ("ZADD", "z", 0, b"m")]
    folded, stands_for = fold(commands)
    assert sorted(map(str, folded)) == sorted(map(str, commands))
    assert unfold(folded, stands_for) == commands


def test_each_is_answered_in_its_place() -> None:
    """One failure is the failure of all that were in it, and of no other."""
    commands: list[RedisCommand] = [("PING",), *results(5), ("ECHO", "x"), *results(2, seconds=7)]
    folded, stands_for = fold(commands)
    assert len(folded) == 5
    full = OutOfMemoryError()
    answers = [full if command[0] == "EVAL" else command[0] for command in folded]
    assert unfold(answers, stands_for) == ["PING", *[full] * 5, "ECHO", "SET", "SET"]


async def test_a_server_has_what_was_folded(valkey: str) -> None:
    """Each with its value and its time to live; of two with one key, the later one."""
    redis = open_redis(valkey)
    try:
        answers = await send_folded(redis, [*results(6), ("SET", "k1", b"later", "EX", 60)])
        assert not [answer for answer in answers if isinstance(answer, Exception)]
        assert [await redis.get(f"k{number}") for number in range(3)] == [b"v0", b"later", b"v2"]
        assert 0 < await redis.ttl("k5") <= 60
    finally:
        await redis.aclose()
