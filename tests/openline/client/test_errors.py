"""A class for each reason: the table, the families, and what an error says of itself."""

import inspect
import re

import pytest

from openline.client import errors
from openline.client.errors import CLASSES, Ended, Mismatch, NotFound, NotNow, Refused, typed, typed_errors
from openline.errors import OpenlineError, error
from openline.reasons import MEANING, YES, Reason
from openline.v1 import command_pb2

FAMILIES = (Refused, NotNow, Ended, NotFound, Mismatch)


def test_every_reason_has_a_class_of_its_own() -> None:
    """The table is whole, and no class stands for two."""
    assert set(CLASSES) == set(Reason)
    assert len(set(CLASSES.values())) == len(CLASSES)


def test_every_class_is_in_one_family() -> None:
    """So that a caller can tell by the family what to do, and has them all with five."""
    assert {reason: [f for f in FAMILIES if issubclass(kind, f)] for reason, kind in CLASSES.items()} == {
        reason: [kind.__mro__[1]] for reason, kind in CLASSES.items()
    }


def test_what_may_be_asked_again_later_is_not_now() -> None:
    """As the table of reasons has it."""
    assert {r for r, kind in CLASSES.items() if issubclass(kind, NotNow)} == {r for r in Reason if MEANING[r].retryable}


def test_classes_are_named_like_their_reasons() -> None:
    """Whoever reads a reason in a log finds the class."""
    words = {reason: reason.replace("_", "").lower() for reason in Reason}
    assert {r: CLASSES[r].__name__.lower() for r in Reason} == words


def test_the_tree_in_the_documentation_is_the_tree() -> None:
    """Each name below its family."""
    tree = inspect.getdoc(errors) or ""
    shown = re.findall(r"^    (?:│   |    )?[├└]── (\w+)", tree, re.MULTILINE)
    classes: list[str] = []
    for family in FAMILIES:
        classes += [family.__name__, *(kind.__name__ for kind in CLASSES.values() if kind.__mro__[1] is family)]
    assert sorted(shown) == sorted(classes)
    families = re.findall(r"^    [├└]── (\w+)", tree, re.MULTILINE)
    assert families == [family.__name__ for family in FAMILIES]


@pytest.mark.parametrize("reason", Reason)
def test_a_failure_leaves_in_its_class_with_all_it_says(reason: Reason) -> None:
    """And is still an OpenlineError, which existing code catches."""
    said = error(reason, "why", executed=YES, retry_after_s=2.5, metadata={"a": "b"}, violations=[("f", "wrong")])
    with pytest.raises(OpenlineError) as caught, typed_errors("the-id"):
        raise OpenlineError(said)
    failure = caught.value
    assert type(failure) is CLASSES[reason]
    assert (failure.reason, failure.executed, failure.retry_after_s) == (reason, "yes", 2.5)
    assert (failure.metadata["a"], failure.command_id, str(failure)) == ("b", "the-id", f"{reason}: why")


def test_a_reason_of_a_newer_broker_is_internal() -> None:
    """It says what it is in its message."""
    failure = typed(OpenlineError(command_pb2.Error(reason="MOON_PHASE", message="full")))
    assert (type(failure), str(failure)) == (errors.Internal, "MOON_PHASE: full")


def test_the_command_that_was_told_is_kept() -> None:
    """An idempotency key may stand for an older one than was asked for."""
    failure = typed(OpenlineError(error(Reason.CANCELLED, "", metadata={"command_id": "older"})), command_id="asked")
    assert failure.command_id == "older"


def test_what_ended_has_the_output_so_far() -> None:
    """As far as the broker keeps it."""
    result = command_pb2.CommandResult(command_id="c", stdout=b"so far\xff", stderr=b"oh")
    failure = typed(OpenlineError(error(Reason.COMMAND_TIMEOUT, ""), result=result))
    assert isinstance(failure, errors.CommandTimeout)
    assert (failure.stdout, failure.stderr, failure.text) == (b"so far\xff", b"oh", "so far�")
    nothing = typed(OpenlineError(error(Reason.EXECUTOR_LOST, "")))
    assert isinstance(nothing, errors.ExecutorLost)
    assert (nothing.stdout, nothing.stderr, nothing.text) == (b"", b"", "")


def test_fields_that_are_wrong_are_named() -> None:
    """Each with what is wrong."""
    failure = typed(OpenlineError(error(Reason.INVALID_COMMAND, "", violations=[("argv[1]", "has NUL")])))
    assert isinstance(failure, errors.InvalidCommand)
    assert failure.violations == (("argv[1]", "has NUL"),)
