"""Identifiers and names that travel: how they are made and which ones are acceptable."""

import re
import uuid

from uuid_utils import uuid7

# DNS labels, as the drop-in API has them for cluster ids; at most 100 characters.
_CLUSTER_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,98}[a-z0-9])?")
# Correlation, session and executor ids are shown in logs and headers: printable ASCII without spaces.
MAX_TOKEN_CHARACTERS = 200
_TOKEN = re.compile(rf"[!-~]{{1,{MAX_TOKEN_CHARACTERS}}}")
# Neither control characters nor what else ends a line.
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,200}")


def new_id() -> str:
    """A UUIDv7 (RFC 9562): unique, and sorted by the time it was made."""
    return str(uuid7())


def is_command_id(text: str) -> bool:
    """Whether it is a UUID of version 7 in its canonical form."""
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        return False
    return parsed.version == 7 and str(parsed) == text


def made_at(command_id: str) -> float:
    """When a UUIDv7 was made, in seconds since 1970, by the clock of whoever made it."""
    return int(command_id[:8] + command_id[9:13], 16) / 1000


def first_made_at(seconds: float) -> str:
    """What sorts before every UUIDv7 that was made at this time or later, and after every earlier one."""
    ms = f"{min(max(0, int(seconds * 1000)), (1 << 48) - 1):012x}"
    return f"{ms[:8]}-{ms[8:]}"


def made_before(one: str, other: str) -> bool:
    """Whether both are UUIDv7s and the first was made before the other, by the clocks of whoever made them."""
    return is_command_id(one) and is_command_id(other) and made_at(one) < made_at(other)


def is_cluster_id(text: str) -> bool:
    return _CLUSTER_ID.fullmatch(text) is not None


def is_token(text: str) -> bool:
    """Whether it can stand as an id of the caller's choice: 1..200 visible ASCII characters."""
    return _TOKEN.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether it can stand as what somebody calls a person or a program: 1..200 characters, all on one line."""
    return _NAME.fullmatch(text) is not None
