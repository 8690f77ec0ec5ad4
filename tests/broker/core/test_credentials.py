"""Keys and tokens."""

from dataclasses import replace

import pytest

from broker.core.book import Origin
from broker.core.credentials import PEER, SCOPES, Caller, Credentials, Key, digest
from broker.core.patterns import EVERY, Patterns
from broker.core.quotas import Quota
from openline.errors import OpenlineError
from openline.reasons import Reason


@pytest.fixture
def credentials() -> Credentials:
    given = Credentials(
        api_keys=["alice:key-a:execute+read", "bob:key:with:colons:admin"],
        executor_tokens=["prod:tok-1", "prod:tok-2", "staging:tok:3"],
    )
    given.tokens.is_whole = given.keys.is_whole = True
    return given


def test_a_key_says_who_asks_and_what_they_may(credentials: Credentials) -> None:
    """A key may contain colons; owner and scopes may not."""
    assert credentials.caller("key-a", clock_s=0.0) == Caller(owner="alice", scopes=("execute", "read"))
    assert credentials.caller("key:with:colons", clock_s=0.0) == Caller(owner="bob", scopes=("admin",))


@pytest.mark.parametrize("key", [None, "", "key-b", "key-a ", "KEY-A", "tok-1"])
def test_any_other_key_is_nobodys(credentials: Credentials, key: str | None) -> None:
    with pytest.raises(OpenlineError) as refusal:
        credentials.caller(key, clock_s=0.0)
    assert refusal.value.reason is Reason.UNAUTHENTICATED


def test_a_scope_that_is_missing_is_named(credentials: Credentials) -> None:
    caller = credentials.caller("key-a", clock_s=0.0)
    caller.require("read")
    with pytest.raises(OpenlineError) as refusal:
        caller.require("admin")
    assert refusal.value.reason is Reason.SCOPE_MISSING
    assert refusal.value.error.metadata["scope"] == "admin"


def test_another_scope_may_do_as_well(credentials: Credentials) -> None:
    """The first one is the one that is named as missing."""
    credentials.caller("key-a", clock_s=0.0).require("read", or_scope="admin")
    credentials.caller("key:with:colons", clock_s=0.0).require("read", or_scope="admin")
    with pytest.raises(OpenlineError) as refusal:
        credentials.caller("key:with:colons", clock_s=0.0).require("read", or_scope="audit")
    assert refusal.value.error.metadata["scope"] == "read"


def test_a_cluster_may_have_several_tokens(credentials: Credentials) -> None:
    """So that a token can be replaced without an outage."""
    credentials.check_executor("prod", "tok-1", clock_s=0.0)
    credentials.check_executor("prod", "tok-2", clock_s=0.0)
    credentials.check_executor("staging", "tok:3", clock_s=0.0)
    assert credentials.clusters == {"prod", "staging"}


@pytest.mark.parametrize(
    ("cluster_id", "token"),
    [("prod", "tok:3"), ("staging", "tok-1"), ("prod", None), ("prod", ""), ("prod", "key-a"), ("unknown", "tok-1")],
)
def test_a_token_is_good_for_its_own_cluster_only(credentials: Credentials, cluster_id: str, token: str | None) -> None:
    with pytest.raises(OpenlineError) as refusal:
        credentials.check_executor(cluster_id, token, clock_s=0.0)
    assert refusal.value.reason is Reason.UNAUTHENTICATED


@pytest.mark.parametrize(
    "entry",
    ["hunter2", "hunter2:", ":hunter2:read", "alice:hunter2", "alice:hunter2:", "alice:hunter2:root", "alice::read"],
)
def test_a_bad_entry_is_named_and_never_shown(entry: str) -> None:
    """The line lands on a terminal and in logs: it says which flag and which entry, not what was in it."""
    with pytest.raises(ValueError, match=r"--api-keys.*entry 2") as mistake:
        Credentials(api_keys=["alice:key:read", entry], executor_tokens=[])
    assert "hunter2" not in str(mistake.value)


@pytest.mark.parametrize("entry", ["hunter2", "Hunter2:x", ":hunter2", "prod:", "hunter2_:x"])
def test_a_bad_token_entry_is_named_and_never_shown(entry: str) -> None:
    with pytest.raises(ValueError, match=r"--executor-tokens.*entry 1") as mistake:
        Credentials(api_keys=[], executor_tokens=[entry])
    assert "hunter2" not in str(mistake.value).lower()


def test_one_key_cannot_be_two_owners() -> None:
    """Which of the two would be meant?"""
    with pytest.raises(ValueError, match=r"--api-keys.*entry 2.*key"):
        Credentials(api_keys=["alice:same:read", "bob:same:execute"], executor_tokens=[])


def test_neither_secrets_nor_digests_are_shown(credentials: Credentials) -> None:
    text = repr(credentials)
    assert "key-a" not in text
    assert "tok-1" not in text
    assert text == "<Credentials api_keys=2 clusters=['prod', 'staging']>"


