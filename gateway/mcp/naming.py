"""Command ids by which a command is known again from the call that asked for it, at any gateway. Pure.

A client of the older protocols takes a call back by a message of its own, which may come to another gateway than the
call did, and no gateway keeps anything for others. So the random part of the UUIDv7 is not random: it is made of the
session that the client is in and the number that it gave to the call. The time in front is the true one.

The key is no part of it, since ids are seen in logs. Whoever uses the same session and number makes the same ids in the
same millisecond alone, and is then refused by the broker: nobody's command is taken for another's.
"""

import json
from hashlib import sha256

_MS = (1 << 48) - 1
_RANDOM = (1 << 62) - 1
_VARIANT = 1 << 63

# One call asks for no more commands.
MAX_COMMANDS = 1 << 12


def name_of(session_id: str, request_id: str | int) -> str:
    """What the ids of all commands of this call have in common: their last 16 digits."""
    hashed = sha256(json.dumps([session_id, request_id]).encode()).digest()
    return f"{int.from_bytes(hashed[:8]) & _RANDOM | _VARIANT:016x}"


def id_of(name: str, nth: int, *, now_s: float) -> str:
    """The id of the nth command of the call with this name; `now_s` is seconds since 1970."""
    if not 0 <= nth < MAX_COMMANDS:
        raise ValueError(f"a call has no command {nth}")
    ms = f"{int(now_s * 1000) & _MS:012x}"
    return f"{ms[:8]}-{ms[8:]}-7{nth:03x}-{name[:4]}-{name[4:]}"


def is_of(command_id: str, name: str) -> bool:
    return command_id[19:].replace("-", "") == name
