"""The words of a command: split as they are typed, and no more of them than an executor takes. Pure.

What they mean is not looked at: the policy says what may run.
"""

import shlex
from collections.abc import Sequence

from openline.limits import MAX_ARGUMENT_BYTES, MAX_ARGUMENTS, MAX_ARGV_BYTES


class Unacceptable(ValueError):
    """The fields do not make a command; `field` is the one to blame, and `where` it stands."""

    def __init__(self, field: str, why: str, *, where: str = "body") -> None:
        super().__init__(why)
        self.field = field
        self.where = where


def split_command(command: str) -> list[str]:
    """The words of a command as it would be typed, split as a shell splits them and nothing more; without `kubectl`."""
    try:
        words = shlex.split(command)
    except ValueError as wrong:
        raise Unacceptable("command", f"cannot be split into words: {wrong}") from None
    words = words[1:] if words[:1] == ["kubectl"] else words
    if not words:
        raise Unacceptable("command", "there is no command in it")
    if "\0" in command:
        raise Unacceptable("command", "must not contain NUL")
    check_size(words, "command")
    return words


def check_size(argv: Sequence[str], field: str) -> None:
    """Raises Unacceptable for more than any executor takes."""
    if len(argv) > MAX_ARGUMENTS:
        raise Unacceptable(field, f"the command has {len(argv)} words; at most {MAX_ARGUMENTS} are taken")
    sizes = [len(word.encode()) for word in argv]
    if max(sizes) > MAX_ARGUMENT_BYTES:
        raise Unacceptable(field, f"a word has more than {MAX_ARGUMENT_BYTES} bytes")
    if sum(sizes) > MAX_ARGV_BYTES:
        raise Unacceptable(field, f"the command has more than {MAX_ARGV_BYTES} bytes")
