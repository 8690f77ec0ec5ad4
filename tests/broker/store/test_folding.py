"""Many SETs as one command."""

import asyncio
from typing import Any

from redis.exceptions import OutOfMemoryError

from broker.store.client import open_redis, send_folded
from broker.store.folding import fold, unfold
from broker.store.single import RedisCommand
from tests.programs import free_port


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


def test_the_order_of_all_is_kept() -> None:
    """Also of one key that is written with two times to live."""
    commands: list[RedisCommand] = [
        *results(4, seconds=300),
        ("SET", "k", b"first", "EX", 600),
        *results(4, seconds=600),
        ("SET", "k", b"then", "EX", 300),
    ]
    folded, stands_for = fold(commands)
    assert [place for places in stands_for for place in places] == list(range(len(commands)))
    assert len(folded) == 3


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


async def test_each_is_written_by_itself_where_a_script_cannot(start_server: Any) -> None:
    """One server that holds all slots of a Redis Cluster, but was not given as one."""
    server = await start_server("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    await server.redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    async with asyncio.timeout(10):
        while b"cluster_state:ok" not in await server.redis.execute_command("CLUSTER", "INFO"):
            await asyncio.sleep(0.05)
    answers = await send_folded(server.redis, results(6))
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert [await server.redis.get(f"k{number}") for number in range(6)] == [b"v%d" % number for number in range(6)]


async def test_a_full_server_says_so_of_each(server: Any) -> None:
    """So that each is tried again."""
    await server.redis.config_set("maxmemory", 1)
    answers = await send_folded(server.redis, results(6))
    assert [type(answer) for answer in answers] == [OutOfMemoryError] * 6
