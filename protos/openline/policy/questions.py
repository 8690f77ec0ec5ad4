"""The arguments of `explain` and of `auth can-i`: they name types, and read no objects."""

import re
from collections.abc import Sequence

from openline.policy.denial import Refused, Rule, shown

_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}(\.[A-Za-z0-9$_-]{1,63}){0,40}")
_ASKED_VERB = re.compile(r"\*|[A-Za-z][A-Za-z-]{0,40}")
_ASKED = re.compile(r"\*(\.\*)?|[A-Za-z*][A-Za-z0-9.*-]{0,252}(/[A-Za-z0-9_*][A-Za-z0-9_.:@*~+-]{0,252})?")
_URL = re.compile(r"/[A-Za-z0-9_./*~-]{0,252}")


def check_field(arguments: Sequence[str]) -> None:
    """Raises Refused unless there is at most one argument, TYPE[.FIELD…]."""
    for argument in arguments:
        if len(arguments) > 1 or _FIELD.fullmatch(argument) is None:
            raise Refused(Rule.ARGUMENTS, f"{shown(argument)} is not one TYPE[.FIELD…]", allowed="explain pods.spec")


def check_question(arguments: Sequence[str]) -> None:
    """Raises Refused for what is not VERB TYPE[/NAME] or VERB /URL; kubectl itself says what is missing."""
    shapes = (_ASKED_VERB, _ASKED)
    if len(arguments) == 2 and arguments[1].startswith("/"):
        shapes = (_ASKED_VERB, _URL)
    for index, argument in enumerate(arguments):
        if index >= len(shapes) or shapes[index].fullmatch(argument) is None:
            message = f"{shown(argument)} is not part of a question that can be asked"
            raise Refused(Rule.ARGUMENTS, message, allowed="auth can-i VERB TYPE[/NAME], auth can-i VERB /URL")
