"""How replicas know each other, and what they have sent."""

import pytest

from broker.core.proof import Proof
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

SECRET = bytes(range(32))


def execute(**fields: object) -> wire.Execute:
    usual: dict[str, object] = {
        "command_id": "c",
        "argv": ["get", "pods"],
        "timeout_s": 10.0,
        "output_limits": command_pb2.OutputLimits(max_bytes=99),
        "identity": wire.Identity(owner="alice", scopes=["execute"]),
        "session_id": "s",
        "correlation_id": "k",
        "traceparent": "t",
    }
    return wire.Execute(**(usual | fields))  # type: ignore[arg-type]


def test_a_peer_is_known_by_the_common_secret() -> None:
    """Both ways: what is shown, and the answer to it."""
    one, other, stranger = Proof("r1", secret=SECRET), Proof("r2", secret=SECRET), Proof("r2")
    shown = one.show("r2", clock_s=1000.0)
    assert other.check(shown, clock_s=1010.0) == "r1"
    assert one.is_answer(shown, other.answer(shown))
    assert stranger.check(shown, clock_s=1010.0) is None
    assert not one.is_answer(shown, stranger.answer(shown))
    assert not one.is_answer(shown, b"")


@pytest.mark.parametrize("clock_s", [900.0, 1100.0, float("inf")])
def test_what_was_overheard_is_soon_worth_nothing(clock_s: float) -> None:
    shown = Proof("r1", secret=SECRET).show("r2", clock_s=1000.0)
    assert Proof("r2", secret=SECRET).check(shown, clock_s=clock_s) is None


def test_what_was_shown_to_one_replica_is_worth_nothing_at_another() -> None:
    shown = Proof("r1", secret=SECRET).show("r2", clock_s=1000.0)
    assert Proof("r3", secret=SECRET).check(shown, clock_s=1000.0) is None


@pytest.mark.parametrize(
    "shown", ["", "a", "a b c d e", "r1 r2 nan x 00", "r1 r2 1000 x " + "0" * 64, " " * 20, "é r2 1 x é"]
)
def test_garbage_is_nobody(shown: str) -> None:
    """Whatever it is, nothing is raised."""
    assert Proof("r2", secret=SECRET).check(shown, clock_s=1000.0) is None


def test_the_secret_before_is_good_for_a_while() -> None:
    """Replicas do not learn of a new one in the same moment."""
    one, other = Proof("r1"), Proof("r2")
    shown, sealed = one.show("r2", clock_s=0.0), execute()
    other.agree(one.secret)
    sealed.seal = one.seal(sealed, cluster_id="prod", executor_id="e")
    other.agree(SECRET)
    assert other.check(shown, clock_s=0.0) == "r1"
    assert other.is_sealed(sealed, cluster_id="prod", executor_id="e")


def test_a_seal_is_on_everything_but_the_time_that_remains() -> None:
    proof = Proof("r1", secret=SECRET)
    seal = proof.seal(execute(), cluster_id="prod", executor_id="e")
    assert proof.is_sealed(execute(seal=seal, timeout_s=3.0), cluster_id="prod", executor_id="e")
    changed = [
        {"command_id": "d"},
        {"argv": ["get", "secrets"]},
        {"argv": ["getpods"]},
        {"output_limits": command_pb2.OutputLimits(max_bytes=100)},
        {"identity": wire.Identity(owner="bob", scopes=["execute"])},
        {"identity": wire.Identity(owner="alice", scopes=["execute", "admin"])},
        {"session_id": "x"},
        {"correlation_id": "x"},
        {"traceparent": "x"},
        {"live": True},
        # The same bytes, in other fields.
        {"argv": ["pods"], "identity": wire.Identity(owner="alice", scopes=["execute", "get"])},
    ]
    for change in changed:
        assert not proof.is_sealed(execute(seal=seal, **change), cluster_id="prod", executor_id="e"), change
    assert not proof.is_sealed(execute(seal=seal), cluster_id="staging", executor_id="e")
    assert not proof.is_sealed(execute(seal=seal), cluster_id="prod", executor_id="f")
    assert not proof.is_sealed(execute(), cluster_id="prod", executor_id="e")


def test_the_secret_is_not_shown() -> None:
    assert SECRET.hex() not in repr(Proof("r1", secret=SECRET))
    assert SECRET.hex() not in Proof("r1", secret=SECRET).show("r2", clock_s=0.0)
