"""What the executor does about what it hears. No loop, no clock: `now` is whatever the test says."""

from collections.abc import Sequence

import pytest

from executor.actions import Action, Ended, Erase, Hold, Kill, Note, NotStarted, Result, Resume, Send, Spawn, Store
from executor.admission import QUEUE_PER_PLACE
from executor.core import Core
from executor.report import STDOUT, Report
from openline import limits
from openline.capture import Kept
from openline.policy import Allowed, Denied, Masking, Output, Policy, Rule
from openline.reasons import NO, YES, Reason
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire


def judge(argv: Sequence[str], *, streamed: bool, remaining_s: float) -> Allowed | Denied:
    denied = Denied(Rule.VERB, "no", "get")
    return denied if argv[0] == "delete" else Allowed(tuple(argv), Policy())


def connected(*, max_concurrency: int = 2) -> Core:
    core = Core(max_concurrency=max_concurrency, judge=judge)
    core.welcomed(wire.Welcome(), 0.0)
    return core


def execute(command_id: str, *argv: str, timeout_s: float = 10.0, live: bool = False) -> wire.BrokerFrame:
    return wire.BrokerFrame(
        execute=wire.Execute(command_id=command_id, argv=argv or ("get", "pods"), timeout_s=timeout_s, live=live)
    )


def cancel(command_id: str) -> wire.BrokerFrame:
    return wire.BrokerFrame(cancel=wire.Cancel(command_id=command_id, why="not needed"))


def ack(command_id: str) -> wire.BrokerFrame:
    return wire.BrokerFrame(result_ack=wire.ResultAck(command_id=command_id))


def credit(size: int, command_id: str = "") -> wire.BrokerFrame:
    return wire.BrokerFrame(credit=wire.Credit(command_id=command_id, bytes=size))


def verdict(command_id: str, action: wire.VerdictAction.ValueType, *, next_seq: int = 0) -> wire.Welcome:
    return wire.Welcome(verdicts=[wire.Verdict(command_id=command_id, action=action, next_seq=next_seq)])


def ended(stdout: bytes = b"", stderr: bytes = b"", *, exit_code: int = 0) -> Ended:
    def kept(data: bytes) -> Kept:
        return Kept(data, total_bytes=len(data))

    return Ended(exit_code, kept(stdout), kept(stderr), run_s=0.5, finished_at=1.7e9)


def said(actions: list[Action]) -> list[str]:
    """The actions in short, without what is only for the log."""
    words = []
    for action in actions:
        match action:
            case Send(frame):
                words.append(frame.WhichOneof("frame"))
            case Spawn(command_id):
                words.append(f"spawn {command_id}")
            case Kill(command_id):
                words.append(f"kill {command_id}")
            case Hold(command_id):
                words.append(f"hold {command_id}")
            case Resume(command_id):
                words.append(f"resume {command_id}")
    return words


def finished(actions: list[Action]) -> wire.Finished:
    (frame,) = [a.frame.finished for a in actions if isinstance(a, Send) and a.frame.HasField("finished")]
    return frame


def rejected(actions: list[Action]) -> command_pb2.Error:
    (frame,) = [a.frame.rejected for a in actions if isinstance(a, Send) and a.frame.HasField("rejected")]
    return frame.error


def run(core: Core, command_id: str, *, now: float = 0.0, live: bool = False) -> None:
    """Takes a command as far as RUNNING."""
    core.received(execute(command_id, live=live), now)
    core.started(command_id)


def test_a_command_is_accepted_then_spawned_then_started_then_finished() -> None:
    """Accepted goes out before the process is spawned; output, in order, before Finished."""
    core = connected()
    assert said(core.received(execute("a"), 1.0)) == ["accepted", "spawn a"]
    assert said(core.started("a")) == ["started"]
    actions = core.ended("a", ended(b"out", b"err", exit_code=3), 2.0)
    assert said(actions) == ["output", "output", "finished"]
    assert [a.frame.output.seq for a in actions if isinstance(a, Send) and a.frame.HasField("output")] == [0, 1]
    frame = finished(actions)
    assert (frame.outcome, frame.exit_code) == (command_pb2.OUTCOME_EXITED, 3)
    assert not frame.HasField("error")
    assert frame.timings.run_s == 0.5
    [note] = [a for a in actions if isinstance(a, Note) and a.event == "command.finished"]
    assert note.fields["outcome"] == "exited"  # as the broker's log has it


