"""Two gateways of one broker: with a cluster whose kubectl is a script that writes down what becomes of it, and one
that nobody is connected for. The client is the protocol's own SDK, in both versions that it speaks.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import a2a_pb2 as pb
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value

from openline.ids import new_id

PATIENCE_S = 60.0
KEY, OTHER, READER, EXECUTER, LIMITED = (
    f"the-key-of-{name}" for name in ("mia", "noa", "a-reader", "an-executer", "a-limited-one")
)
VERSIONS = ("1.0", "0.3")

# `get pods NAME -n WHAT`: says which process it is, and when it has begun. One that is held goes on when it is let go,
# in mid-character; one that stays has to be killed.
SCRIPT = """#!/bin/sh
[ "$1 $2" = "get pods" ] || { echo '{}'; exit 0; }
echo $$ > "%(here)s/$3.pid"
case "$4" in
  *=sleeps) echo "so far" ;;
  *=stays) trap '' TERM; echo "so far" ;;
  *=held) printf 'one\\n\\303' ;;
esac
echo begun >> "%(here)s/$3"
case "$4" in
  *=sleeps | *=stays) sleep 60 ;;
  *=held) until [ -e "%(here)s/$3.go" ]; do sleep 0.05; done; echo oh >&2; printf '\\251two\\n' ;;
  *=fails) echo "out"; echo "it failed" >&2; exit 3 ;;
  *=hides) echo "password=hunter2hunter2" ;;
  *=mute) ;;
  *) echo "$3" ;;
esac
"""


@pytest.fixture(scope="session")
def a2a(start_stage: Any) -> Iterator[Any]:
    keys = (
        f"mia:{KEY}:execute+read+admin+session,noa:{OTHER}:execute+read,reader:{READER}:read,executer:{EXECUTER}:execute,"
        f"limited:{LIMITED}:execute+read@away"
    )
    with start_stage(SCRIPT, keys, others=("away",)) as stage:
        yield stage


@dataclass(frozen=True)
class Agent:
    """The SDK's client, asked in few words."""

    client: Any

    async def events(
        self, said: str | dict[str, Any], *, at_once: bool = False, **message: Any
    ) -> AsyncGenerator[dict[str, Any], None]:
        """What comes for a message, in the words of 1.0: one task, or a stream's events."""
        part = pb.Part(text=said) if isinstance(said, str) else pb.Part(data=ParseDict(said, Value()))
        message = {"message_id": new_id(), "role": pb.ROLE_USER} | message
        request = pb.SendMessageRequest(
            message=pb.Message(parts=[part], **message),
            configuration=pb.SendMessageConfiguration(return_immediately=at_once),
        )
        async with aclosing(self.client.send_message(request)) as events:
            async for event in events:
                yield MessageToDict(event)

    async def send(self, said: str | dict[str, Any], **given: Any) -> list[dict[str, Any]]:
        """All of them."""
        return [event async for event in self.events(said, **given)]

    async def task(self, said: str | dict[str, Any], **given: Any) -> dict[str, Any]:
        """The task that a message has become."""
        [answer] = await self.send(said, **given)
        return dict(answer["task"])

    async def get(self, task_id: str) -> dict[str, Any]:
        return dict(MessageToDict(await self.client.get_task(pb.GetTaskRequest(id=task_id))))

    async def cancel(self, task_id: str) -> dict[str, Any]:
        return dict(MessageToDict(await self.client.cancel_task(pb.CancelTaskRequest(id=task_id))))

    async def following(self, task_id: str) -> AsyncGenerator[dict[str, Any], None]:
        """What comes of a task that was there before."""
        async with aclosing(self.client.subscribe(pb.SubscribeToTaskRequest(id=task_id))) as events:
            async for event in events:
                yield MessageToDict(event)

    async def subscribe(self, task_id: str) -> list[dict[str, Any]]:
        """All of it."""
        return [event async for event in self.following(task_id)]


@asynccontextmanager
async def _connected(
    url: str, version: str, *, key: str = KEY, streaming: bool = False, **headers: str
) -> AsyncIterator[Agent]:
    shown = {"Authorization": f"Bearer {key}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(headers=shown, timeout=PATIENCE_S, trust_env=False) as http:
        card = await A2ACardResolver(http, url).get_agent_card()
        kept = [each for each in card.supported_interfaces if each.protocol_version == version]
        del card.supported_interfaces[:]
        card.supported_interfaces.extend(kept)
        yield Agent(ClientFactory(ClientConfig(streaming=streaming, httpx_client=http)).create(card))


@pytest.fixture(scope="session")
def connect() -> Any:
    """`async with connect(url, version, key=…, streaming=…) as agent`."""
    return _connected


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture
async def http(a2a: Any) -> AsyncIterator[httpx.AsyncClient]:
    """In plain HTTP, at the first gateway."""
    headers = {"X-API-Key": KEY}
    async with httpx.AsyncClient(base_url=a2a.urls[0], headers=headers, timeout=PATIENCE_S, trust_env=False) as client:
        yield client
