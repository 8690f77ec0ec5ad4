"""Messages and what becomes of them, by the SDK's client in each version of the protocol."""

import asyncio
from typing import Any

import httpx
import pytest
from a2a.utils.errors import TaskNotCancelableError, TaskNotFoundError, UnsupportedOperationError

from openline.ids import is_command_id, new_id

OTHER, READER, EXECUTER, LIMITED = (
    f"the-key-of-{name}" for name in ("noa", "a-reader", "an-executer", "a-limited-one")
)


def text_of(task: dict[str, Any]) -> str:
    """What a task's status says."""
    return str(task["status"]["message"]["parts"][0]["text"])


def output_of(task: dict[str, Any]) -> dict[str, str]:
    return {each["artifactId"]: "".join(part["text"] for part in each["parts"]) for each in task.get("artifacts", [])}


@pytest.mark.parametrize(
    "said",
    [
        "script: get pods web",
        "  script :  kubectl get pods web\n",
        {"cluster": "script", "command": "get pods web"},
        {"cluster": "script", "argv": ["get", "pods", "web"], "timeout_seconds": 30},
    ],
)
async def test_a_command(a2a: Any, connect: Any, version: str, said: Any) -> None:
    """Is a task that is completed, with its output, under the id of the command; any gateway finds it."""
    async with connect(a2a.urls[0], version) as agent:
        task = await agent.task(said)
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert output_of(task) == {"stdout": "web\n"}
    facts = task["artifacts"][0]["metadata"]
    assert facts == task["metadata"] == {"command_id": task["id"], "cluster": "script", "exit_code": 0}
    assert is_command_id(task["id"])
    assert task["contextId"]
    async with connect(a2a.urls[1], version) as agent:
        assert await agent.get(task["id"]) == task


async def test_one_that_fails(a2a: Any, connect: Any, version: str) -> None:
    """Has what it wrote, and its exit code."""
    async with connect(a2a.urls[0], version) as agent:
        task = await agent.task({"cluster": "script", "command": "get pods x", "namespace": "fails"})
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert text_of(task) == "exit code 3"
    assert task["metadata"]["exit_code"] == 3
    assert output_of(task) == {"stdout": "out\n", "stderr": "it failed\n"}


async def test_masked(a2a: Any, connect: Any, version: str) -> None:
    async with connect(a2a.urls[0], version) as agent:
        task = await agent.task("script: get pods x -n hides")
    assert "hunter2" not in str(task)
    assert text_of(task) == "exit code 0; secret values that are masked: 1"


async def test_out_of_time(a2a: Any, connect: Any, version: str) -> None:
    async with connect(a2a.urls[0], version) as agent:
        task = await agent.task(
            {"cluster": "script", "command": f"get pods {new_id()} -n sleeps", "timeout_seconds": 3}
        )
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert text_of(task).startswith("COMMAND_TIMEOUT: ")
    assert "Give a longer timeout_seconds" in text_of(task)
    assert task["metadata"]["reason"] == "COMMAND_TIMEOUT"
    assert output_of(task) == {"stdout": "so far\n"}


@pytest.mark.parametrize(
    ("said", "reason", "words"),
    [
        ("scirpt: get pods", "CLUSTER_UNKNOWN", "script"),
        ("away: get pods", "CLUSTER_OFFLINE", "Try again later"),
        ("script: delete pods web", "POLICY_DENIED", "Use get and describe"),
        ("script: get pods | wc -l", "INVALID_COMMAND", "there is no shell for '|'"),
        ("script:", "INVALID_COMMAND", "there is no command in it"),
        ("script: get pods 'x", "INVALID_COMMAND", "cannot be split into words"),
        ("how are the pods in script?", "INVALID_COMMAND", "There are: script"),
        ("get pods -l app:web", "INVALID_COMMAND", "prod-east: get pods -n shop"),
        ("Script: get pods", "INVALID_COMMAND", "There are: "),
        ("script: get pods\nscript: get nodes", "INVALID_COMMAND", "it is not one line"),
        ({"command": "get pods"}, "INVALID_COMMAND", "names no cluster"),
        ({"cluster": "script"}, "INVALID_COMMAND", "either command or argv"),
        ({"cluster": "script", "command": "get pods", "shell": "bash"}, "INVALID_COMMAND", "no such argument"),
        ({"cluster": "script", "command": "get pods", "timeout_seconds": 1e9}, "INVALID_COMMAND", "timeout_seconds"),
        ({"cluster": "No such", "command": "get pods"}, "CLUSTER_UNKNOWN", "There are: away, script"),
    ],
)
async def test_refused(a2a: Any, connect: Any, version: str, said: Any, reason: str, words: str) -> None:
    """Is a task that is rejected, which says why and what to do instead."""
    async with connect(a2a.urls[0], version) as agent:
        task = await agent.task(said, context_id="about-refusals")
        if "command_id" in task["metadata"]:
            # It became a command that an executor refused, and is found as such.
            assert (await agent.get(task["id"]))["status"]["state"] == "TASK_STATE_REJECTED"
    assert task["status"]["state"] == "TASK_STATE_REJECTED"
    assert text_of(task).startswith(f"{reason}: ")
    assert words in text_of(task)
    assert "Nothing was run" in text_of(task)
    assert (task["metadata"]["reason"], task["metadata"]["executed"]) == (reason, "no")
    assert "artifacts" not in task
    assert task["contextId"] == "about-refusals"