def test_control_frames_do_not_wait_behind_output() -> None:
    """Output and Finished are put as output, everything else is not."""
    core = connected()
    actions = [*core.received(execute("a"), 0.0), *core.started("a"), *core.ended("a", ended(b"x"), 1.0)]
    as_output = {a.frame.WhichOneof("frame"): a.output for a in actions if isinstance(a, Send)}
    assert as_output == {"accepted": False, "started": False, "output": True, "finished": True}


def test_output_is_cut_into_frames_of_bounded_size() -> None:
    """64 KiB of data a frame at most, or less if the broker says so; nothing is lost at the seams."""
    data = bytes(range(256)) * 600
    for wanted, largest in ((0, limits.MAX_FRAME_BYTES), (2048, 2048), (1 << 30, limits.MAX_FRAME_BYTES)):
        core = Core(max_concurrency=1, judge=judge)
        core.welcomed(wire.Welcome(limits=wire.StreamLimits(max_frame_bytes=wanted)), 0.0)
        run(core, "a")
        pieces = [
            a.frame.output.data
            for a in core.ended("a", ended(data), 1.0)
            if isinstance(a, Send) and a.frame.HasField("output")
        ]
        assert max(map(len, pieces)) == largest
        assert b"".join(pieces) == data


def test_commands_wait_for_a_place_in_the_order_they_came() -> None:
    """Waiting commands are accepted at once and spawned when a place is free; the wait is reported."""
    core = connected(max_concurrency=1)
    core.received(execute("a"), 0.0)
    assert said(core.received(execute("b"), 0.0)) == ["accepted"]
    assert said(core.received(execute("c"), 0.0)) == ["accepted"]
    assert (core.running, core.queued) == (1, 2)
    assert said(core.ended("a", ended(), 3.0)) == ["finished", "spawn b"]
    core.started("b")
    assert finished(core.ended("b", ended(), 4.0)).timings.queue_s == 3.0


def test_too_many_are_refused_with_a_time_to_retry() -> None:
    """Beyond the places and the bounded queue: CLUSTER_BUSY, not executed, and the id may be tried again."""
    core = connected(max_concurrency=1)
    for index in range(1 + QUEUE_PER_PLACE):
        core.received(execute(f"c{index}"), 0.0)
    refusal = rejected(core.received(execute("late"), 0.0))
    assert (refusal.reason, refusal.executed) == (Reason.CLUSTER_BUSY, NO)
    assert refusal.retry_after_s > 0
    core.ended("c0", ended(), 1.0)
    assert said(core.received(execute("late"), 1.0)) == ["accepted"]


def test_a_refused_command_leaves_nothing_behind() -> None:
    """The policy's own error is the answer, and the command is neither listed nor remembered."""
    core = connected()
    assert rejected(core.received(execute("a", "delete", "pods"), 0.0)).reason == Reason.POLICY_DENIED
    assert core.idle
    assert core.held() == type(core.held())((), ())


@pytest.mark.parametrize("command_id", ["", "a b", "x" * 201])
def test_an_unusable_id_is_refused(command_id: str) -> None:
    assert rejected(connected().received(execute(command_id), 0.0)).reason == Reason.INVALID_COMMAND


def test_a_duplicate_is_answered_from_memory_at_every_stage() -> None:
    """The same Execute again is told what was told before; it never runs twice."""
    core = connected()
    assert said(core.received(execute("a"), 0.0)) == ["accepted", "spawn a"]
    assert said(core.received(execute("a"), 0.0)) == ["accepted"]
    core.started("a")
    assert said(core.received(execute("a"), 0.0)) == ["accepted", "started"]
    core.ended("a", ended(b"x"), 1.0)
    assert said(core.received(execute("a"), 2.0)) == ["accepted", "started", "output", "finished"]
    core.received(ack("a"), 3.0)
    refusal = rejected(core.received(execute("a"), 4.0))
    assert (refusal.reason, refusal.executed) == (Reason.RESULT_EXPIRED, YES)


