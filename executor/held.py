"""What Hello says of the commands that this executor holds, so that any replica can take them over. Pure.

A replica that has never heard of a command adopts it by the Execute that another one sent and sealed. That is handed
back as it came: only the time remaining is counted down, which the seal leaves out.
"""

from dataclasses import dataclass

from executor.life import Command, State
from openline.v1 import executor_service_pb2 as wire

# As the contract says; beside ten thousand ids, Hello stays under the 4 MiB that gRPC takes by default.
MAX_HELD_BYTES = 1 << 20
# Of a HeldCommand beside the Execute: tags and lengths, the seq, and a timeout that was not there before.
ENVELOPE_BYTES = 40
# What remains when nothing does. Zero would ask for the default. The end of what is past its deadline is a moment away;
# a result that is kept comes over the line that has just been opened.
LEAST_S = 0.001
LEAST_FOR_A_RESULT_S = 1.0


@dataclass(frozen=True, slots=True)
class Held:
    """Commands that have not ended, in the order they came, and those whose results no broker has acknowledged."""

    in_flight: tuple[Command, ...]
    unacked: tuple[Command, ...]

    @property
    def in_flight_ids(self) -> tuple[str, ...]:
        return tuple(command.command_id for command in self.in_flight)

    @property
    def unacked_ids(self) -> tuple[str, ...]:
        return tuple(command.command_id for command in self.unacked)

    def hello(self, now: float, *, last_epoch: int) -> wire.Hello:
        """The part of Hello that tells of commands: every id, and as many of the commands as there is room for."""
        hello = wire.Hello(in_flight_ids=self.in_flight_ids, unacked_ids=self.unacked_ids, last_epoch=last_epoch)
        room_bytes = MAX_HELD_BYTES
        for command in (*self.in_flight, *self.unacked):
            size = command.execute.ByteSize() + ENVELOPE_BYTES
            # Of a result that an older version left on disk there is only the id: nothing to adopt it by.
            if size > room_bytes or not command.execute.argv:
                continue
            room_bytes -= size
            held = hello.held.add(first_seq=command.report.first_seq)
            held.execute.CopyFrom(command.execute)
            held.execute.timeout_s = _left_s(command, now)
        return hello


def _left_s(command: Command, now: float) -> float:
    least_s = LEAST_FOR_A_RESULT_S if command.state is State.FINISHED else LEAST_S
    return max(command.deadline - now, least_s)