async def test_not_waited_for(a2a: Any, connect: Any, version: str) -> None:
    """Is answered when an executor has it; whoever asks at another gateway is told how far it is."""
    name = new_id()
    async with connect(a2a.urls[0], version) as agent, connect(a2a.urls[1], version) as other:
        task = await agent.task(f"script: get pods {name} -n held", at_once=True)
        assert task["status"]["state"] in ("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING")
        a2a.let_go(name)
        looked = task
        async with asyncio.timeout(60):
            while looked["status"]["state"] != "TASK_STATE_COMPLETED":
                looked = await other.get(task["id"])
        assert output_of(looked) == {"stdout": "one\nétwo\n", "stderr": "oh\n"}


async def test_cancelled(a2a: Any, connect: Any, version: str, eventually: Any) -> None:
    """By another gateway: the process is stopped. What has ended cannot be cancelled, and not what there is not."""
    name = new_id()
    async with connect(a2a.urls[0], version) as agent, connect(a2a.urls[1], version) as other:
        said = {"cluster": "script", "command": f"get pods {name} -n sleeps", "timeout_seconds": 100}
        task = await agent.task(said, at_once=True)
        await eventually(lambda: a2a.marks(name) == ["begun"])
        cancelled = await other.cancel(task["id"])
        async with asyncio.timeout(60):
            # On a busy machine the answer may come before the process has ended.
            while cancelled["status"]["state"] != "TASK_STATE_CANCELED":
                cancelled = await other.get(task["id"])
        assert cancelled["contextId"] == task["contextId"]
        assert not a2a.is_running(name)
        with pytest.raises(TaskNotCancelableError):
            await agent.cancel(task["id"])
        with pytest.raises(TaskNotFoundError):
            await agent.cancel(new_id())


async def test_cancelled_without_a_look(a2a: Any, connect: Any, version: str, eventually: Any) -> None:
    """A key that may run commands and not look at them can stop its own."""
    name = new_id()
    async with connect(a2a.urls[0], version, key=EXECUTER) as agent:
        said = {"cluster": "script", "command": f"get pods {name} -n sleeps", "timeout_seconds": 100}
        task = await agent.task(said, at_once=True)
        await eventually(lambda: a2a.marks(name) == ["begun"])
        assert (await agent.cancel(task["id"]))["status"]["state"] == "TASK_STATE_WORKING"
        await eventually(lambda: not a2a.is_running(name))


@pytest.mark.parametrize("task_id", ["x", "", "../x", "0" * 5000])
async def test_no_such_task(a2a: Any, connect: Any, version: str, task_id: str) -> None:
    async with connect(a2a.urls[0], version) as agent:
        with pytest.raises(TaskNotFoundError):
            await agent.get(task_id or new_id())


async def test_of_another_owner(a2a: Any, connect: Any, version: str, eventually: Any) -> None:
    """Is a task that there is not, whatever is asked of it, and goes on."""
    name = new_id()
    async with (
        connect(a2a.urls[0], version) as mine,
        connect(a2a.urls[0], version, key=OTHER, streaming=True) as noas,
    ):
        said = {"cluster": "script", "command": f"get pods {name} -n sleeps", "timeout_seconds": 100}
        task = await mine.task(said, at_once=True)
        await eventually(lambda: a2a.marks(name) == ["begun"])
        for ask in (noas.get, noas.cancel, noas.subscribe):
            with pytest.raises(TaskNotFoundError) as refused:
                await ask(task["id"])
            with pytest.raises(TaskNotFoundError) as unknown:
                await ask(new_id())
            assert refused.value.message == unknown.value.message
        with pytest.raises(TaskNotFoundError):
            await noas.send("script: get pods", task_id=task["id"])
        assert a2a.is_running(name)
        await mine.cancel(task["id"])