def test_a_result_is_kept_until_it_is_acknowledged() -> None:
    """Each Welcome gets it anew; after ResultAck nothing is left, and a second one changes nothing."""
    core = connected()
    run(core, "a")
    core.ended("a", ended(b"x"), 1.0)
    for _ in range(2):
        core.disconnected()
        assert core.held().unacked_ids == ("a",)
        again = core.welcomed(verdict("a", wire.VERDICT_ACTION_KEEP), 2.0)
        assert said(again) == ["accepted", "started", "output", "finished"]
    assert not core.idle
    core.received(ack("a"), 3.0)
    core.received(ack("a"), 3.0)
    assert core.idle
    assert said(core.welcomed(wire.Welcome(), 4.0)) == []


def test_a_command_runs_on_while_nobody_is_connected() -> None:
    """Nothing is sent meanwhile, also not between Hello and Welcome; after it everything is said again."""
    core = connected(max_concurrency=1)
    run(core, "a")
    core.received(execute("b"), 0.0)
    core.disconnected()
    assert core.held().in_flight_ids == ("a", "b")
    assert said(core.ended("a", ended(b"x"), 1.0)) == ["spawn b"]
    assert said(core.started("b")) == []
    actions = core.welcomed(verdict("a", wire.VERDICT_ACTION_KEEP), 2.0)
    assert said(actions) == ["accepted", "started", "accepted", "started", "output", "finished"]
    assert finished(actions).timings.return_s == 1.0


def test_verdict_stored_forgets_the_result() -> None:
    core = connected()
    run(core, "a")
    core.ended("a", ended(b"x"), 1.0)
    assert said(core.welcomed(verdict("a", wire.VERDICT_ACTION_STORED), 2.0)) == []
    assert core.idle


def test_verdict_drop_kills_a_running_command_without_a_word() -> None:
    """It holds its place until it is reaped, is not listed any more, and is never run again."""
    core = connected(max_concurrency=1)
    run(core, "a")
    assert said(core.welcomed(verdict("a", wire.VERDICT_ACTION_DROP), 1.0)) == ["kill a"]
    assert core.held().in_flight_ids == ()
    assert core.running == 1
    assert rejected(core.received(execute("a"), 1.0)).reason == Reason.RESULT_EXPIRED
    assert said(core.ended("a", ended(b"x"), 2.0)) == []
    assert core.idle
    assert rejected(core.received(execute("a"), 3.0)).executed == YES


def test_verdict_drop_forgets_a_waiting_command_and_a_result() -> None:
    core = connected(max_concurrency=1)
    run(core, "a")
    core.received(execute("b"), 0.0)
    core.welcomed(verdict("b", wire.VERDICT_ACTION_DROP), 1.0)
    assert said(core.ended("a", ended(), 2.0)) == ["finished"]
    core.welcomed(verdict("a", wire.VERDICT_ACTION_DROP), 3.0)
    assert core.idle
    assert rejected(core.received(execute("b"), 4.0)).executed == NO


def test_the_deadline_counts_from_receipt() -> None:
    """Waiting for a place uses up the time; what expires there has not been executed and never starts."""
    core = connected(max_concurrency=1)
    run(core, "a")
    core.received(execute("b", timeout_s=5.0), 1.0)
    assert core.next_deadline() == 6.0
    assert said(core.expire(5.9)) == []
    actions = core.expire(6.0)
    assert said(actions) == ["finished"]
    frame = finished(actions)
    assert (frame.outcome, frame.error.reason) == (command_pb2.OUTCOME_TIMED_OUT, Reason.COMMAND_TIMEOUT)
    assert frame.error.executed == NO
    assert said(core.ended("a", ended(), 7.0)) == ["finished"]


def test_a_command_that_expired_while_the_loop_was_late_never_starts() -> None:
    """A free place after the deadline is too late, even if `expire` has not been called yet."""
    core = connected(max_concurrency=1)
    run(core, "a")
    core.received(execute("b", timeout_s=5.0), 0.0)
    assert said(core.ended("a", ended(), 6.0)) == ["finished", "finished"]


def test_on_expiry_the_process_is_killed_and_the_output_so_far_is_sent() -> None:
    core = connected()
    run(core, "a")
    assert said(core.expire(10.0)) == ["kill a"]
    assert core.next_deadline() is None
    actions = core.ended("a", ended(b"so far", exit_code=143), 10.2)
    assert said(actions) == ["output", "finished"]
    frame = finished(actions)
    assert (frame.outcome, frame.error.executed) == (command_pb2.OUTCOME_TIMED_OUT, YES)
    assert frame.stdout_summary.total_bytes == 6


