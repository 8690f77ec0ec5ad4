"""What could not be done: said as an error, with the reason, whether it was run, and what to do next."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from gateway.mcp.advising import NEXT
from openline.ids import new_id
from openline.policy.denial import Rule
from openline.reasons import Reason

KEY, READER, EXECUTER = "the-key-of-mia", "the-key-of-a-reader", "the-key-of-an-executer"


async def test_no_such_cluster(mcp: Any, connect: Any, call: Any, mode: str) -> None:
    """The names that are near, or else all that there are."""
    async with connect(mcp.urls[0], mode) as client:
        near = await call(client, "kubectl", cluster="reel", command="get pods")
        assert near.is_error
        assert near.text == (
            "CLUSTER_UNKNOWN: no cluster 'reel'; did you mean real? list_clusters shows which clusters there are."
        )
        assert near.fields == {
            "reason": "CLUSTER_UNKNOWN",
            "message": "no cluster 'reel'; did you mean real?",
            "executed": "no",
            "near": ["real"],
            "next_step": "list_clusters shows which clusters there are.",
        }
        for cluster in ("zzz", "No Cluster Can Be Called This"):
            far = await call(client, "kubectl", cluster=cluster, command="get pods")
            assert "There are: away, real, script." in far.text
            assert far.fields["available"] == ["away", "real", "script"]


async def test_a_cluster_that_is_away(mcp: Any, connect: Any, call: Any, mode: str) -> None:
    async with connect(mcp.urls[0], mode) as client:
        answer = await call(client, "kubectl", cluster="away", command="get pods")
        assert answer.is_error
        assert answer.text.startswith("CLUSTER_OFFLINE: ")
        assert "Nothing was run. Try again later" in answer.text
        assert answer.fields["executed"] == "no"
        assert answer.fields["retry_after_s"] >= 1


async def test_what_the_policy_denies(mcp: Any, connect: Any, call: Any, mode: str) -> None:
    """The rule, and what is allowed instead."""
    async with connect(mcp.urls[0], mode) as client:
        answer = await call(client, "kubectl", cluster="real", command="delete pod web")
        assert answer.is_error
        assert answer.text.startswith("POLICY_DENIED: the verb delete is not allowed; nearest to it: get and describe")
        assert " Allowed: " in answer.text
        assert (answer.fields["rule"], answer.fields["executed"]) == ("verb", "no")
        secret = await call(client, "kubectl", cluster="real", command="get secrets -A")
        assert (secret.fields["reason"], secret.fields["rule"]) == ("POLICY_DENIED", "resource")
        for flag in ("get pods -w", "logs web -f"):
            # Of one call; a model has no other. With progress it may.
            follows = await call(client, "kubectl", cluster="real", command=flag)
            assert follows.fields["rule"] == "streaming"
            assert follows.text.endswith(NEXT[Rule.STREAMING])
        typo = await call(client, "kubectl", cluster="real", command="get pods --all-namespace")
        assert typo.text.endswith("Ask again with --all-namespaces.")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "cluster: Field required"),
        ({"cluster": "real"}, "command: give either command or argv"),
        ({"cluster": "real", "command": "get pods", "argv": ["get"]}, "command: give either command or argv"),
        ({"cluster": "real", "command": "kubectl"}, "command: there is no command in it"),
        ({"cluster": "real", "argv": ["kubectl"]}, "argv: there is no command in it"),
        ({"cluster": "real", "argv": ["kubectl get pods"]}, "argv: is one word each"),
        ({"cluster": "real", "argv": ["kubectl", "get pods"]}, "argv: is one word each"),
        ({"cluster": "real", "command": "get pods | grep web"}, "command: there is no shell for '|'"),
        ({"cluster": "real", "command": "get 'pods"}, "command: cannot be split into words"),
        ({"cluster": "real", "command": "get pods", "name": "web"}, "name: there is no such argument; there are"),
        ({"cluster": "real", "command": "get pods -n a", "namespace": "b"}, "namespace: different namespaces"),
        ({"cluster": "real", "command": "get pods", "grep": "("}, "grep: not a pattern"),
        ({"cluster": "real", "command": "get pods", "jsonpath": "$["}, "jsonpath: "),
        ({"cluster": "real", "command": "get pods", "timeout_seconds": 0}, "timeout_seconds: Input should be"),
        ({"cluster": "real", "command": "get\0pods"}, "command: must not contain NUL"),
        ({"cluster": ["real"], "command": "get pods"}, "cluster: Input should be a valid string"),
    ],
)
async def test_arguments_that_make_no_sense(
    mcp: Any, connect: Any, call: Any, arguments: dict[str, Any], says: str
) -> None:
    """An answer of the tool and no error of the protocol, so that the model sees it: it can do better."""
    async with connect(mcp.urls[0], "modern") as client:
        answer = await call(client, "kubectl", **arguments)
        assert answer.is_error
        assert answer.text.startswith(f"INVALID_COMMAND: {says}")
        assert answer.text.endswith("Nothing was run. Correct the arguments.")
        assert (answer.fields["reason"], answer.fields["executed"]) == ("INVALID_COMMAND", "no")


@pytest.mark.parametrize(
    "arguments",
    [{"command": "get pods", "x" * 100_000: 1}, {"command": f"get pods -n {'a' * 16_000} -n {'b' * 16_000}"}],
    ids=["name", "namespaces"],
)
async def test_what_is_wrong_is_said_in_short(mcp: Any, connect: Any, call: Any, arguments: dict[str, Any]) -> None:
    """However much of it there is."""
    async with connect(mcp.urls[0], "modern") as client:
        answer = await call(client, "kubectl", cluster="real", **arguments)
        assert answer.fields["reason"] == "INVALID_COMMAND"
        assert len(answer.text) < 1000


async def test_what_is_null_or_empty_is_not_given(mcp: Any, connect: Any, call: Any) -> None:
    """Models fill in every argument they see."""
    async with connect(mcp.urls[0], "modern") as client:
        answer = await call(
            client, "kubectl", cluster="script", command="get pods web", argv=[], namespace="", tail=None, grep=""
        )  # fmt: skip
        assert answer.text == "web\n"


@pytest.mark.parametrize(
    ("tool", "arguments", "reason"),
    [
        ("get_result", {}, "INVALID_COMMAND"),
        ("get_result", {"command_id": "web"}, "COMMAND_UNKNOWN"),
        ("get_result", {"command_id": new_id()}, "COMMAND_UNKNOWN"),
        ("get_result", {"cursor": "web"}, "INVALID_COMMAND"),
        ("cancel", {}, "INVALID_COMMAND"),
        ("cancel", {"command_id": "web"}, "COMMAND_UNKNOWN"),
        ("kubectl_fanout", {"command": "get pods"}, "INVALID_COMMAND"),
        ("kubectl_fanout", {"command": "get pods", "selector": "(("}, "INVALID_COMMAND"),
        ("list_clusters", {"selector": "(("}, "INVALID_COMMAND"),
    ],
)
async def test_the_other_tools(
    mcp: Any, connect: Any, call: Any, tool: str, arguments: dict[str, Any], reason: str
) -> None:
    async with connect(mcp.urls[0], "modern") as client:
        answer = await call(client, tool, **arguments)
        assert answer.is_error
        assert answer.fields["reason"] == reason
        assert NEXT[Reason(reason)] in answer.text
        # It would say the same again.
        assert reason != "COMMAND_UNKNOWN" or "whether it ran" not in answer.text


async def test_a_cursor_that_somebody_changed(mcp: Any, connect: Any, call: Any) -> None:
    async with connect(mcp.urls[0], "modern") as client:
        answer = await call(client, "kubectl", cluster="script", command="get pods x -n floods")
        cursor = answer.fields["next_cursor"]
        mixed = await call(client, "get_result", cursor=cursor, grep="1")
        assert "a cursor brings its own shaping" in mixed.text
        other = await call(client, "kubectl", cluster="script", command="get pods x")
        wrong = await call(client, "get_result", cursor=cursor, command_id=other.fields["command_id"])
        assert "the cursor is for another command" in wrong.text


async def test_a_scope_that_is_missing(mcp: Any, connect: Any, call: Any, mode: str) -> None:
    async with connect(mcp.urls[0], mode, key=READER) as client:
        assert not (await call(client, "list_clusters")).is_error
        answer = await call(client, "kubectl", cluster="real", command="get pods")
        assert answer.text.startswith("SCOPE_MISSING: the key lacks the scope 'execute'")
    async with connect(mcp.urls[0], mode, key=EXECUTER) as client:
        assert not (await call(client, "kubectl", cluster="script", command="get pods web")).is_error


async def test_a_key_that_was_revoked(mcp: Any, connect: Any, call: Any, api: httpx.AsyncClient) -> None:
    """It is checked on every call: what was good a moment ago is refused."""
    made = (await api.post("/admin/keys", json={"owner": "tim", "scopes": ["execute", "read"]})).json()
    async with connect(mcp.urls[0], "modern", key=made["key"]) as client:
        assert not (await call(client, "kubectl", cluster="script", command="get pods web")).is_error
        (await api.delete(f"/admin/keys/{made['key_id']}")).raise_for_status()
        for _ in range(200):  # all replicas know within a second
            answer = await call(client, "kubectl", cluster="script", command="get pods web")
            if answer.is_error:
                break
            await asyncio.sleep(0.05)
        assert answer.fields["reason"] == "UNAUTHENTICATED"


async def test_a_key_that_is_revoked_meanwhile(
    mcp: Any, connect: Any, call: Any, api: httpx.AsyncClient, eventually: Any, mode: str
) -> None:
    """The command had begun: that nothing was run is not said of it."""
    name = f"revoked-{mode}"
    made = (await api.post("/admin/keys", json={"owner": "tom", "scopes": ["execute", "read"]})).json()

    async def hear(_progress: float, _total: float | None, _message: str | None) -> None:
        """Whoever asks for progress has the output as it comes, for which the key is looked at again."""

    async with connect(mcp.urls[0], mode, key=made["key"]) as client:
        command = {"command": f"get pods {name} -n sleeps", "timeout_seconds": 40}
        asked = asyncio.create_task(call(client, "kubectl", cluster="script", progress=hear, **command))
        await eventually(lambda: mcp.marks(name)[:1] == ["begun"])
        (await api.delete(f"/admin/keys/{made['key_id']}")).raise_for_status()
        answer = await asked
        assert (answer.is_error, answer.fields["reason"]) == (True, "UNAUTHENTICATED")
        assert answer.fields["executed"] == "unknown"
        assert "Nothing was run" not in answer.text
        assert answer.text.count("Only the user can help") == 1
        (await api.delete(f"/v1/commands/{answer.fields['command_id']}")).raise_for_status()


async def test_a_quota_that_is_used_up(mcp: Any, connect: Any, call: Any, api: httpx.AsyncClient) -> None:
    """When to ask again."""
    body = {"owner": "ned", "scopes": ["execute"], "quota": {"commands_per_minute": 1}}
    made = (await api.post("/admin/keys", json=body)).json()
    async with connect(mcp.urls[0], "modern", key=made["key"]) as client:
        answers = [await call(client, "kubectl", cluster="script", command="get pods web") for _ in range(3)]
        assert answers[-1].is_error
        assert answers[-1].fields["reason"] == "QUOTA_EXCEEDED"
        assert f"Ask again after {answers[-1].fields['retry_after_s']} s." in answers[-1].text


async def test_no_broker(run_program: Any, connect: Any, call: Any, mode: str) -> None:
    """The gateway is there and nothing else."""
    with run_program("openline-gateway", "--listen", "127.0.0.1:0", "--broker", "127.0.0.1:1") as gateway:
        url = f"http://{gateway.until('gateway.listening')['address']}"
        async with connect(url, mode, X_Request_Timeout="1") as client:
            answer = await call(client, "kubectl", cluster="real", command="get pods", timeout_seconds=1)
            assert answer.is_error
            assert answer.fields["reason"] == "BROKER_UNAVAILABLE"
            assert answer.fields["retry_after_s"] >= 1
            assert "Try again in a moment" in answer.text


def test_every_reason_has_advice() -> None:
    """Of those that a tool can meet."""
    admin = {"TOKEN_EXISTS", "TOKEN_UNKNOWN", "KEY_EXISTS", "KEY_UNKNOWN"}
    ours = {"IDEMPOTENCY_CONFLICT", "PROTOCOL_VIOLATION", "VERSION_UNSUPPORTED", "NOT_BUILT", "INTERNAL"}
    assert {reason.value for reason in Reason} - {reason.value for reason in NEXT} == admin | ours
    assert json.dumps({reason: text for reason, text in NEXT.items() if not text.endswith(".")}) == "{}"
