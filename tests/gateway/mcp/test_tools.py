"""Every tool, with the SDK's client of today and of before, against the real kubectl."""

import asyncio
import itertools
import time
from typing import Any

import httpx
import pytest

from gateway.mcp.advising import LABELS, NEXT
from gateway.mcp.arguments import MAX_PAGE_CHARS
from openline.reasons import Reason

WORD = "so far"
WRITTEN = "running, 9 bytes so far"
# Of the script's output.
ALL_CHARS = {"zeros": 300_000, "faces": 100_000}


async def test_what_the_client_is_told_of_the_server(mcp: Any, connect: Any, mode: str) -> None:
    """The client of today asks in the newest version of the protocol, the one of before agrees on one it knows."""
    async with connect(mcp.urls[0], mode) as client:
        assert client.protocol_version == {"modern": "2026-07-28", "legacy": "2025-11-25"}[mode]
        assert client.server_info.name == "openline"
        assert "list_clusters" in client.instructions
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == ["kubectl", "list_clusters", "kubectl_fanout", "get_result", "cancel"]
        assert [tool.name for tool in tools if tool.annotations.read_only_hint] == [
            "kubectl", "list_clusters", "kubectl_fanout", "get_result",
        ]  # fmt: skip
        assert all(tool.annotations.idempotent_hint for tool in tools)
        assert all(tool.output_schema for tool in tools)


async def test_a_command_of_the_real_kubectl(mcp: Any, connect: Any, call: Any, mode: str) -> None:
    """What it prints is the text, and nothing is added where there is nothing to say."""
    async with connect(mcp.urls[0], mode) as client:
        answer = await call(client, "kubectl", cluster="real", command="kubectl get deployments -o name -n default")
        assert answer.text.startswith("deployment.apps/")
        assert "[" not in answer.text
        assert (answer.is_error, answer.fields["exit_code"], answer.fields["state"]) == (False, 0, "done")
        assert answer.fields["stdout"] == answer.text
        same = await call(
            client, "kubectl", cluster="real", argv=["get", "deployments", "-o", "name"], namespace="default"
        )
        assert same.fields["stdout"] == answer.fields["stdout"]


async def test_output_is_shaped(mcp: Any, connect: Any, call: Any) -> None:
    """By each of the ways that REST has, and it is said what is not there."""
    async with connect(mcp.urls[0], "modern") as client:
        names = await call(
            client, "kubectl", cluster="real", command="get pods -A -o json", jsonpath="{.items[*].metadata.name}"
        )
        assert '"toolbox"' in names.text.split("\n")
        found = await call(client, "kubectl", cluster="real", command="get ns", grep="^kube-")
        assert found.text.count("\nkube-") == 2
        assert found.text.startswith("kube-node-lease")
        assert "[grep: 3 of 14 lines match]" in found.text
        last = await call(client, "kubectl", cluster="script", command="get pods x -n floods", tail=1)
        assert last.text == "20000\n"


async def test_more_of_it_by_cursor(mcp: Any, connect: Any, call: Any, mode: str) -> None:
    """A page is 20,000 characters where nothing else is asked for; the pages are the whole output, once."""
    async with connect(mcp.urls[0], mode) as client:
        answer = await call(client, "kubectl", cluster="script", command="get pods x -n floods")
        text = answer.fields["stdout"]
        assert 10_000 < len(text) <= 20_000
        assert "characters shown" in answer.text
        while (cursor := answer.fields.get("next_cursor")) is not None:
            assert cursor in answer.text
            answer = await call(client, "get_result", cursor=cursor)
            text += answer.fields["stdout"]
        assert text == "".join(f"{number}\n" for number in range(1, 20_001))


