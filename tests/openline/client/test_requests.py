"""What callers say, as brokers take it."""

import math
from typing import Any

import pytest

from openline.client import InvalidCommand
from openline.client.requests import Access, CommandOptions, Options, execute_request, for_each_cluster, patience_s
from openline.ids import is_command_id

TLS: dict[str, Any] = {"ca": None, "cert": None, "key": None}


def test_words_are_taken_as_they_are() -> None:
    """With an id that is new each time, and the client's own timeout."""
    one = execute_request("prod", ["get", "pods", "-l", "a b"], {}, timeout_s=7)
    other = execute_request("prod", ["get"], {}, timeout_s=7)
    assert (one.cluster_id, list(one.argv), one.timeout_s) == ("prod", ["get", "pods", "-l", "a b"], 7)
    assert is_command_id(one.command_id)
    assert one.command_id != other.command_id


def test_a_command_is_split_as_the_gateway_splits_it() -> None:
    """Once, and without `kubectl`."""
    request = execute_request("prod", (), {"command": "kubectl get pods -l 'a in (b, c)'"}, timeout_s=7)
    assert list(request.argv) == ["get", "pods", "-l", "a in (b, c)"]


def test_every_option_travels() -> None:
    """Under the contract's names."""

    class Session:
        session_id = "s1"

    options = CommandOptions(
        timeout_s=3,
        wait_for_cluster_s=4,
        session=Session(),
        idempotency_key="once",
        correlation_id="talk",
        cancel_on_disconnect=True,
        max_output_bytes=99,
        command_id="mine",
        traceparent="t",
    )
    request = execute_request("prod", ["get"], options, timeout_s=7)
    assert (request.timeout_s, request.wait_for_cluster_s, request.session_id) == (3, 4, "s1")
    assert (request.idempotency_key, request.correlation_id, request.command_id) == ("once", "talk", "mine")
    assert (request.cancel_on_disconnect, request.output_limits.max_bytes, request.traceparent) == (True, 99, "t")
    assert execute_request("prod", ["get"], {"session": "s2"}, timeout_s=7).session_id == "s2"
    assert 7 < patience_s(request) < 9


@pytest.mark.parametrize(
    ("words", "options", "field"),
    [
        ((), {}, "argv"),
        (("get",), {"command": "get"}, "argv"),
        ((), {"command": "get 'pods"}, "command"),
        ((), {"command": "kubectl"}, "command"),
        (["x"] * 65, {}, "argv"),
        (("get",), {"timeout_s": -1}, "timeout_s"),
        (("get",), {"timeout_s": math.nan}, "timeout_s"),
        (("get",), {"timeout_s": 3601}, "timeout_s"),
        (("get",), {"wait_for_cluster_s": 301}, "wait_for_cluster_s"),
        (("get",), {"max_output_bytes": -1}, "max_output_bytes"),
    ],
)
def test_what_cannot_be_meant_is_an_invalid_command(words: Any, options: Any, field: str) -> None:
    """Before anything is sent, and as a broker would say it."""
    with pytest.raises(InvalidCommand) as caught:
        execute_request("prod", words, options, timeout_s=7)
    assert [name for name, _ in caught.value.violations] == [field]
    assert caught.value.executed == "no"


def test_each_cluster_of_many_has_a_key_of_its_own() -> None:
    """Since one key stands for one command. The caller's options stay as they are."""
    options = Options(idempotency_key="once", timeout_s=3)
    assert for_each_cluster(options, "prod") == {"idempotency_key": "once/prod", "timeout_s": 3}
    assert options["idempotency_key"] == "once"
    assert for_each_cluster({}, "prod") == {}


def test_brokers_are_a_text_or_a_list() -> None:
    """Each once, in the order given."""
    for brokers in ("a:1, b:2,a:1", ["a:1", "b:2"]):
        assert Access.of(brokers, "k", **TLS, timeout_s=5).addresses == ("a:1", "b:2")


@pytest.mark.parametrize(
    "wrong",
    [
        {"brokers": ""},
        {"brokers": []},
        {"brokers": "a"},
        {"api_key": ""},
        {"api_key": "a\nb"},
        {"api_key": "schlüssel"},
        {"timeout_s": 0},
        {"timeout_s": math.nan},
        {"cert": "c.pem"},
    ],
)
def test_access_that_cannot_be_meant_is_a_value_error(wrong: dict[str, Any]) -> None:
    """When the client is made, not when it is first used."""
    with pytest.raises(ValueError, match=r"."):
        Access.of(**{"brokers": "a:1", "api_key": "k", **TLS, "timeout_s": 5, **wrong})
