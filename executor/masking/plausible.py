"""What stands behind the name of a credential and is none: a reference to a Secret, a path, a count."""

import binascii
import re

# The name of a Secret, perhaps with its namespace. What is long without a break is no name that people give.
_REFERENCE = re.compile(rb"(?:[a-z0-9]{1,63}/)?+(?!.*[a-z0-9]{20})[a-z0-9][a-z0-9./-]{0,252}")
# Base64 may begin like a path, but not go on in lower case up to another slash.
_PATH = re.compile(rb"(?:/[a-z0-9._-]++)+/?|/(?:[a-z0-9._-]++/)+[\w.-]++")
_COUNT = re.compile(rb"[0-9]{1,9}")
_LONGEST_LOGIN_BYTES = 4096


def is_credential(name: bytes, value: bytes) -> bool:
    """Whether a value may be one; `name` is whole and in lower case, the value without quotes."""
    if _PATH.fullmatch(value):
        return False
    match name:
        case b"secret":
            return not _REFERENCE.fullmatch(value)
        case b"pass":
            return not _COUNT.fullmatch(value)
        case b"auth":
            return _is_login(value)
    return True


def _is_login(value: bytes) -> bool:
    """Whether this is `user:password` in base64, as in what Docker keeps of a registry."""
    try:
        return len(value) <= _LONGEST_LOGIN_BYTES and b":" in binascii.a2b_base64(value, strict_mode=True)
    except binascii.Error:
        return False