def test_cancel_kills_and_the_first_reason_holds() -> None:
    """A deadline that passes while the process is being killed does not change why it ended."""
    core = connected()
    run(core, "a")
    assert said(core.received(cancel("a"), 1.0)) == ["kill a"]
    assert said(core.received(cancel("a"), 1.0)) == []
    assert said(core.expire(100.0)) == []
    frame = finished(core.ended("a", ended(exit_code=143), 2.0))
    assert (frame.outcome, frame.error.reason) == (command_pb2.OUTCOME_CANCELLED, Reason.CANCELLED)
    assert frame.error.message == "not needed"


def test_cancel_while_the_process_is_being_started() -> None:
    """Started comes too late to be said, but the command was executed."""
    core = connected()
    core.received(execute("a"), 0.0)
    assert said(core.received(cancel("a"), 0.0)) == ["kill a"]
    assert said(core.started("a")) == []
    assert finished(core.ended("a", ended(), 1.0)).error.executed == YES


def test_a_waiting_command_that_is_cancelled_never_starts() -> None:
    core = connected(max_concurrency=1)
    run(core, "a")
    core.received(execute("b"), 0.0)
    assert finished(core.received(cancel("b"), 1.0)).error.executed == NO
    assert said(core.ended("a", ended(), 2.0)) == ["finished"]


def test_a_result_and_a_cancel_that_cross() -> None:
    """A Cancel for a command that has ended, or that nobody knows, changes nothing."""
    core = connected()
    run(core, "a")
    core.ended("a", ended(), 1.0)
    assert core.received(cancel("a"), 2.0) == []
    assert core.received(cancel("unknown"), 2.0) == []
    assert core.ended("a", ended(), 3.0) == []


def test_a_process_that_could_not_be_started_is_a_refusal() -> None:
    core = connected()
    core.received(execute("a"), 0.0)
    frame = finished(core.ended("a", NotStarted("no such file"), 0.1))
    assert frame.outcome == command_pb2.OUTCOME_REJECTED
    assert (frame.error.reason, frame.error.executed) == (Reason.EXECUTOR_FAILED, NO)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan")])
def test_no_time_remaining_means_expired(timeout_s: float) -> None:
    """It is accepted and ends at once, so that the caller sees a timeout like any other."""
    actions = connected().received(execute("a", timeout_s=timeout_s), 5.0)
    assert said(actions) == ["accepted", "finished"]
    assert finished(actions).error.executed == NO


def test_an_endless_timeout_is_bounded() -> None:
    core = connected()
    core.received(execute("a", timeout_s=float("inf")), 0.0)
    assert core.next_deadline() == limits.MAX_TIMEOUT_S


def test_draining_refuses_what_is_new_and_finishes_what_was_accepted() -> None:
    """Said once on the connection there is, and again on one that comes later."""
    core = connected(max_concurrency=1)
    run(core, "a")
    core.received(execute("b"), 0.0)
    assert said(core.drain("stopping")) == ["draining"]
    assert rejected(core.received(execute("c"), 0.0)).reason == Reason.CLUSTER_BUSY
    assert said(core.received(execute("a"), 0.0)) == ["accepted", "started"]
    assert said(core.ended("a", ended(), 1.0)) == ["finished", "spawn b"]
    core.received(ack("a"), 1.0)
    core.disconnected()
    assert said(core.welcomed(wire.Welcome(), 2.0)) == ["draining", "accepted"]


def test_stopping_ends_everything() -> None:
    core = connected(max_concurrency=1)
    run(core, "a")
    core.received(execute("b"), 0.0)
    assert said(core.stop_all("stopping", 1.0)) == ["kill a", "finished"]
    assert said(core.ended("a", ended(), 1.3)) == ["finished"]