@pytest.mark.parametrize(
    ("rights", "patterns"),
    [("read", ["*"]), ("read@prod-*", ["prod-*"]), ("read+admin@staging|prod-*", ["prod-*", "staging"])],
)
def test_a_key_may_see_some_clusters_only(rights: str, patterns: list[str]) -> None:
    """Those of its patterns; without any, all."""
    caller = Credentials(api_keys=[f"alice:a:key@home:{rights}"], executor_tokens=[]).caller("a:key@home", clock_s=0.0)
    assert caller.clusters == Patterns.of(patterns)
    assert caller.sees("prod-1")
    assert caller.sees("dev") is (patterns == ["*"])


@pytest.mark.parametrize("patterns", ["", "|", "prod|", "Prod", "hunter2_", "prod*,", "x" * 101, "a@b"])
def test_patterns_that_are_none_do_not_stand_for_every_cluster(patterns: str) -> None:
    """A slip of the pen must not let a key see everything; and nothing of the entry is shown."""
    with pytest.raises(ValueError, match=r"--api-keys.*PATTERN.*entry 2") as mistake:
        Credentials(api_keys=["alice:key:read", f"bob:hunter2:read@{patterns}"], executor_tokens=[])
    assert "hunter2" not in str(mistake.value)


def test_a_key_expires_by_the_clock(credentials: Credentials) -> None:
    """At that very moment, whether somebody has looked for keys that expire or not."""
    caller = Caller(owner="dave", scopes=("read",), key_id="id", digest=digest("key-d"))
    key = Key(digest=caller.digest, origin=Origin.MADE, expires_at=100.0, caller=caller)
    credentials.keys.learn([key], now=0.0)
    assert credentials.caller("key-d", clock_s=99.9) == caller
    with pytest.raises(OpenlineError) as refusal:
        credentials.caller("key-d", clock_s=100.0)
    assert refusal.value.reason is Reason.UNAUTHENTICATED


def test_a_given_key_can_be_revoked(credentials: Credentials) -> None:
    """What is learned only adds up: the flag does not bring it back."""
    [alice] = [key for key in credentials.keys.all_good if key.caller.owner == "alice"]
    assert credentials.keys.learn([replace(alice, revoked_at=1.0)], now=1.0) == [alice]
    with pytest.raises(OpenlineError) as refusal:
        credentials.caller("key-a", clock_s=1.0)
    assert refusal.value.reason is Reason.UNAUTHENTICATED
    assert credentials.caller("key:with:colons", clock_s=1.0).owner == "bob"


def test_a_key_that_is_not_known_yet_is_not_called_wrong(credentials: Credentials) -> None:
    """While Redis has not told, it may be there: the caller is to come back soon. None at all is wrong at once."""
    credentials.keys.is_whole = False
    assert credentials.caller("key-a", clock_s=0.0).owner == "alice"
    with pytest.raises(OpenlineError) as refusal:
        credentials.caller("stored", clock_s=0.0)
    assert (refusal.value.reason, refusal.value.retry_after_s > 0) == (Reason.STORE_UNAVAILABLE, True)
    with pytest.raises(OpenlineError) as refusal:
        credentials.caller(None, clock_s=0.0)
    assert refusal.value.reason is Reason.UNAUTHENTICATED


def test_who_sees_less_covers_less() -> None:
    """What an admin may give to others, and what takes a key that sees everything."""
    some = Caller(owner="root", scopes=("admin",), clusters=Patterns.of(["prod-*"]))
    some.require_cover(Patterns.of(["prod-eu-*", "prod-1"]))
    for beyond in (EVERY, Patterns.of(["prod-1", "staging"])):
        with pytest.raises(OpenlineError) as refusal:
            some.require_cover(beyond)
        assert (refusal.value.reason, refusal.value.metadata["clusters"]) == (Reason.SCOPE_MISSING, "prod-*")
    PEER.require_cover(EVERY)


def test_commands_are_counted_for_the_owner_or_for_the_key() -> None:
    """A key with numbers of its own is apart, whoever's it is."""
    assert Caller(owner="alice", scopes=(), key_id="id").counted_as == "alice"
    own = Caller(owner="alice", scopes=(), key_id="id", quota=Quota(commands=1))
    assert own.counted_as == "key:id"


def test_nothing_of_a_key_is_shown(credentials: Credentials) -> None:
    [alice] = [key for key in credentials.keys.all_good if key.caller.owner == "alice"]
    assert repr(alice) == "<Key given of alice>"
    assert repr(alice.digest) not in repr(alice.caller)
    assert repr(credentials.keys) == "<Book good=2 stored=0 whole=True>"


def test_every_scope_can_be_given() -> None:
    given = Credentials(api_keys=[f"root:k:{'+'.join(sorted(SCOPES))}"], executor_tokens=[]).caller("k", clock_s=0.0)
    for scope in SCOPES:
        given.require(scope)


def test_a_token_that_is_not_known_yet_is_not_called_wrong(credentials: Credentials) -> None:
    """While Redis has not told, it may be there: the executor is to come back soon. Those that were given are good."""
    credentials.tokens.is_whole = False
    credentials.check_executor("prod", "tok-1", clock_s=0.0)
    with pytest.raises(OpenlineError) as refusal:
        credentials.check_executor("prod", "stored", clock_s=0.0)
    assert refusal.value.reason is Reason.STORE_UNAVAILABLE
    assert refusal.value.retry_after_s > 0
