"""What replicas are asked, one after the other, for one command, and what its caller is told: without a server."""

import pytest

from openline.asking import Asking, less
from openline.errors import OpenlineError, error
from openline.reasons import NO, UNKNOWN, Reason
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb


def failure(reason: Reason, executed: command_pb2.Executed.ValueType | None = None) -> OpenlineError:
    return OpenlineError(error(reason, "no", executed=executed))


def asked(**fields: object) -> tuple[pb.ExecuteRequest, Asking]:
    request = pb.ExecuteRequest(command_id="c", timeout_s=10, wait_for_cluster_s=5, **fields)  # type: ignore[arg-type]
    return request, Asking(request, now=100.0, timeout_s=20.0)


def test_the_first_replica_is_asked_what_the_caller_asked() -> None:
    """Without a copy, if no time has passed."""
    request, asking = asked()
    assert asking.request(100.0005) is request
    assert asking.request(101.0) is not request


@pytest.mark.parametrize(
    ("elapsed_s", "timeout_s", "wait_s"), [(0.0, 10.0, 5.0), (2.0, 10.0, 3.0), (7.0, 8.0, 0.0), (60.0, 0.001, 0.0)]
)
def test_time_that_passed_is_taken_off(elapsed_s: float, timeout_s: float, wait_s: float) -> None:
    """First off the wait for the cluster, which is apart from the run's own time; never down to the default."""
    request, _ = asked()
    left = less(request, elapsed_s)
    assert (left.timeout_s, left.wait_for_cluster_s) == (timeout_s, wait_s)


def test_once_it_may_have_left_it_is_attached_to() -> None:
    """Whatever is said later by replicas that do not have it."""
    request, asking = asked()
    asking.failed(failure(Reason.BROKER_UNAVAILABLE, NO))
    assert (asking.request(100.0).attach, asking.given_up().error.executed) == (False, NO)
    asking.failed(failure(Reason.BROKER_UNAVAILABLE))
    asking.failed(failure(Reason.BROKER_UNAVAILABLE, NO))
    assert (asking.request(100.0).attach, asking.given_up().error.executed) == (True, UNKNOWN)
    assert not request.attach, "the caller's own stays as it is"


def test_what_never_left_has_no_use_for_the_time_of_its_answer() -> None:
    """The deadline is the caller's as soon as something may run."""
    _, asking = asked()
    assert asking.ends_at == 115.0
    asking.failed(failure(Reason.BROKER_UNAVAILABLE))
    assert asking.ends_at == asking.deadline == 120.0


def test_a_caller_that_asked_before_is_not_told_that_nothing_ran() -> None:
    """Its request says `attach`, and what became of the first one is not known here."""
    request, asking = asked(attach=True)
    assert asking.request(100.0) is request
    assert asking.given_up().error.executed == UNKNOWN
    with pytest.raises(OpenlineError) as caught:
        asking.failed(failure(Reason.UNAUTHENTICATED))
    assert caught.value.error.executed == UNKNOWN


@pytest.mark.parametrize("reason", sorted(set(Reason) - {Reason.BROKER_UNAVAILABLE}))
def test_what_a_replica_answers_is_final(reason: Reason) -> None:
    """As it was said, while nothing may have left before."""
    _, asking = asked()
    told = failure(reason)
    executed = told.error.executed
    with pytest.raises(OpenlineError) as caught:
        asking.failed(told)
    assert (caught.value, told.error.executed) == (told, executed)
