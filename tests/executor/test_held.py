"""What Hello says of the commands that this executor holds."""

from collections.abc import Sequence

import pytest

from executor.actions import Ended, Result, Send
from executor.core import Core
from executor.held import MAX_HELD_BYTES, Held
from executor.life import Command, State
from executor.report import STDOUT, Report
from openline import limits
from openline.capture import Kept
from openline.policy import Allowed, Policy
from openline.v1 import executor_service_pb2 as wire

GRPC_DEFAULT_BYTES = 4 << 20


def judge(argv: Sequence[str], *, streamed: bool, remaining_s: float) -> Allowed:
    return Allowed(tuple(argv), Policy())


def core_with(*executes: wire.Execute, places: int = 2) -> Core:
    """A core that took these at the instant 0."""
    core = Core(max_concurrency=places, judge=judge)
    core.welcomed(wire.Welcome(), 0.0)
    for execute in executes:
        core.received(wire.BrokerFrame(execute=execute), 0.0)
    return core


def sealed(command_id: str, *argv: str, timeout_s: float = 10.0, live: bool = False) -> wire.Execute:
    execute = wire.Execute(command_id=command_id, argv=argv or ("get", "pods"), timeout_s=timeout_s, live=live)
    execute.output_limits.max_bytes = 1000
    execute.identity.owner = "alice"
    execute.identity.scopes.append("execute")
    execute.session_id, execute.correlation_id, execute.traceparent = "s", "c", "t"
    execute.seal = b"\x00sealed\xff"
    return execute


def ended(core: Core, command_id: str, now: float, stdout: bytes = b"") -> None:
    core.started(command_id)
    core.ended(command_id, Ended(0, Kept(stdout, total_bytes=len(stdout)), Kept(), run_s=0.1, finished_at=0.0), now)


def command(command_id: str, *argv: str, state: State = State.RUNNING) -> Command:
    return Command(sealed(command_id, *argv), Report(command_id), received_at=0.0, deadline=9.0, state=state)


def held_bytes(hello: wire.Hello) -> int:
    return wire.Hello(held=hello.held).ByteSize()


def test_each_command_is_brought_along_as_it_came() -> None:
    """Running, waiting and finished; but for the time, which is what remains."""
    executes = [sealed("a", "get", "-n", "shop"), sealed("b", live=True), sealed("c", timeout_s=5.0)]
    core = core_with(*executes, places=1)
    ended(core, "a", 1.0)
    hello = core.hello(2.0)
    assert list(hello.in_flight_ids) == ["b", "c"]
    assert list(hello.unacked_ids) == ["a"]
    assert [(held.execute.command_id, held.execute.timeout_s) for held in hello.held] == [
        ("b", 8.0),
        ("c", 3.0),
        ("a", 8.0),
    ]
    for held, came in zip(hello.held, [executes[1], executes[2], executes[0]], strict=True):
        held.execute.timeout_s = came.timeout_s
        assert held.execute == came


def test_what_a_newer_broker_adds_to_an_execute_comes_back() -> None:
    """The seal may cover fields that this version does not know."""
    came = sealed("a").SerializeToString() + b"\xfa\x3e\x02hi"  # field 1007
    core = core_with(wire.Execute.FromString(came))
    [held] = core.hello(0.0).held
    assert b"\xfa\x3e\x02hi" in held.execute.SerializeToString()


@pytest.mark.parametrize("now", [10.0, 10.5, 1e9])
def test_no_time_remaining_is_never_zero(now: float) -> None:
    """Zero would ask for the default; of a result, there is time enough for it to follow."""
    core = core_with(sealed("a"), sealed("b"))
    ended(core, "a", 1.0)
    core.expire(now)  # and b is being killed
    times = {held.execute.command_id: held.execute.timeout_s for held in core.hello(now).held}
    assert 0 < times["b"] <= 0.01
    assert 0 < times["a"] <= 1.0


def test_an_endless_timeout_comes_back_bounded() -> None:
    core = core_with(sealed("a", timeout_s=float("inf")))
    assert core.hello(1.0).held[0].execute.timeout_s == limits.MAX_TIMEOUT_S - 1.0