def test_results_that_are_pushed_out_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that never acknowledges costs bounded memory; each loss is a warning in the log."""
    monkeypatch.setattr("executor.memory.MAX_RESULTS", 2)
    core = connected()
    notes = []
    for command_id in ("a", "b", "c"):
        run(core, command_id)
        notes += [a for a in core.ended(command_id, ended(), 1.0) if isinstance(a, Note) and a.warning]
    assert [(note.event, note.fields["command_id"]) for note in notes] == [("result.dropped", "a")]
    assert core.held().unacked_ids == ("b", "c")


def test_nothing_for_the_log_tells_what_was_run() -> None:
    """No argv and no output in a log line."""
    core = connected()
    actions = [*core.received(execute("a", "get", "hush"), 0.0), *core.ended("a", ended(b"hush"), 1.0)]
    actions += core.received(execute("b", "delete", "hush"), 0.0)
    assert not any("hush" in str(action) for action in actions if isinstance(action, Note))


def test_a_live_command_tells_what_it_writes_as_it_comes() -> None:
    """Nothing waits for the end; Finished has the exact totals and nothing was cut."""
    core = connected()
    actions = core.received(execute("a", live=True), 0.0)
    assert [a.live for a in actions if isinstance(a, Spawn)] == [True]
    core.started("a")
    assert said(core.wrote("a", STDOUT, b"one\n", 1.0)) == ["output"]
    assert said(core.wrote("a", STDOUT, b"two\n", 2.0)) == ["output"]
    end = Ended(0, Kept(total_bytes=8, total_lines=2), Kept(), run_s=2.0, finished_at=1.7e9)
    actions = core.ended("a", end, 2.0)
    assert said(actions) == ["finished"]
    assert (finished(actions).stdout_summary.total_bytes, finished(actions).stdout_summary.cut_bytes) == (8, 0)


def test_the_end_of_a_live_command_waits_for_credit() -> None:
    """Finished goes after all its output, however late; credit of the stream alone is not enough."""
    core = connected()
    run(core, "a", live=True)
    window = limits.COMMAND_CREDIT_BYTES
    assert said(core.wrote("a", STDOUT, bytes(window + 1), 1.0)) == ["output"] * 4 + ["hold a"]
    assert said(core.ended("a", ended(), 2.0)) == []
    assert said(core.received(credit(1 << 20), 3.0)) == []
    actions = core.received(credit(1, "a"), 4.0)
    assert said(actions) == ["output", "finished"]
    assert finished(actions).timings.return_s == 2.0


def test_a_held_up_process_goes_on_with_credit() -> None:
    core = connected()
    run(core, "a", live=True)
    core.wrote("a", STDOUT, bytes(limits.COMMAND_CREDIT_BYTES + 10), 1.0)
    assert said(core.received(credit(5, "a"), 2.0)) == ["output"]
    assert said(core.received(credit(5, "a"), 2.0)) == ["output", "resume a"]


def test_credit_for_the_unknown_changes_nothing() -> None:
    assert connected().received(credit(1 << 63, "nobody"), 0.0) == []


def test_a_reconnect_goes_on_where_the_broker_is() -> None:
    """What was sent and has arrived is not sent again; what has not is; then comes what was written meanwhile."""
    core = connected()
    run(core, "a", live=True)
    core.wrote("a", STDOUT, b"one", 1.0)
    core.wrote("a", STDOUT, b"two", 1.0)
    core.disconnected()
    assert said(core.wrote("a", STDOUT, b"three", 2.0)) == ["hold a"]
    actions = core.welcomed(verdict("a", wire.VERDICT_ACTION_KEEP, next_seq=1), 3.0)
    assert said(actions) == ["accepted", "started", "output", "output", "resume a"]
    frames = [a.frame.output for a in actions if isinstance(a, Send) and a.frame.HasField("output")]
    assert [(frame.seq, frame.data) for frame in frames] == [(1, b"two"), (2, b"three")]


def test_output_that_cannot_be_continued_ends_the_command() -> None:
    """A broker asks for what has been dropped: never a silent gap, but an end that says why."""
    core = connected()
    run(core, "a", live=True)
    core.wrote("a", STDOUT, b"one", 1.0)
    core.received(credit(3, "a"), 1.0)
    core.disconnected()
    core.wrote("a", STDOUT, b"two", 1.0)
    actions = core.welcomed(verdict("a", wire.VERDICT_ACTION_KEEP, next_seq=0), 2.0)
    assert said(actions) == ["accepted", "started", "resume a", "kill a"]
    assert [a.event for a in actions if isinstance(a, Note) and a.warning] == ["output.severed"]
    assert said(core.wrote("a", STDOUT, b"three", 2.0)) == []
    frame = finished(core.ended("a", Ended(143, Kept(total_bytes=11), Kept(), 1.0, 0.0), 3.0))
    assert (frame.outcome, frame.error.executed) == (command_pb2.OUTCOME_CANCELLED, YES)
    assert "cannot be continued" in frame.error.message
    assert frame.stdout_summary.cut_bytes == 11


def test_cancel_sends_what_was_written_before() -> None:
    """Also what was read after the kill, and what had to wait for credit."""
    core = connected()
    run(core, "a", live=True)
    core.wrote("a", STDOUT, b"so far", 1.0)
    assert said(core.received(cancel("a"), 1.0)) == ["kill a"]
    assert said(core.wrote("a", STDOUT, b"last words", 1.1)) == ["output"]
    assert said(core.ended("a", ended(exit_code=143), 1.2)) == ["finished"]


def test_what_a_dropped_command_writes_is_nobodys() -> None:
    core = connected()
    run(core, "a", live=True)
    core.welcomed(verdict("a", wire.VERDICT_ACTION_DROP), 1.0)
    assert core.wrote("a", STDOUT, b"x", 1.0) == []
    assert core.received(credit(1, "a"), 1.0) == []


def test_a_result_is_stored_and_erased_when_it_is_acknowledged() -> None:
    """Once each; what was never finished is never stored."""
    core = connected()
    run(core, "a")
    run(core, "b")
    kept = [action for action in core.ended("a", ended(b"x"), 1.0) if isinstance(action, Store)]
    assert [(action.result.execute.argv, action.result.executed) for action in kept] == [(["get", "pods"], True)]
    assert [action.result.report.command_id for action in kept] == ["a"]
    assert core.received(ack("a"), 2.0) == [Erase("a")]
    assert core.received(ack("a"), 2.0) == []
    core.ended("b", ended(), 2.0)
    assert Erase("b") in core.welcomed(verdict("b", wire.VERDICT_ACTION_STORED), 3.0)


def test_a_result_of_an_earlier_process_is_handed_over() -> None:
    """Listed as unacknowledged, sent when it is to be kept, never run again."""
    report = Report("a")
    report.write(STDOUT, b"out")
    report.close(wire.Finished(command_id="a", exit_code=3), 0.0)
    core = Core(max_concurrency=1, judge=judge)
    assert core.restore(Result(wire.Execute(command_id="a"), report, executed=True), now=5.0) == []
    assert core.held().unacked_ids == ("a",)
    actions = core.welcomed(verdict("a", wire.VERDICT_ACTION_KEEP), 6.0)
    assert said(actions) == ["accepted", "started", "output", "finished"]
    assert finished(actions).exit_code == 3
    assert said(core.received(execute("a"), 7.0)) == ["accepted", "started", "output", "finished"]
    assert core.received(ack("a"), 8.0) == [Erase("a")]
    assert rejected(core.received(execute("a"), 9.0)).reason == Reason.RESULT_EXPIRED


def test_the_policy_hears_whether_somebody_reads_along() -> None:
    asked = []

    def ask(argv: Sequence[str], *, streamed: bool, remaining_s: float) -> Denied:
        asked.append((streamed, remaining_s))
        return Denied(Rule.VERB, "no", "nothing")

    core = Core(max_concurrency=1, judge=ask)
    core.received(execute("a", live=True), 0.0)
    core.received(execute("b", timeout_s=3.0), 0.0)
    core.received(execute("c", timeout_s=-1.0), 0.0)
    assert asked == [(True, 10.0), (False, 3.0), (False, 0.0)]


UNMASKED = Masking(secrets=False, values=False)


def test_what_was_allowed_runs_and_not_what_was_asked() -> None:
    """The policy writes the arguments anew; its bound on output and its masking hold, whatever the broker allows."""

    def rewrite(argv: Sequence[str], *, streamed: bool, remaining_s: float) -> Allowed:
        return Allowed(("get", "pods", "--namespace=shop"), Policy(output=Output(max_bytes=2000), masking=UNMASKED))

    core = Core(max_concurrency=1, judge=rewrite)
    core.welcomed(wire.Welcome(), 0.0)
    frame = execute("a", "-nshop", "get", "pods")
    frame.execute.output_limits.max_bytes = 1 << 30
    [spawn] = [action for action in core.received(frame, 0.0) if isinstance(action, Spawn)]
    argv = ("get", "pods", "--namespace=shop")
    assert spawn == Spawn("a", argv, max_bytes=2000, masking=UNMASKED, names={"command_id": "a", "owner": ""})
    # Another broker hears what was asked, under its seal.
    assert core.hello(1.0).held[0].execute.argv == ["-nshop", "get", "pods"]
