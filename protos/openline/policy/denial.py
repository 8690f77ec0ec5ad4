"""How a refusal is said: which rule, about what, and what is allowed instead."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

MAX_SHOWN_CHARACTERS = 60
MAX_ALLOWED_CHARACTERS = 1000


class Rule(StrEnum):
    """What a refusal rests on; docs/policy.md explains each."""

    FORM = "form"  # too much, empty, or characters that no command has
    SHELL = "shell"  # there is none
    VERB = "verb"
    SUB_VERB = "sub-verb"
    FLAG = "flag"
    VALUE = "value"  # of a flag that is allowed
    OUTPUT = "output-format"
    TEMPLATE = "template"
    ARGUMENTS = "arguments"  # what is not a flag
    RESOURCE = "resource"
    NAMESPACE = "namespace"
    STREAMING = "streaming"


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a command may not run, in words for whoever asked."""

    rule: Rule
    message: str
    allowed: str
    # The word that was probably meant, as it would be written; empty where that cannot be told.
    nearest: str = ""
    # What to do about it, where that is not plain from the rest.
    next_step: str = ""


class Refused(Exception):
    """Carries a denial out of the parser; `judge` lets none escape."""

    def __init__(self, rule: Rule, message: str, *, allowed: str, nearest: str = "", next_step: str = "") -> None:
        if nearest:
            message = f"{message}; did you mean {nearest}?"
            next_step = next_step or f"Ask again with {nearest}."
        super().__init__(message)
        if len(allowed) > MAX_ALLOWED_CHARACTERS:
            allowed = allowed[: MAX_ALLOWED_CHARACTERS - 1] + "…"
        self.denied = Denied(rule, message, allowed, nearest, next_step)


def shown(text: str) -> str:
    """What the caller wrote, quoted, short, and without a character that could do anything to a terminal or a log."""
    return repr(text) if len(text) <= MAX_SHOWN_CHARACTERS else repr(text[: MAX_SHOWN_CHARACTERS - 1]) + "…"


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant; empty for none."""
    return next(iter(difflib.get_close_matches(word[:MAX_SHOWN_CHARACTERS].lower(), list(known), n=1)), "")
