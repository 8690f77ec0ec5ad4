"""What --redis-url may say: one server, a primary that sentinels know, or a Redis Cluster."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from redis.asyncio.connection import parse_url

# The s is TLS, to the sentinels as well.
SCHEMES = (
    "redis://",
    "rediss://",
    "unix://",
    "redis+sentinel://",
    "rediss+sentinel://",
    "redis+cluster://",
    "rediss+cluster://",
)
SENTINEL_PORT, REDIS_PORT = 26379, 6379
MANY = re.compile(r"(?:(?P<user>[^/?#]*)@)?(?P<hosts>[^/?#@]*)(?:/(?P<path>[^?#]*))?(?:\?(?P<query>[^#]*))?")


@dataclass(frozen=True, slots=True)
class OneServer:
    # What redis-py's connections are made of.
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sentinelled:
    """A primary is where most sentinels say that it is."""

    sentinels: tuple[dict[str, Any], ...]
    name: str
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Clustered:
    """Any of the seeds says where the others are."""

    seeds: tuple[tuple[str, int], ...]
    options: dict[str, Any]


def parse(url: str) -> OneServer | Sentinelled | Clustered:
    """Raises ValueError, with a sentence that shows nothing of a password."""
    scheme = url.partition("://")[0]
    if f"{scheme}://" not in SCHEMES:
        raise ValueError(f"expected one of {', '.join(SCHEMES)}")
    plain, _, kind = scheme.partition("+")
    if not kind:
        return OneServer(_options(url))
    parts = MANY.fullmatch(url.partition("://")[2])
    if parts is None:
        raise ValueError(f"expected {scheme}://[USER:PASSWORD@]HOST:PORT,…")
    path, user, query = (parts[name] or "" for name in ("path", "user", "query"))
    name, _, db = path.partition("/") if kind == "sentinel" else ("", "", path)
    if not db.isdecimal() and db:
        raise ValueError("the database must be a number")
    servers = [_options(f"{plain}://{user}@{host}/{db}?{query}") for host in parts["hosts"].split(",")]
    if not all("host" in server for server in servers):
        raise ValueError("expected HOST:PORT, with a comma between two of them")
    port = SENTINEL_PORT if kind == "sentinel" else REDIS_PORT
    addresses = [(server.pop("host"), server.pop("port", port)) for server in servers]
    options = servers[0]
    if kind == "cluster":
        if options.pop("db", 0):
            raise ValueError("a Redis Cluster has database 0 only")
        return Clustered(tuple(addresses), options)
    if not name:
        raise ValueError(f"expected the primary's name: {scheme}://HOST:PORT,…/NAME[/DB]")
    # USER:PASSWORD is the primary's; sentinels have their own, or mostly none.
    own = {key: options.pop(f"sentinel_{key}", None) for key in ("username", "password")}
    shared = {key: value for key, value in options.items() if key not in ("username", "password", "db")}
    sentinels = tuple(shared | own | {"host": host, "port": port} for host, port in addresses)
    return Sentinelled(sentinels, unquote(name), options)


def in_plaintext(url: str) -> list[tuple[str, int]]:
    """The hosts and ports that the URL names and that are spoken to without TLS. Raises ValueError as `parse`."""
    target = parse(url)
    # TLS and unix sockets have a class of connections of their own.
    if "connection_class" in target.options:
        return []
    match target:
        case OneServer(options):
            return [(options.get("host", "localhost"), options.get("port", REDIS_PORT))]
        case Sentinelled(sentinels):
            return [(sentinel["host"], sentinel["port"]) for sentinel in sentinels]
        case Clustered(seeds):
            return list(seeds)


def _options(url: str) -> dict[str, Any]:
    try:
        return dict(parse_url(url))
    except ValueError:
        # The client's own words may show a piece of a password that is not encoded.
        raise ValueError("not a URL of Redis: is the port a number, and the password percent-encoded?") from None
