"""Commands that another replica has sent here, and that are nobody's any more."""

from typing import Any

from broker.core.command import Command
from broker.core.connections import Connection
from broker.core.directory import Directory
from broker.core.ledger import Ledger
from broker.core.life import State
from openline.reasons import NO, Reason
from openline.v1.cluster_service_pb2 import ConnectedExecutor


def test_what_was_forwarded_here_and_comes_back_is_not_stored_as_refused(new_connection: Any, new_ask: Any) -> None:
    """It was written to an executor that had left; whoever forwarded it may have another place for it."""
    directory = Directory("r1")
    ledger = Ledger(reconnect_grace_s=10.0, directory=directory)
    connection: Connection = new_connection()
    ledger.connect(connection, in_flight=[], unacked=[], now=0.0)
    command: Command = ledger.submit(new_ask(origin="r2"), asked_at=connection.connected_at, now=1.0)[0]
    assert command.state is State.WRITTEN
    there = ConnectedExecutor(
        executor_id=connection.executor_id,
        instance_id=connection.instance_id,
        replica_id="r2",
        epoch=connection.epoch + 1,
    )
    directory.learn("prod", there, now=2.0)
    ledger.disconnect(connection, now=2.0)
    ledger.news("prod", now=2.0)
    assert command.state is State.FORWARDED
    ledger.relayed.unknown(command, 3.0)
    assert command.is_sought
    ledger.relayed.returned(command, 3.0)
    assert command.result is not None
    assert (command.result.error.reason, command.result.error.executed) == (Reason.CLUSTER_OFFLINE, NO)
    assert command.is_stored_elsewhere
