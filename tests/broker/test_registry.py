"""Which clusters there are."""

from dataclasses import replace
from typing import Any, cast

import pytest

from broker.core.book import Origin
from broker.core.credentials import Caller, Credentials
from broker.core.patterns import Patterns
from broker.core.tokens import Token
from broker.registry import MAX_VISIBLE, Registry
from openline.errors import OpenlineError
from openline.ids import is_cluster_id
from openline.reasons import NO, Reason

ALICE = Caller(owner="alice", scopes=("execute",))


def registry(*clusters: str) -> Registry:
    """Which clusters there are is known without the store."""
    tokens = [f"{cluster_id}:token" for cluster_id in clusters]
    credentials = Credentials(api_keys=[], executor_tokens=tokens)
    credentials.tokens.is_whole = True
    return Registry(credentials, cast(Any, None))


def unknown(cluster_id: str, *clusters: str) -> Any:
    with pytest.raises(OpenlineError) as refusal:
        registry(*clusters).require(cluster_id, ALICE)
    assert refusal.value.reason is Reason.CLUSTER_UNKNOWN
    assert refusal.value.error.executed == NO
    return refusal.value.error


@pytest.mark.parametrize(
    "cluster_id", ["", "-a", "a-", "A", "a_b", "a.b", "a b", "ä", "a\n", "a" * 101, "../x", "{a}", "*"]
)
def test_cluster_ids_that_are_none_are_unknown(cluster_id: str) -> None:
    """They would end up in keys of Redis and in logs. What is near to one is told all the same."""
    assert not is_cluster_id(cluster_id)
    assert unknown(cluster_id, "a").metadata["near"] == ("a" if cluster_id == "A" else "")


@pytest.mark.parametrize("cluster_id", ["a", "0", "a-b", "a--b", "a" * 100])
def test_cluster_ids_at_the_edge_can_be_registered(cluster_id: str) -> None:
    registry(cluster_id).require(cluster_id, ALICE)


def test_a_name_of_megabytes_costs_a_short_answer() -> None:
    """It is neither compared with the names there are nor sent back."""
    error = unknown("x" * 2_000_000, "prod")
    assert error.ByteSize() < 2000
    assert error.metadata["available"] == "prod"


def test_a_near_name_is_said() -> None:
    error = unknown("prd", "prod", "staging")
    assert error.metadata["near"] == "prod"
    assert "did you mean prod?" in error.message


def test_a_thousand_clusters_are_not_all_listed() -> None:
    """The answer travels in a status, which has room for a few kilobytes."""
    error = unknown("nowhere", *(f"cluster-{n:04}" for n in range(1000)))
    assert len(error.metadata["available"].split(",")) == 100


def test_a_caller_is_told_of_what_it_sees() -> None:
    """Of what there is, and what is near; in any other respect a hidden cluster is one that there is not."""
    clusters = registry("prod-1", "prod-2", "prox-7")
    some = Caller(owner="alice", scopes=(), clusters=Patterns.of(["prod-*"]))
    assert clusters.visible(some) == ["prod-1", "prod-2"]
    assert clusters.visible(ALICE) == ["prod-1", "prod-2", "prox-7"]
    clusters.require("prod-1", some)
    clusters.require("prox-7", ALICE)
    said = []
    for name in ("prox-7", "prox-8"):
        with pytest.raises(OpenlineError) as refusal:
            clusters.require(name, some)
        said.append(refusal.value.error.SerializeToString(deterministic=True).replace(name.encode(), b"NAME"))
    assert said[0] == said[1]
    assert refusal.value.metadata["available"] == "prod-1,prod-2"
    assert "prox-7" not in refusal.value.metadata["near"]


def test_what_a_caller_sees_is_kept_and_changed_where_clusters_come_or_go() -> None:
    """How long it takes must not tell of what it does not see; and there is a bound on what is kept."""
    credentials = Credentials(api_keys=[], executor_tokens=["prod:token"])
    clusters = Registry(credentials, cast(Any, None))
    assert clusters.visible(ALICE) is clusters.visible(ALICE)
    token = Token(cluster_id="staging", digest=b"x" * 32, origin=Origin.MADE)
    credentials.tokens.learn([token], now=0.0)
    assert clusters.visible(ALICE) == ["prod", "staging"]
    credentials.tokens.learn([replace(token, revoked_at=1.0)], now=1.0)
    assert clusters.visible(ALICE) == ["prod"]
    of_alice = clusters.visible(ALICE)
    some = Caller(owner="alice", scopes=(), clusters=Patterns.of(["prod-*"]))
    assert list(clusters.visible(some)) == []
    credentials.tokens.learn(
        [Token(cluster_id=name, digest=b"x" * 32, origin=Origin.MADE) for name in ("prod-b", "dev", "prod-a")], now=2.0
    )
    assert clusters.visible(some) == ["prod-a", "prod-b"]
    assert clusters.visible(ALICE) == ["dev", "prod", "prod-a", "prod-b"]
    assert clusters.visible(ALICE) is of_alice
    for number in range(MAX_VISIBLE):
        clusters.visible(Caller(owner="alice", scopes=(), clusters=Patterns.of([f"c-{number}"])))
    assert len(clusters._visible) == MAX_VISIBLE
    assert clusters.visible(ALICE) is not of_alice


def test_while_redis_has_not_told_no_cluster_is_unknown() -> None:
    """It may have a token there; the caller is to ask again."""
    credentials = Credentials(api_keys=[], executor_tokens=["prod:token"])
    clusters = Registry(credentials, cast(Any, None))
    clusters.require("prod", ALICE)
    with pytest.raises(OpenlineError) as refusal:
        clusters.require("staging", ALICE)
    assert refusal.value.reason is Reason.STORE_UNAVAILABLE
