"""The spans of the calls that are open on one pipe: each frame that asks for something is a call of its own."""

from openline.tracing.calls import Call, serving
from openline.tracing.spans import are_recorded
from openline.v1 import command_service_pb2 as pb

METHODS = {
    "execute": "CommandService/Execute",
    "execute_stream": "CommandService/ExecuteStream",
    "watch": "CommandService/WatchCommand",
    "cancel": "CommandService/CancelCommand",
}


class PipeSpans:
    """By call id; empty while nothing is recorded."""

    def __init__(self) -> None:
        self._open: dict[int, Call] = {}

    def __len__(self) -> int:
        return len(self._open)

    def asked(self, frame: pb.CallerFrame) -> None:
        """A call begins, and what is asked is under its span from here on."""
        if not are_recorded():
            return
        kind = frame.WhichOneof("frame") or ""
        request = getattr(frame, kind)
        # Some things replicas ask each other by themselves: of these, there is no trace that they could be in.
        if request.traceparent or not frame.HasField("forwarded"):
            self._open[frame.call_id] = serving(METHODS[kind], request)

    def told(self, reply: pb.ReplyFrame) -> None:
        """A frame goes to whoever called, and ends the call unless it is an event before the last."""
        if not self._open or (call := self._open.get(reply.call_id)) is None:
            return
        match reply.WhichOneof("frame"):
            case "response":
                call.result(reply.response.result, replayed=reply.response.replayed)
            case "error":
                call.failed(reply.error)
            case "event" if reply.event.HasField("result"):
                call.result(reply.event.result)
            case "event":
                return
        self._end(reply.call_id)

    def left(self, call_id: int) -> None:
        """Nobody waits for the call any more."""
        if self._open and (call := self._open.get(call_id)) is not None:
            call.left()
            self._end(call_id)

    def close(self) -> None:
        """The pipe is gone."""
        for call_id in list(self._open):
            self.left(call_id)

    def _end(self, call_id: int) -> None:
        self._open.pop(call_id).end()
