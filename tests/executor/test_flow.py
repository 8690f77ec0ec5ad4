"""In what order output goes out, against credits."""

from executor.actions import Action, Hold, Resume, Send
from executor.flow import Flow
from executor.report import STDOUT, Report
from openline import limits
from openline.v1 import executor_service_pb2 as wire

KIB = 1 << 10


def opened(*, command: int = 0, stream: int = 0, frame: int = 0) -> Flow:
    flow = Flow()
    flow.open(wire.StreamLimits(max_frame_bytes=frame, command_credit_bytes=command, stream_credit_bytes=stream))
    return flow


def ended(flow: Flow, command_id: str, data: bytes) -> tuple[Report, list[Action]]:
    """A command that is not live and has just ended."""
    report = flow.report(command_id, live=False)
    report.write(STDOUT, data)
    report.close(wire.Finished(command_id=command_id), 0.0)
    return report, flow.push(report, 0.0)


def said(actions: list[Action]) -> list[str]:
    """`a 100` for a frame of output, `a end` for Finished, `hold a` and `resume a`."""
    words = []
    for action in actions:
        match action:
            case Send(frame) if frame.HasField("output"):
                words.append(f"{frame.output.command_id} {len(frame.output.data)}")
            case Send(frame):
                words.append(f"{frame.finished.command_id} end")
            case Hold(command_id):
                words.append(f"hold {command_id}")
            case Resume(command_id):
                words.append(f"resume {command_id}")
    return words


def test_what_was_read_leaves_at_once() -> None:
    """A small piece does not wait for more."""
    flow = opened()
    report = flow.report("a", live=True)
    assert said(flow.write(report, STDOUT, b"x", 0.0)) == ["a 1"]


def test_a_result_of_the_default_limits_begins_with_one_window() -> None:
    """Frames of 64 KiB up to the command's credit; Finished follows the last."""
    flow = opened()
    report, actions = ended(flow, "a", bytes(300 * KIB))
    assert said(actions) == ["a 65536"] * 4
    assert said(flow.grant_report(report, limits.COMMAND_CREDIT_BYTES, 0.0)) == [f"a {44 * KIB}", "a end"]


def test_reports_take_turns() -> None:
    """Eight results of a mebibyte do not stand before a small one."""
    flow = opened(command=1 << 20, stream=64 * KIB, frame=16 * KIB)
    for index in range(8):
        ended(flow, f"big{index}", bytes(1 << 20))
    ended(flow, "small", b"x")
    flow.grant(1 << 20)
    words = said(flow.pump(0.0))
    assert words.index("small 1") < 10
    assert words.index("small end") == words.index("small 1") + 1
    turns = [word.split()[0] for word in words if word.startswith("big")]
    assert {turns.count(f"big{index}") for index in range(8)} <= {7, 8}


def test_a_report_without_credit_of_its_own_holds_up_nobody() -> None:
    flow = opened(command=1000, stream=1 << 20)
    starved, _ = ended(flow, "a", bytes(3000))
    _, actions = ended(flow, "b", bytes(100))
    assert said(actions) == ["b 100", "b end"]
    assert said(flow.grant_report(starved, 1000, 0.0)) == ["a 250"] * 4


def test_finished_without_output_needs_no_credit() -> None:
    flow = opened(stream=8)
    ended(flow, "a", bytes(100))
    _, actions = ended(flow, "b", b"")
    assert said(actions) == ["b end"]


def test_a_live_command_is_held_up_until_its_output_is_out() -> None:
    """Without credit it is not read from; with credit it is again, once everything read before has gone."""
    flow = opened(command=100)
    report = flow.report("a", live=True)
    assert said(flow.write(report, STDOUT, bytes(150), 0.0)) == ["a 25"] * 4 + ["hold a"]
    assert said(flow.write(report, STDOUT, bytes(20), 0.0)) == []
    assert said(flow.grant_report(report, 60, 0.0)) == ["a 25", "a 25", "a 10"]
    assert said(flow.grant_report(report, 60, 0.0)) == ["a 10", "resume a"]


def test_no_connection_holds_up_as_well() -> None:
    flow = opened()
    report = flow.report("a", live=True)
    flow.close()
    assert said(flow.write(report, STDOUT, b"x", 0.0)) == ["hold a"]
    flow.open(wire.StreamLimits())
    assert flow.resume(report, 0)
    assert said(flow.push(report, 0.0)) == ["a 1", "resume a"]


def test_credit_of_an_older_connection_does_not_count() -> None:
    """A new connection begins with what its Welcome allows, for the stream and for each command."""
    flow = opened(stream=100, command=100)
    report, _ = ended(flow, "a", bytes(500))
    flow.grant(1 << 30)
    flow.close()
    flow.open(wire.StreamLimits(stream_credit_bytes=80, command_credit_bytes=60))
    assert flow.resume(report, 0)
    assert sum(int(word.split()[1]) for word in said(flow.push(report, 0.0))) <= 60


def test_what_is_dropped_is_not_sent() -> None:
    flow = opened(stream=8)
    ended(flow, "a", bytes(100))
    flow.drop("a")
    flow.grant(1000)
    assert said(flow.pump(0.0)) == []


def test_a_resent_frame_that_does_not_fit_into_the_streams_credit_keeps_its_turn() -> None:
    """It has its size already; it goes first when there is credit enough."""
    flow = opened(stream=400)
    report, _ = ended(flow, "a", bytes(90))
    flow.close()
    flow.open(wire.StreamLimits(stream_credit_bytes=400))
    taker, _ = ended(flow, "b", bytes(350))
    assert flow.resume(report, 0)
    assert said(flow.push(report, 0.0)) == []
    flow.grant(100)
    assert said(flow.pump(0.0)) == ["a 90", "a end"]
    assert taker.waiting_bytes == 0


def test_nonsense_in_welcome_is_bounded() -> None:
    """Frames are never larger than the contract says, however much is allowed, nor larger than a window."""
    for allowed in (1 << 64) - 1, 1, 3:
        flow = opened(command=allowed, stream=allowed, frame=allowed)
        _, actions = ended(flow, "a", bytes(200 * KIB))
        sizes = [int(word.split()[1]) for word in said(actions) if not word.endswith("end")]
        assert max(sizes) <= min(limits.MAX_FRAME_BYTES, allowed)