async def test_a_second_message(a2a: Any, connect: Any, version: str) -> None:
    """A task takes one."""
    async with connect(a2a.urls[0], version) as agent:
        task = await agent.task("script: get pods web")
        with pytest.raises(UnsupportedOperationError, match="leave taskId out"):
            await agent.send("script: get pods web", task_id=task["id"])


async def test_sent_again(a2a: Any, connect: Any, version: str) -> None:
    """A message is run once, also where its second copy comes to another gateway, and each owner's apart."""
    name, message_id = new_id(), new_id()
    said = f"script: get pods {name}"
    async with connect(a2a.urls[0], version) as agent, connect(a2a.urls[1], version) as other:
        task = await agent.task(said, message_id=message_id)
        again = await other.task(said, message_id=message_id)
        assert (again["id"], again["contextId"]) == (task["id"], task["contextId"])
        assert a2a.marks(name) == ["begun"]
        assert "replayed" not in task["metadata"]
        assert again["metadata"] == again["artifacts"][0]["metadata"] == task["metadata"] | {"replayed": True}
        assert "a new messageId" in text_of(again)
        at_once = await agent.task(said, message_id=message_id, at_once=True)
        assert at_once["metadata"]["replayed"]
        mixed_up = await agent.task("script: get pods other", message_id=message_id)
        assert mixed_up["status"]["state"] == "TASK_STATE_REJECTED"
        assert "a messageId of its own" in text_of(mixed_up)
        assert (await agent.task(said, message_id=message_id, context_id="another"))["id"] != task["id"]
    async with connect(a2a.urls[0], version, key=OTHER) as noas:
        assert (await noas.task(said, message_id=message_id))["id"] != task["id"]


async def test_an_end_that_is_told_again(a2a: Any, connect: Any, version: str) -> None:
    """Says so, also where it is a failure, and where a run of its own is asked for: the message has had its run."""
    said = {"cluster": "script", "command": f"get pods {new_id()} -n sleeps", "timeout_seconds": 1}
    message_id = new_id()
    async with connect(a2a.urls[0], version) as agent:
        task = await agent.task(said, message_id=message_id)
        again = await agent.task(said | {"fresh": True}, message_id=message_id)
    assert (task["metadata"]["reason"], again["id"]) == ("COMMAND_TIMEOUT", task["id"])
    assert "replayed" not in task["metadata"]
    assert again["metadata"] == task["metadata"] | {"replayed": True}


async def test_what_http_says_of_it(http: httpx.AsyncClient) -> None:
    """The same as in REST."""
    message = {"messageId": new_id(), "role": "ROLE_USER", "parts": [{"text": "script: get pods web"}]}
    asking = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
    first, second = [await http.post("/a2a", json=asking) for _ in range(2)]
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"


async def test_sent_again_in_another_conversation(a2a: Any, connect: Any, version: str) -> None:
    """The conversation that counts is the one that the header names: in another one a messageId is another message."""
    message_id = new_id()
    tasks = []
    for header in ("one", "two"):
        async with connect(a2a.urls[0], version, X_Correlation_ID=f"{header}-{message_id}") as agent:
            for context in ("", "the-context", "the-context"):
                given = {"context_id": context} if context else {}
                tasks.append(await agent.task(f"script: get pods {message_id}", message_id=message_id, **given))
    assert len({task["id"] for task in tasks[:3]}) == len({task["id"] for task in tasks[3:]}) == 1
    assert tasks[0]["id"] != tasks[3]["id"]
    assert len(a2a.marks(message_id)) == 2


