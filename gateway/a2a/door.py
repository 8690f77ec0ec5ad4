"""/a2a and the card: which method is done by what, in which form, and what is answered instead."""

from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from starlette.routing import Route

from gateway.a2a import card
from gateway.a2a.agent import Agent, Asking
from gateway.a2a.forms import V0_3, V1_0, Form
from gateway.a2a.rpc import Call, Code, RpcError, read_call, refused
from gateway.callers import read_caller
from gateway.express import Route as ShownRoute
from gateway.origins import check_origin
from gateway.stubs import Stubs
from openline.pipes import Pipes

PATH = "/a2a"
VERSION = "A2A-Version"

METHODS: dict[str, tuple[Form, Callable[[Agent, Asking], Awaitable[Response]]]] = {
    "SendMessage": (V1_0, Agent.send),
    "SendStreamingMessage": (V1_0, Agent.stream),
    "GetTask": (V1_0, Agent.get),
    "ListTasks": (V1_0, Agent.list),
    "CancelTask": (V1_0, Agent.cancel),
    "SubscribeToTask": (V1_0, Agent.subscribe),
    "message/send": (V0_3, Agent.send),
    "message/stream": (V0_3, Agent.stream),
    "tasks/get": (V0_3, Agent.get),
    "tasks/cancel": (V0_3, Agent.cancel),
    "tasks/resubscribe": (V0_3, Agent.subscribe),
}
# What the protocol has and we do not.
_NO_PUSH = (Code.PUSH_NOTIFICATION_NOT_SUPPORTED, "There are no push notifications: stream, or ask for the task")
ABSENT: dict[str, tuple[Code, str]] = {
    "CreateTaskPushNotificationConfig": _NO_PUSH,
    "GetTaskPushNotificationConfig": _NO_PUSH,
    "ListTaskPushNotificationConfigs": _NO_PUSH,
    "DeleteTaskPushNotificationConfig": _NO_PUSH,
    "tasks/pushNotificationConfig/set": _NO_PUSH,
    "tasks/pushNotificationConfig/get": _NO_PUSH,
    "tasks/pushNotificationConfig/list": _NO_PUSH,
    "tasks/pushNotificationConfig/delete": _NO_PUSH,
    "GetExtendedAgentCard": (Code.UNSUPPORTED_OPERATION, "There is one card, for everybody"),
    "agent/getAuthenticatedExtendedCard": (
        Code.EXTENDED_AGENT_CARD_NOT_CONFIGURED,
        "There is one card, for everybody",
    ),
}

# Whoever is told one of these has shown a key to a broker; all others are known without one.
TOLD_BY_BROKERS = frozenset({Code.INTERNAL_ERROR, Code.TASK_NOT_FOUND, Code.TASK_NOT_CANCELABLE})


def a2a_routes(pipes: Pipes, stubs: Stubs, *, ping_s: float, public_url: str) -> list[Route]:
    door = Door(Agent(pipes, stubs, ping_s=ping_s), stubs)
    return [
        Route(PATH, endpoint=door.answer, methods=["POST"], include_in_schema=False),
        Route(card.PATH, endpoint=card.Card(public_url).answer, methods=["GET"], include_in_schema=False),
    ]


class Door:
    """JSON-RPC in, JSON-RPC out. What is wrong with the key is HTTP's to say, as the protocol asks."""

    def __init__(self, agent: Agent, stubs: Stubs) -> None:
        self._agent = agent
        self._stubs = stubs

    async def answer(self, http: Request) -> Response:
        http.scope["route"] = ShownRoute(PATH)
        check_origin(http)
        caller = await read_caller(http)
        number = None
        try:
            call = read_call(await http.body())
            number = call.id
            form, do = _method(call, http.headers.get(VERSION, ""))
            caller.exchange.facts["a2a_method"] = call.method
            return await do(self._agent, Asking(call, form, caller, http))
        except RpcError as why:
            if why.code not in TOLD_BY_BROKERS:
                # Where no broker can say, a mistake is told of all the same: it is nobody's secret.
                await self._stubs.refuse_wrong_key(caller)
            caller.exchange.facts["a2a_error"] = why.code.name
            content = refused(why.number if number is None else number, why)
            return Response(content, media_type="application/json")


def _method(call: Call, version: str) -> tuple[Form, Callable[[Agent, Asking], Awaitable[Response]]]:
    """Names differ, so a name says the version as well; the header is only held against those that there are."""
    if version and version.split(".")[:2] not in (["0", "3"], ["1", "0"]):
        raise RpcError(Code.VERSION_NOT_SUPPORTED, "Versions 1.0 and 0.3 are spoken here")
    if call.method in ABSENT:
        code, why = ABSENT[call.method]
        raise RpcError(code, why)
    if call.method not in METHODS:
        raise RpcError(Code.METHOD_NOT_FOUND, f"There are {', '.join(METHODS)}")
    return METHODS[call.method]