@pytest.mark.parametrize(("what", "char"), [("zeros", "\0"), ("faces", "\U0001f600")])
async def test_a_page_that_every_client_takes(
    mcp: Any, connect: Any, call: Any, api: httpx.AsyncClient, mode: str, what: str, char: str
) -> None:
    """However much is asked for, in characters of which each is up to twelve bytes of JSON, in text and in fields."""
    command = f"get pods {what}-{mode} -n {what}"

    async def hear(_progress: float, _total: float | None, _message: str | None) -> None:
        """Then the answer is an event, also in the newest version of the protocol."""

    async with connect(mcp.urls[0], mode) as client:
        page = await call(client, "kubectl", cluster="script", command=command, max_output_chars=600_000, progress=hear)
        assert page.fields["stdout"] == char * MAX_PAGE_CHARS
        assert "40000 characters shown" in page.text
        more = await call(client, "get_result", cursor=page.fields["next_cursor"], progress=hear)
        assert more.fields["stdout"] == char * MAX_PAGE_CHARS
        asked = {"command_id": page.fields["command_id"], "max_output_chars": 600_000}
        again = await call(client, "get_result", progress=hear, **asked)
        assert again.fields["stdout"] == char * MAX_PAGE_CHARS
        # A cursor of REST, where clients take more.
        seen = (await api.get(f"/v1/commands/{asked['command_id']}", params={"max_output_chars": 90_000})).json()
        rest = await call(client, "get_result", cursor=seen["shaping"]["next_cursor"], progress=hear)
        assert rest.fields["stdout"] == char * min(MAX_PAGE_CHARS, ALL_CHARS[what] - 90_000)
        many = await call(
            client, "kubectl_fanout", clusters=["script"], command=command, max_output_chars=900_000, progress=hear
        )
        [group] = many.fields["groups"]
        assert group["stdout"] == char * (MAX_PAGE_CHARS // 2)
        assert group["next_cursor"] in many.text


async def test_a_command_that_fails(mcp: Any, connect: Any, call: Any, mode: str) -> None:
    """It ran: there is an exit code, and everything that it wrote."""
    async with connect(mcp.urls[0], mode) as client:
        answer = await call(client, "kubectl", cluster="script", command="get pods x -n fails")
        assert answer.is_error
        assert answer.text == "out\nit failed\n[exit code 3]"
        assert (answer.fields["exit_code"], answer.fields["stderr"]) == (3, "it failed\n")
        real = await call(client, "kubectl", cluster="real", command="get pod nope -n shop")
        assert 'pods "nope" not found' in real.text


async def test_values_that_are_masked(mcp: Any, connect: Any, call: Any) -> None:
    async with connect(mcp.urls[0], "modern") as client:
        answer = await call(client, "kubectl", cluster="script", command="get pods x -n hides")
        assert "hunter2" not in answer.text
        assert "[secret values that are masked: 1]" in answer.text
        assert answer.fields["masked_values"] == 1


async def test_clusters(mcp: Any, connect: Any, call: Any, mode: str) -> None:
    """All that the key sees, one a line; with a selector those whose labels fit."""
    async with connect(mcp.urls[0], mode) as client:
        answer = await call(client, "list_clusters")
        away, real, script = answer.text.split("\n")
        assert away.startswith("away not connected")
        assert real.startswith("real connected v1.")
        assert real.endswith("env=prod,region=eu")
        assert script.startswith("script connected")
        assert [each["cluster"] for each in answer.fields["clusters"]] == ["away", "real", "script"]
        assert answer.fields["clusters"][1]["labels"] == {"env": "prod", "region": "eu"}
        chosen = await call(client, "list_clusters", selector="env in (prod)")
        assert [each["cluster"] for each in chosen.fields["clusters"]] == ["real"]
        later = await call(client, "list_clusters", after="real")
        assert [each["cluster"] for each in later.fields["clusters"]] == ["script"]
        none = await call(client, "list_clusters", selector="env=nowhere")
        assert none.text == f"no cluster has such labels: {LABELS}"
        assert none.fields == {"clusters": [], "next_step": LABELS}
        nobody = await call(client, "kubectl_fanout", selector="env=nowhere", command="get pods")
        assert not nobody.is_error
        assert nobody.text.startswith("no cluster was asked\n")
        assert nobody.text.endswith(f"\n{LABELS}")


async def test_many_clusters(mcp: Any, connect: Any, call: Any, mode: str) -> None:
    """What is the same is said once; where it could not be run is said by name, and is no failure of the others."""
    name = f"many-{mode}"
    async with connect(mcp.urls[0], mode) as client:
        answer = await call(
            client, "kubectl_fanout", clusters=["script", "real", "away", "none"], command=f"get pods {name}"
        )
        assert not answer.is_error
        assert answer.text.startswith(
            "2 clusters, each different; 2 failed: away (CLUSTER_OFFLINE), none (CLUSTER_UNKNOWN)"
        )
        assert f"== script\n{name}\n" in answer.text
        assert "== real (exit code 1)" in answer.text
        assert [each["clusters"] for each in answer.fields["problems"]] == [["away"], ["none"]]
        assert all(each["executed"] == "no" for each in answer.fields["problems"])
        # What to do next is said once, and for each reason.
        reasons = (Reason.CLUSTER_OFFLINE, Reason.CLUSTER_UNKNOWN)
        assert answer.fields["next_step"] == " ".join(f"{reason}: {NEXT[reason]}" for reason in reasons)
        assert answer.text.endswith(answer.fields["next_step"])
        chosen = await call(client, "kubectl_fanout", selector="env=dev", command=f"get pods {name}")
        unknown = "not connected, so their labels are not known: away"
        assert chosen.text == f"1 cluster answered\n== script\n{name}\n{unknown}"
        for clusters, command in ((["away"], "get pods"), (["script", "away"], f"get pods {name} -n fails")):
            failed = await call(client, "kubectl_fanout", clusters=clusters, command=command)
            assert failed.is_error


async def test_a_long_output_of_many(mcp: Any, connect: Any, call: Any) -> None:
    """A cluster has a smaller page, whose rest is fetched by its cursor."""
    async with connect(mcp.urls[0], "modern") as client:
        answer = await call(client, "kubectl_fanout", clusters=["script"], command="get pods x -n floods")
        [group] = answer.fields["groups"]
        assert 2_000 < len(group["stdout"]) <= 4_000
        rest = await call(client, "get_result", cursor=group["next_cursor"])
        assert rest.fields["stdout"].startswith(str(int(group["stdout"].split()[-1]) + 1))


async def test_progress(mcp: Any, connect: Any, call: Any, mode: str) -> None:
    """Once a second while it runs, and only for whoever asks for it: how long, and how much it has written."""
    said: list[tuple[float, str]] = []
    name = f"progress-{mode}"

    async def hear(progress: float, _total: float | None, message: str | None) -> None:
        said.append((progress, str(message)))
        if message == WRITTEN:
            mcp.let_go(name)

    async with connect(mcp.urls[0], mode) as client:
        asked = {"cluster": "script", "command": f"get pods {name} -n held", "timeout_seconds": 60}
        answer = await call(client, "kubectl", progress=hear, **asked)
        assert answer.text == "one, two\nthree\n"
        assert WRITTEN in [message for _, message in said]
        # Told in tenths.
        assert all(later - sooner > 0.9 for (sooner, _), (later, _) in itertools.pairwise([(0.0, ""), *said]))


async def test_the_time_is_up(mcp: Any, connect: Any, call: Any, eventually: Any, mode: str) -> None:
    """The output so far is there, and what to do next."""
    async with connect(mcp.urls[0], mode) as client:
        name = f"timeout-{mode}"
        command = f"get pods {name} -n sleeps"
        answer = await call(client, "kubectl", cluster="script", command=command, timeout_seconds=3)
        assert answer.is_error
        assert answer.text.startswith(f"{WORD}\n[COMMAND_TIMEOUT after 3 s; above is the output so far.")
        assert "timeout_seconds" in answer.text
        assert (answer.fields["reason"], answer.fields["executed"]) == ("COMMAND_TIMEOUT", "yes")
    await eventually(lambda: not mcp.is_running(name))


@pytest.mark.parametrize("tool", ["get_result", "cancel"])
async def test_a_command_of_another(mcp: Any, connect: Any, call: Any, tool: str) -> None:
    """Is one that there is not."""
    async with connect(mcp.urls[0], "modern", key="the-key-of-noa") as noa, connect(mcp.urls[0], "modern") as mia:
        answer = await call(noa, "kubectl", cluster="script", command="get pods web")
        refused = await call(mia, tool, command_id=answer.fields["command_id"])
        # Mia is an admin, who sees all.
        assert not refused.is_error
        own = await call(mia, "kubectl", cluster="script", command="get pods web")
        refused = await call(noa, tool, command_id=own.fields["command_id"])
        assert refused.is_error
        assert refused.fields["reason"] == "COMMAND_UNKNOWN"


@pytest.mark.parametrize("tool", ["kubectl", "kubectl_fanout"])
async def test_fresh(mcp: Any, connect: Any, call: Any, tool: str) -> None:
    """Who asks the same at the same time shares a run, and is told so; or asks for a run of its own.

    The header has no say in that: some clients send it along with everything.
    """
    where: dict[str, Any] = {"cluster": "script"} if tool == "kubectl" else {"clusters": ["script"]}
    header = {"Cache_Control": "no-cache"}
    async with connect(mcp.urls[0], "modern", **header) as client, connect(mcp.urls[1], "legacy", **header) as other:
        for fresh in (False, True):
            name = f"{tool}-{fresh}"
            asked = where | {"command": f"get pods {name} -n held", "fresh": fresh, "timeout_seconds": 60}
            began = time.monotonic()
            asking = asyncio.gather(call(client, tool, **asked), call(other, tool, **asked))
            await mcp.unfinished(name, 2)
            mcp.let_go(name)
            answers, took_s = await asking, time.monotonic() - began
            shared = [each for each in answers if "served_from" in each.fields]
            assert len(shared) == (0 if fresh else 1)
            for each in shared:
                assert each.fields["served_from"] == "shared"
                assert 0 <= each.fields["age_s"] <= took_s
                age = f"begun {each.fields['age_s']:g} s before this was asked for"
                assert (
                    f"[shared: the run of an identical command, {age}; with fresh it has a run of its own]" in each.text
                )


async def test_a_session(mcp: Any, connect: Any, call: Any, api: httpx.AsyncClient) -> None:
    """That whoever starts the agent has made by REST: the command is filed under it. One that is none is refused."""
    session = (await api.post("/v1/sessions", json={"cluster_id": "script"})).json()["session_id"]
    async with connect(mcp.urls[0], "modern") as client:
        answer = await call(client, "kubectl", cluster="script", command="get pods in-session", session_id=session)
        command = (await api.get(f"/v1/commands/{answer.fields['command_id']}")).json()
        assert command["session_id"] == session
        for cluster, named, reason in (
            ("script", "made-up", Reason.SESSION_UNKNOWN), ("script", "made up", Reason.SESSION_UNKNOWN),
            ("real", session, Reason.SESSION_MISMATCH),
        ):  # fmt: skip
            refused = await call(client, "kubectl", cluster=cluster, command="get pods x", session_id=named)
            assert (refused.fields["reason"], refused.fields["executed"]) == (reason, "no")
            assert "Leave session_id out" in refused.text


async def test_the_same_again_and_again(mcp: Any, connect: Any, call: Any) -> None:
    """Is said in text and fields; and where that points at the next step, there is one, in both."""
    async with connect(mcp.urls[0], "modern") as client:
        for tool, where in (("kubectl", {"cluster": "script"}), ("kubectl_fanout", {"clusters": ["script"]})):
            for command, ends in (
                (f"get pods again-{tool}", "or ask later."),
                (f"edit pods {tool}", "See `next_step`."),
            ):
                answers = [await call(client, tool, command=command, **where) for _ in range(3)]
                assert ["hint" in each.fields for each in answers] == [False, False, True]
                hint = answers[2].fields["hint"]
                assert hint.startswith("This was asked for 3 times")
                assert hint.endswith(ends)
                assert answers[2].text.count(hint) == 1
                if "next_step" in ends:
                    assert answers[2].fields["next_step"] in answers[2].text.partition(hint)[2]