def test_the_first_seq_is_of_what_can_still_be_sent() -> None:
    """What credit says has arrived is gone; an adopting broker begins behind it."""
    core = core_with(sealed("a", live=True), sealed("b"))
    for piece in (b"one", b"two", b"six"):
        core.wrote("a", STDOUT, piece, 0.0)
    core.received(wire.BrokerFrame(credit=wire.Credit(command_id="a", bytes=6)), 0.0)
    core.disconnected()
    hello = core.hello(1.0)
    assert [held.first_seq for held in hello.held] == [2, 0]
    verdict = wire.Verdict(command_id="a", action=wire.VERDICT_ACTION_KEEP, next_seq=2)
    actions = core.welcomed(wire.Welcome(verdicts=[verdict]), 1.0)
    outputs = [a.frame.output for a in actions if isinstance(a, Send) and a.frame.HasField("output")]
    assert [(output.seq, output.data) for output in outputs] == [(2, b"six")]


def test_what_nobody_waits_for_is_not_brought_along() -> None:
    core = core_with(sealed("a"))
    verdict = wire.Verdict(command_id="a", action=wire.VERDICT_ACTION_DROP)
    core.welcomed(wire.Welcome(verdicts=[verdict]), 0.0)
    assert not core.hello(0.0).held


def test_a_result_of_an_earlier_process_is_brought_along() -> None:
    """Its deadline is not known any more, its seal is. One that an older version left has no Execute to show."""
    core = Core(max_concurrency=1, judge=judge)
    for execute in (sealed("a"), wire.Execute(command_id="old")):
        report = Report(execute.command_id)
        report.close(wire.Finished(command_id=execute.command_id), 0.0)
        core.restore(Result(execute, report, executed=True), now=5.0)
    hello = core.hello(5.0)
    assert list(hello.unacked_ids) == ["a", "old"]
    assert [(held.execute.command_id, held.execute.seal) for held in hello.held] == [("a", b"\x00sealed\xff")]
    assert 0 < hello.held[0].execute.timeout_s <= 1.0


def test_hello_is_bounded_whatever_was_asked_for() -> None:
    """Ten thousand ids, all listed, and a MiB of commands: in flight first, then the oldest results."""
    huge = "x" * limits.MAX_ARGUMENT_BYTES
    ids = [f"{number:0>200}" for number in range(10_000)]
    in_flight = tuple(command(command_id, huge, huge, huge) for command_id in ids[:10])
    unacked = tuple(command(command_id, state=State.FINISHED) for command_id in ids[10:])
    hello = Held(in_flight, unacked).hello(1.0, last_epoch=1)
    assert [*hello.in_flight_ids, *hello.unacked_ids] == ids
    assert MAX_HELD_BYTES // 2 < held_bytes(hello) <= MAX_HELD_BYTES
    assert [held.execute.command_id for held in hello.held] == ids[: len(hello.held)]
    assert hello.ByteSize() < GRPC_DEFAULT_BYTES


def test_what_does_not_fit_leaves_room_for_what_does() -> None:
    """Each huge one that has no room costs only itself."""
    huge = ["x" * limits.MAX_ARGUMENT_BYTES] * 20
    many = [command(f"huge-{number}", *huge) for number in range(10)]
    small = [command(f"small-{number}") for number in range(10)]
    hello = Held((*many, *small), ()).hello(1.0, last_epoch=0)
    assert [held.execute.command_id for held in hello.held] == [
        *(f"huge-{number}" for number in range(3)),
        *(f"small-{number}" for number in range(10)),
    ]
    assert held_bytes(hello) <= MAX_HELD_BYTES
    assert len(hello.in_flight_ids) == 20


@pytest.mark.parametrize("timeout_s", [0.0, 1e300])
def test_the_bound_holds_to_the_byte(timeout_s: float) -> None:
    """Also where the time remaining was not there before, and for every size of the rest."""
    for extra in range(300):
        held = tuple(command(f"c{number}", "x" * (100_000 + extra)) for number in range(11))
        for one in held:
            one.execute.timeout_s = timeout_s
            one.report.first_seq = (1 << 63) + 1
        assert held_bytes(Held(held, ()).hello(1.0, last_epoch=0)) <= MAX_HELD_BYTES


def test_the_last_epoch_is_the_highest_of_all_connections() -> None:
    """Zero before the first; a replica that begins anew with low ones does not lower it."""
    core = Core(max_concurrency=1, judge=judge)
    assert core.hello(0.0).last_epoch == 0
    for epoch, last in ((7, 7), (3, 7), (1 << 63, 1 << 63)):
        core.welcomed(wire.Welcome(epoch=epoch), 0.0)
        core.disconnected()
        assert core.hello(0.0).last_epoch == last
