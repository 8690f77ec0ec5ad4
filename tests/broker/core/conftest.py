"""The ledger on a desk: connections and commands made by the line, and what comes out kept in order."""

import itertools
from collections.abc import Callable, Collection
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.actions import Action, Close, Conclude, Send
from broker.core.command import Ask, Command
from broker.core.connections import Connection
from broker.core.ledger import Ledger
from openline import ids
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

GRACE_S = 10.0

_epochs = itertools.count(1)


def ask(cluster_id: str = "prod", *, timeout_s: float = 60.0, command_id: str = "", **fields: Any) -> Ask:
    defaults: dict[str, Any] = {"argv": ("get", "pods"), "max_output_bytes": 1 << 20, "owner": "alice"}
    return Ask(command_id=command_id or ids.new_id(), cluster_id=cluster_id, timeout_s=timeout_s, **(defaults | fields))


def connection(
    cluster_id: str = "prod",
    *,
    executor_id: str = "exec-1",
    instance_id: str = "i-1",
    max_concurrency: int = 4,
    attempt: int = 0,
) -> Connection:
    return Connection(
        cluster_id=cluster_id,
        executor_id=executor_id,
        instance_id=instance_id,
        epoch=next(_epochs),
        max_concurrency=max_concurrency,
        capabilities=wire.Capabilities(),
        versions=wire.Versions(),
        connected_at=Timestamp(),
        attempt=attempt,
    )


class Desk:
    """A ledger whose actions are kept; every method carries the instant it happens at."""

    def __init__(self) -> None:
        self.ledger = Ledger(reconnect_grace_s=GRACE_S)
        self.concluded: list[Command] = []

    def _keep(self, actions: list[Action]) -> list[Action]:
        self.concluded += [action.command for action in actions if isinstance(action, Conclude)]
        return actions

    def submit(self, cluster_id: str = "prod", *, now: float = 0.0, **fields: Any) -> Command:
        command, actions = self.ledger.submit(ask(cluster_id, **fields), asked_at=Timestamp(), now=now)
        self.sent = self._keep(actions)
        return command

    def connect(
        self,
        connection: Connection,
        *,
        now: float = 0.0,
        in_flight: Collection[str] = (),
        unacked: Collection[str] = (),
    ) -> list[Action]:
        """Connects; what the Welcome says is in `verdicts` afterwards."""
        verdicts, actions = self.ledger.connect(connection, in_flight=in_flight, unacked=unacked, now=now)
        self.verdicts = {verdict.command_id: wire.VerdictAction.Name(verdict.action) for verdict in verdicts}
        return self._keep(actions)

    def disconnect(self, connection: Connection, *, now: float = 0.0) -> bool:
        """Whether it was its executor's connection until now; what follows for others is in `sent`."""
        was_current, actions = self.ledger.disconnect(connection, now=now)
        self.sent = self._keep(actions)
        return was_current

    def say(self, connection: Connection, *frames: wire.ExecutorFrame, now: float = 0.0) -> list[Action]:
        return [action for frame in frames for action in self._keep(self.ledger.receive(connection, frame, now=now))]

    def cancel(self, command: Command, *, now: float = 0.0) -> list[Action]:
        return self._keep(self.ledger.cancel(command, why="the caller is gone", now=now))

    def tick(self, now: float) -> list[Action]:
        return self._keep(self.ledger.tick(now=now))

    def settle(self, command: Command, *, stored: bool = True) -> list[Action]:
        return self._keep(self.ledger.settled(command, stored=stored))

    def settle_all(self) -> None:
        for command in self.concluded:
            self.settle(command)

    def assert_empty(self) -> None:
        """Nothing of any command or of any broken connection is left in any table."""
        ledger, account = self.ledger, self.ledger._account
        assert ledger.commands == account.away == account.queues == {}
        assert len(account.deadlines) == len(account.graces) == 0
        assert ledger.next_due() is None
        for cluster_id in ledger.connections.clusters():
            assert [open_.commands for open_ in ledger.connections.of_cluster(cluster_id) if open_.commands] == []


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture(scope="session")
def new_desk() -> Callable[[], Desk]:
    """For tests that need one for each example."""
    return Desk


@pytest.fixture(scope="session")
def new_connection() -> Callable[..., Connection]:
    return connection


@pytest.fixture(scope="session")
def new_ask() -> Callable[..., Ask]:
    return ask


@pytest.fixture(scope="session")
def summary() -> Callable[[list[Action]], list[str]]:
    """Actions as words, in order: `execute`, `cancel`, `result_ack`, `close`, `conclude LOST`."""

    def word(action: Action) -> str:
        match action:
            case Send(_, frame):
                return str(frame.WhichOneof("frame"))
            case Close():
                return "close"
            case Conclude(command):
                assert command.result is not None
                return "conclude " + command_pb2.Outcome.Name(command.result.outcome).removeprefix("OUTCOME_")

    return lambda actions: [word(action) for action in actions]
