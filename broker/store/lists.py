"""Lists in Redis: sorted sets without scores, since UUIDv7s sort by when they were made."""

from collections.abc import Sequence

from broker.store.single import RedisCommand


def put_on(listing: str, members: Sequence[str | bytes], *, most: int, ttl_s: int) -> tuple[RedisCommand, ...]:
    """Puts members on a list, whose oldest beyond `most` go, and which lives on for `ttl_s`. May be repeated."""
    return (
        # All have the same score: their order is that of their bytes.
        ("ZADD", listing, *(part for member in members[-most:] for part in (0, member))),
        ("ZREMRANGEBYRANK", listing, 0, -most - 1),
        ("EXPIRE", listing, ttl_s),
    )


def newest(listing: str, *, before: str, since: str = "", count: int) -> RedisCommand:
    """So many members of a list, before one (empty: from the newest on), back to what sorts as `since`."""
    upto, downto = f"({before}" if before else "+", f"[{since}" if since else "-"
    return ("ZREVRANGEBYLEX", listing, upto, downto, "LIMIT", 0, count)


def oldest(listing: str, *, behind: str, since: str = "", count: int) -> RedisCommand:
    """So many members of a list, the oldest first, behind all that begin with one id (empty: from the oldest on), and
    from what sorts as `since` on."""
    # What follows an id in a member sorts before this.
    begin = f"{behind}~" if behind else ""
    return ("ZRANGEBYLEX", listing, f"[{max(begin, since)}" if begin or since else "-", "+", "LIMIT", 0, count)
