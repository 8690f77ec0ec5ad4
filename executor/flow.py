"""In what order output goes out on the stream, against credits: a frame of each report in turn. Pure.

A frame needs credit of its command and of the stream. A report without credit of its own leaves the ring until `grant`.
A live command whose output does not get out at once is not read from (Hold), which holds its process up, until it has.
"""

from collections import OrderedDict

from executor.actions import Action, Hold, Resume, Send
from executor.report import Report, Source
from openline import limits
from openline.v1 import executor_service_pb2 as wire

# Below this a frame is not worth its envelope, whatever a broker says.
LEAST_FRAME_BYTES = 1024
# No frame is larger than this part of a window: it fits in what is left while a broker holds back up to the rest.
WINDOW_PARTS = 4


class Flow:
    """Who may send next, on the connection that there is."""

    def __init__(self) -> None:
        self._connected = False
        self._credit_bytes = 0
        self._window_bytes = limits.COMMAND_CREDIT_BYTES
        self._frame_bytes = limits.MAX_FRAME_BYTES
        self._ring: OrderedDict[str, Report] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Flow credit={self._credit_bytes} waiting={list(self._ring)}>"

    # The connection

    def open(self, allowed: wire.StreamLimits) -> None:
        """A new connection, with what its Welcome allows. Every report must be given to `resume`."""
        self._connected = True
        self._ring.clear()
        self._credit_bytes = allowed.stream_credit_bytes or limits.STREAM_CREDIT_BYTES
        self._window_bytes = allowed.command_credit_bytes or limits.COMMAND_CREDIT_BYTES
        frame_bytes = max(allowed.max_frame_bytes or limits.MAX_FRAME_BYTES, LEAST_FRAME_BYTES)
        window_bytes = min(self._window_bytes, self._credit_bytes)
        self._frame_bytes = min(frame_bytes, limits.MAX_FRAME_BYTES, max(1, window_bytes // WINDOW_PARTS))

    def close(self) -> None:
        """The connection is gone."""
        self._connected = False
        self._ring.clear()

    def grant(self, credit_bytes: int) -> None:
        """Credit of the stream; `pump` sends."""
        self._credit_bytes += credit_bytes

    # One report

    def report(self, command_id: str, *, live: bool) -> Report:
        """The report of a new command."""
        report = Report(command_id, live=live)
        report.resume(0, credit_bytes=self._window_bytes, frame_bytes=self._frame_bytes)
        return report

    def resume(self, report: Report, next_seq: int) -> bool:
        """The broker has the frames before `next_seq`; `push` sends the rest. False if it cannot be had any more."""
        return report.resume(next_seq, credit_bytes=self._window_bytes, frame_bytes=self._frame_bytes)

    def grant_report(self, report: Report, credit_bytes: int, now: float) -> list[Action]:
        """Credit of one command."""
        report.grant(credit_bytes)
        return self.push(report, now)

    def write(self, report: Report, source: Source, data: bytes, now: float) -> list[Action]:
        """A live command's process wrote something: sends it, or holds the process up."""
        report.write(source, data)
        actions = self.push(report, now)
        if report.waiting_bytes and not report.held:
            report.held = True
            actions.append(Hold(report.command_id))
        return actions

    def push(self, report: Report, now: float) -> list[Action]:
        """Sends what a report has to tell, as soon as it may."""
        if not self._connected:
            return []
        if report.waiting_bytes:
            self._ring.setdefault(report.command_id, report)
            return self.pump(now)
        return _ending(report, now)

    def drop(self, command_id: str) -> None:
        """Nobody wants the rest of a report."""
        self._ring.pop(command_id, None)

    # All of them

    def pump(self, now: float) -> list[Action]:
        """Sends what may be sent: a frame of each report in turn, and each Finished behind its last frame."""
        actions: list[Action] = []
        while self._ring:
            command_id, report = self._ring.popitem(last=False)
            if report.next_bytes > report.credit_bytes:
                continue
            output = report.take(self._credit_bytes)
            if output is None:  # for want of the stream's credit: it is its turn when there is more
                self._ring[command_id] = report
                self._ring.move_to_end(command_id, last=False)
                break
            self._credit_bytes -= len(output.data)
            actions.append(Send(wire.ExecutorFrame(output=output), output=True))
            if report.waiting_bytes:
                self._ring[command_id] = report
                continue
            actions += _ending(report, now)
            if report.held:
                report.held = False
                actions.append(Resume(command_id))
        return actions


def _ending(report: Report, now: float) -> list[Action]:
    finished = report.ending(now)
    return [] if finished is None else [Send(wire.ExecutorFrame(finished=finished), output=True)]
