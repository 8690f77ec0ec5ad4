"""The executors' streams of this replica, by connection: what is sent on them, and how each is ended from here."""

from broker.core.connections import Connection
from broker.core.proof import Proof
from broker.dispatches import Dispatches
from openline.stream import FrameStream
from openline.v1 import executor_service_pb2

Stream = FrameStream[executor_service_pb2.ExecutorFrame, executor_service_pb2.BrokerFrame]
BrokerFrame = executor_service_pb2.BrokerFrame

# Executors say nothing to these.
UNANSWERED = frozenset({"result_ack", "credit", "activity"})


class Streams:
    """A connection without a stream is about to be gone: what is for it is dropped."""

    def __init__(self, proof: Proof) -> None:
        self._proof = proof
        self._streams: dict[Connection, Stream] = {}
        self.dispatches = Dispatches()

    def __repr__(self) -> str:
        return f"<Streams n={len(self._streams)}>"

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._streams

    def add(self, connection: Connection, stream: Stream) -> None:
        self._streams[connection] = stream

    def remove(self, connection: Connection) -> None:
        """The connection's stream has ended."""
        del self._streams[connection]

    def send(self, connection: Connection, frame: BrokerFrame) -> None:
        """Queues a frame; an Execute under this replica's seal."""
        if (stream := self._streams.get(connection)) is None:
            return
        kind = frame.WhichOneof("frame")
        if kind == "execute":
            where = {"cluster_id": connection.cluster_id, "executor_id": connection.executor_id}
            self.dispatches.begin(connection, frame.execute)
            frame.execute.seal = self._proof.seal(frame.execute, **where)
        stream.send(frame, answered=kind not in UNANSWERED)

    def break_off(self, connection: Connection, why: Exception) -> None:
        """Ends the connection's stream at once; what is queued on it is lost, what runs may be handed over later."""
        if (stream := self._streams.get(connection)) is not None:
            stream.break_off(why)

    def let_go(self, connection: Connection) -> None:
        """Ends the connection's stream when what is queued on it has been written."""
        if (stream := self._streams.get(connection)) is not None:
            stream.close()

    def let_go_of_all(self) -> None:
        for connection in self._streams:
            self.let_go(connection)
