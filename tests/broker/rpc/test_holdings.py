"""What a replica does about what executors bring along, when it may not know the secret that it is sealed with."""

from typing import Any

import pytest

from broker.core.proof import Proof
from broker.rpc.holdings import Holdings
from openline.errors import OpenlineError
from openline.ids import new_id
from openline.reasons import Reason
from openline.v1 import executor_service_pb2 as wire


def hello(*sent_by: Proof) -> wire.Hello:
    """Of an executor that holds a command of each of these."""
    said = wire.Hello(cluster_id="prod", executor_id="e")
    for proof in sent_by:
        execute = wire.Execute(command_id=new_id(), argv=["get", "pods"])
        execute.seal = proof.seal(execute, cluster_id="prod", executor_id="e")
        said.held.add(execute=execute, first_seq=1)
    return said


@pytest.fixture
def here() -> Proof:
    return Proof("here")


@pytest.fixture
def there() -> Proof:
    return Proof("there")


def test_what_cannot_be_told_is_sent_away(here: Proof, there: Proof, log_lines: list[dict[str, Any]]) -> None:
    """Told of once, by one line for all."""
    holdings = Holdings(here)
    for held in ([there], [here, there], [there, there]):
        with pytest.raises(OpenlineError) as refused:
            holdings.check(hello(*held))
        assert (refused.value.reason, refused.value.executed) == (Reason.BROKER_UNAVAILABLE, "no")
    assert [(line["event"], line["last_from"]) for line in log_lines] == [("executors.sent_away", "prod")]


def test_nothing_and_its_own_are_let_in(here: Proof) -> None:
    """An executor whose stream breaks comes back with what this replica has sent it."""
    holdings = Holdings(here)
    for held in ([], [here], [here, here]):
        said = hello(*held)
        holdings.check(said)
        assert len(holdings.read(said)) == len(held)


def test_with_the_common_secret_all_are_let_in(here: Proof, there: Proof) -> None:
    """What is not sealed with it then is nobody's."""
    holdings = Holdings(here)
    said = hello(there, Proof("stranger"))
    here.agree(there.secret)
    holdings.check(said)
    assert list(holdings.read(said)) == [said.held[0].execute.command_id]
    Holdings(Proof("given", secret=b"s" * 32)).check(hello(there))


def test_nobody_is_sent_away_for_ever(here: Proof, there: Proof, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that is offline is worse than a result that is lost."""
    holdings = Holdings(here)
    monkeypatch.setattr("broker.rpc.holdings.monotonic", lambda: holdings._sure_at + 0.1)
    said = hello(there)
    holdings.check(said)
    assert holdings.read(said) == {}
