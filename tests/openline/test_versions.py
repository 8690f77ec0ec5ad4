"""Which version of the protocol two ends keep to."""

import pytest

from openline.v1 import command_service_pb2, executor_service_pb2
from openline.versions import SPOKEN, Spoken, agreed, disagreement, said


@pytest.mark.parametrize(
    ("ours", "theirs", "version"),
    [
        (Spoken(1, 1), Spoken(1, 1), 1),
        (Spoken(1, 3), Spoken(2, 5), 3),
        (Spoken(2, 5), Spoken(1, 3), 3),
        (Spoken(1, 9), Spoken(4, 4), 4),
        (Spoken(2, 3), Spoken(1, 1), None),
        (Spoken(1, 1), Spoken(2, 3), None),
        # What no end means, but anybody may say.
        (Spoken(1, 3), Spoken(3, 1), None),
        (Spoken(1, 3), Spoken(0, 0), None),
    ],
)
def test_the_highest_that_both_speak(ours: Spoken, theirs: Spoken, version: int | None) -> None:
    """Whichever end looks at it."""
    assert agreed(ours, theirs) == agreed(theirs, ours) == version


@pytest.mark.parametrize("hello", [executor_service_pb2.Hello, command_service_pb2.PipeHello])
def test_a_hello_without_a_highest_speaks_one_version(hello: type[executor_service_pb2.Hello]) -> None:
    """0.1.0 says nothing else, and broker and executor of today still speak its version."""
    assert said(hello(protocol_version=1)) == Spoken(1, 1)
    assert said(hello(protocol_version=2, max_protocol_version=4)) == Spoken(2, 4)
    assert 1 in SPOKEN


def test_a_disagreement_says_who_is_to_be_upgraded() -> None:
    """The one that is behind, with what each of them speaks."""
    newer = disagreement(Spoken(1, 2), Spoken(3, 4), peer="executor")
    assert newer == "the executor speaks protocol version 3 to 4, this broker 1 to 2: upgrade the broker"
    assert disagreement(Spoken(2, 3), Spoken(1, 1), peer="caller").endswith("upgrade the caller")
