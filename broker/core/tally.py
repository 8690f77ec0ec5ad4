"""What has become of commands and connections, in numbers: counted once for each command, when it ends."""

from itertools import product

from broker.core.command import Command
from openline.policy import Rule
from openline.reasons import OUTCOME_TEXT, Reason, reason_of
from openline.tally import Histogram
from openline.v1 import command_pb2

# An outcome, a reason or none, and whether it was an agent call.
Ended = tuple[str, str, bool]

REFUSED = "refused"
# An executor of a newer version may name a rule that is not known here.
OTHER_RULE = "other"
STAGES = ("queue", "route", "deliver", "run", "return")
# What no caller can help, as deploy/prometheus/alerts.yaml has it, and how a command may end for it. These ends are
# counted from zero: of a series that begins with eight Prometheus says that it has not grown, and nobody is alarmed.
DEFECTS = (
    Reason.INTERNAL,
    Reason.EXECUTOR_FAILED,
    Reason.STORE_UNAVAILABLE,
    Reason.BROKER_UNAVAILABLE,
    Reason.PROTOCOL_VIOLATION,
)
ALARMING = [("lost", Reason.EXECUTOR_LOST), *product((REFUSED, "rejected", "lost"), DEFECTS)]


class Tally:
    """Of what callers asked this replica for: what is forwarded is counted where it was asked."""

    def __init__(self) -> None:
        self.ended: dict[Ended, int] = {(*end, agent): 0 for end, agent in product(ALARMING, (True, False))}
        self.durations = {True: Histogram(), False: Histogram()}
        self.stages = {stage: Histogram() for stage in STAGES}
        self.forwarded = 0
        # By whose run they were answered with.
        self.shared = {command_pb2.SERVED_FROM_SHARED: 0, command_pb2.SERVED_FROM_CACHE: 0}
        self.output_bytes = 0
        self.output_cut_bytes = 0
        self.truncated = 0
        self.denied = dict.fromkeys([*map(str, Rule), OTHER_RULE], 0)
        self.connects = {"first": 0, "reconnect": 0}
        self.unknown_frames = 0

    def concluded(self, command: Command) -> None:
        """The command has its result."""
        if command.result is None:
            return
        result, is_agent_call = command.result, bool(command.ask.correlation_id)
        timings = result.timings
        is_exit = result.outcome == command_pb2.OUTCOME_EXITED
        reason = "" if is_exit else reason_of(result.error)
        self._count(OUTCOME_TEXT.get(result.outcome, "unknown"), reason, is_agent_call)
        self.durations[is_agent_call].observe(timings.total_s)
        self.forwarded += command.is_stored_elsewhere
        if result.served_from:
            # Its stages and its output are those of another command.
            if result.served_from in self.shared:
                self.shared[result.served_from] += 1
            return
        if is_exit:
            stages = self.stages
            stages["queue"].observe(timings.queue_s)
            stages["route"].observe(timings.route_s)
            stages["deliver"].observe(timings.deliver_s)
            stages["run"].observe(timings.run_s)
            stages["return"].observe(timings.return_s)
        stdout, stderr = result.stdout_summary, result.stderr_summary
        self.output_bytes += stdout.total_bytes + stderr.total_bytes
        if cut_bytes := stdout.cut_bytes + stderr.cut_bytes:
            self.output_cut_bytes += cut_bytes
            self.truncated += 1
        if reason is Reason.POLICY_DENIED:
            rule = result.error.metadata.get("rule", "")
            self.denied[rule if rule in self.denied else OTHER_RULE] += 1

    def refused(self, reason: Reason, *, is_agent_call: bool) -> None:
        """A request never became a command."""
        self._count(REFUSED, reason, is_agent_call)

    def connected(self, *, again: bool) -> None:
        self.connects["reconnect" if again else "first"] += 1

    def _count(self, outcome: str, reason: str, is_agent_call: bool) -> None:
        ended = (outcome, reason, is_agent_call)
        self.ended[ended] = self.ended.get(ended, 0) + 1