async def test_fresh(a2a: Any, connect: Any, version: str) -> None:
    """Who asks the same at the same time shares a run, and is told so; or asks for a run of its own.

    The header has no say in that: some clients send it along with everything.
    """
    header = {"Cache_Control": "no-cache"}
    async with connect(a2a.urls[0], version, **header) as agent, connect(a2a.urls[1], version, **header) as other:
        for fresh in (False, True):
            name = new_id()
            said = {"cluster": "script", "command": f"get pods {name} -n held", "fresh": fresh, "timeout_seconds": 60}
            asking = asyncio.gather(agent.task(said), other.task(said))
            await a2a.unfinished(name, 2)
            a2a.let_go(name)
            tasks = await asking
            shared = [task for task in tasks if "served_from" in task["metadata"]]
            assert len(shared) == (0 if fresh else 1)
            for task in shared:
                assert task["metadata"]["served_from"] == "shared"
                assert f"begun {task['metadata']['age_s']:g} s before this was asked for" in text_of(task)


async def test_a_session(a2a: Any, connect: Any, version: str, http: httpx.AsyncClient) -> None:
    """The command is filed under it. One that is none is refused, with what to do instead."""
    session = (await http.post("/v1/sessions", json={"cluster_id": "script"})).json()["session_id"]
    async with connect(a2a.urls[0], version) as agent:
        said = {"cluster": "script", "command": "get pods web"}
        task = await agent.task(said | {"session_id": session})
        assert (await http.get(f"/v1/commands/{task['id']}")).json()["session_id"] == session
        refused = await agent.task(said | {"session_id": "made-up"})
        assert refused["metadata"]["reason"] == "SESSION_UNKNOWN"
        assert refused["metadata"]["next_step"] in text_of(refused)
        assert "Leave session_id out" in text_of(refused)


async def test_again_and_again(a2a: Any, connect: Any, version: str) -> None:
    """It is said, once in the text, and what to do next where the hint points at that."""
    async with connect(a2a.urls[0], version) as agent:
        for command, is_refused in ((f"get pods {new_id()}", False), (f"edit pods {new_id()}", True)):
            context = new_id()
            tasks = [await agent.task(f"script: {command}", context_id=context) for _ in range(3)]
            assert ["hint" in task["metadata"] for task in tasks] == [False, False, True]
            facts = tasks[2]["metadata"]
            assert text_of(tasks[2]).count(facts["hint"]) == 1
            assert ("next_step" in facts) == is_refused
            if is_refused:
                assert f"See `next_step`. {facts['next_step']}" in text_of(tasks[2])


async def test_conversations(a2a: Any, connect: Any, version: str, http: httpx.AsyncClient) -> None:
    """A context is the correlation id, by which its commands are listed; who gives none is given one."""
    async with connect(a2a.urls[0], version) as agent:
        first = await agent.task("script: get pods web")
        second = await agent.task("script: get pods web", context_id=first["contextId"])
    async with asyncio.timeout(60):
        listed: set[str] = set()
        while listed != {first["id"], second["id"]}:
            answer = await http.get("/v1/commands", params={"correlation_id": first["contextId"]})
            listed = {each["command_id"] for each in answer.json().get("commands", [])}
    async with connect(a2a.urls[0], version, X_Correlation_ID="the-header") as agent:
        assert (await agent.task("script: get pods web", context_id="the-message"))["contextId"] == "the-header"


async def test_keys(a2a: Any, connect: Any, version: str) -> None:
    """A wrong key and one without the scope are HTTP's 401 and 403; a cluster that is not seen is one there is not."""
    for key, status in (("wrong", 401), (READER, 403)):
        async with connect(a2a.urls[0], version, key=key) as agent:
            with pytest.raises(Exception, match=str(status)):
                await agent.send("script: get pods")
    async with connect(a2a.urls[0], version, key="wrong", streaming=True) as agent:
        for said in (
            "script: get pods",
            "what is this?",
            {"cluster": "No such", "command": "get pods"},
            # What is wrong with these is known without a broker.
            "script: get pods | grep x",
            "script:",
            {"cluster": "script", "command": "get pods", "shell": "bash"},
        ):
            with pytest.raises(Exception, match="401"):
                await agent.send(said)
        for ask in (agent.get, agent.cancel, agent.subscribe):
            with pytest.raises(Exception, match="401"):
                await ask(new_id())
    async with connect(a2a.urls[0], version, key=LIMITED) as agent:
        hidden = await agent.task("script: get pods")
        assert hidden["metadata"]["reason"] == "CLUSTER_UNKNOWN"
        assert hidden["metadata"]["available"] == ["away"]
        unreadable = await agent.task("how is script?")
        assert "There are: away." in text_of(unreadable)
    async with connect(a2a.urls[0], version, key=EXECUTER) as agent:
        assert "There are" not in text_of(await agent.task("how is script?"))
