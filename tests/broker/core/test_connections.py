"""The connections of a replica, and where a command goes."""

from collections.abc import Callable

from broker.core.connections import Connection, Connections, Full, Here, Nowhere
from openline.v1.cluster_service_pb2 import ConnectedExecutor

New = Callable[..., Connection]


def test_the_least_loaded_connection_takes_the_command(new_connection: New) -> None:
    """Load is commands per place, not commands."""
    connections = Connections()
    small = new_connection(executor_id="small", max_concurrency=2)
    large = new_connection(executor_id="large", max_concurrency=8)
    for one in (small, large):
        connections.add(one)
    small.commands |= {"a"}
    large.commands |= {"b", "c"}
    assert connections.place("prod") == Here(large)
    large.commands |= {"d", "e", "f", "g", "h"}
    assert connections.place("prod") == Here(small)


def test_a_cluster_without_connections_is_nowhere(new_connection: New) -> None:
    """Another cluster's executor is no use."""
    connections = Connections()
    connections.add(new_connection("staging"))
    assert connections.place("prod") == Nowhere("prod")


def test_a_draining_connection_takes_no_commands(new_connection: New) -> None:
    connections = Connections()
    draining, other = new_connection(executor_id="a"), new_connection(executor_id="b")
    connections.add(draining)
    draining.draining = True
    assert connections.place("prod") == Nowhere("prod")
    connections.add(other)
    assert connections.place("prod") == Here(other)
    other.commands |= {str(n) for n in range(100)}
    assert connections.place("prod") == Full("prod")


def test_the_newest_connection_of_an_executor_wins(new_connection: New) -> None:
    """The old one's late end leaves its successor alone."""
    connections = Connections()
    old, new = new_connection(), new_connection()
    assert connections.add(old) is None
    assert connections.add(new) is old
    assert not connections.remove(old)
    assert connections.of_cluster("prod") == [new]
    assert connections.remove(new)
    assert not connections.remove(new)


def test_the_same_executor_id_in_two_clusters_is_two_executors(new_connection: New) -> None:
    connections = Connections()
    prod, staging = new_connection("prod"), new_connection("staging")
    connections.add(prod)
    assert connections.add(staging) is None
    assert len(connections) == 2
    assert connections.of_instance(prod.instance) is prod
    assert connections.of_instance(staging.instance) is staging


def test_an_instance_is_found_only_while_it_is_the_executors_newest(new_connection: New) -> None:
    connections = Connections()
    old, new = new_connection(instance_id="i-1"), new_connection(instance_id="i-2")
    connections.add(old)
    connections.add(new)
    assert connections.of_instance(old.instance) is None
    assert connections.of_instance(new.instance) is new


def test_the_instance_ids_tell_which_process_is_the_older_one(new_connection: New) -> None:
    """Of one executor, and if they are UUIDv7s; otherwise none is."""
    older, newer = (new_connection(instance_id=f"0000000{n}-0000-7000-8000-000000000000") for n in (1, 2))
    assert older.is_outdated_by(newer)
    assert not newer.is_outdated_by(older)
    assert not older.is_outdated_by(older)
    beside = new_connection(executor_id="exec-2", instance_id=newer.instance_id)
    assert not older.is_outdated_by(beside)
    assert not new_connection(instance_id="a").is_outdated_by(newer)
    assert not older.is_outdated_by(new_connection(instance_id="b"))


def test_a_process_counts_its_streams(new_connection: New) -> None:
    """So the later one is known, wherever it is. Of two processes, or where none counts, that says nothing."""
    older, newer = new_connection(attempt=1), new_connection(attempt=2)
    elsewhere = ConnectedExecutor(executor_id="exec-1", instance_id=older.instance_id, attempt=2)
    assert older.was_given_up_for(newer)
    assert older.was_given_up_for(elsewhere)
    assert not newer.was_given_up_for(older)
    assert not newer.was_given_up_for(elsewhere)
    assert not older.was_given_up_for(older)
    assert not older.was_given_up_for(new_connection(instance_id="i-2", attempt=2))
    assert not new_connection().was_given_up_for(newer)
    assert not newer.was_given_up_for(new_connection())


def test_nothing_is_left_of_a_cluster_without_connections(new_connection: New) -> None:
    connections = Connections()
    one = new_connection()
    connections.add(one)
    connections.remove(one)
    assert connections.clusters() == []
    assert len(connections) == 0
    assert repr(connections) == "<Connections []>"
    assert repr(one) == f"<Connection prod/exec-1 epoch={one.epoch} open n=0>"
