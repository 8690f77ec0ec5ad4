"""What a message asks: read from its one part, text or data, as agents write it. Pure."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError

from gateway.a2a.rpc import Code, RpcError
from gateway.command_models import CommandBody
from gateway.mcp.arguments import Name, SessionId, Words
from openline.ids import is_cluster_id, is_token
from openline.words import Unacceptable

EXAMPLE = "prod-east: get pods -n shop"
DATA_EXAMPLE = '{"cluster": "prod-east", "command": "get pods -n shop"}'
USAGE = f"Write the cluster, a colon and the command, as in `{EXAMPLE}`, or send a data part such as {DATA_EXAMPLE}."

# What output can be given as; patterns as in Accept.
_OUTPUT_MODES = frozenset({"text/plain", "application/json", "text", "text/*", "application/*", "*/*"})
# What a part may hold beside text and data, in either version.
_FILES = ("file", "url", "raw")

# There is use for one; more are told so.
MOST_PARTS = 100

M = TypeVar("M", bound=BaseModel)

Id = Annotated[str, Field(min_length=1, max_length=1000)]


class Unreadable(ValueError):
    """Not a command in any form; says why."""


class Part(BaseModel):
    text: str | None = None
    data: Any = None
    file: Any = None
    url: Any = None
    raw: Any = None

    @property
    def is_file(self) -> bool:
        return any(getattr(self, name) is not None for name in _FILES)


class Said(BaseModel):
    """A message of either version. What it does not know is left alone: so the protocol grows."""

    messageId: Id  # noqa: N815
    parts: Annotated[list[Part], Field(min_length=1, max_length=MOST_PARTS)]
    contextId: str | None = None  # noqa: N815
    taskId: Id | None = None  # noqa: N815


class Configuration(BaseModel):
    # How 0.3 and 1.0 ask for an answer before the end.
    blocking: bool | None = None
    returnImmediately: bool = False  # noqa: N815
    acceptedOutputModes: Annotated[list[str], Field(max_length=100)] | None = None  # noqa: N815
    pushNotificationConfig: Any = None  # noqa: N815
    taskPushNotificationConfig: Any = None  # noqa: N815


class Sending(BaseModel):
    """The params of a message that is sent."""

    message: Said
    configuration: Configuration = Configuration()

    @classmethod
    def read(cls, params: Mapping[str, Any]) -> Self:
        """Raises RpcError for what the protocol forbids, or we do not do."""
        sending = read_params(cls, params)
        message, wanted = sending.message, sending.configuration
        if message.contextId and not is_token(message.contextId):
            raise RpcError(Code.INVALID_PARAMS, "message.contextId: must be 1 to 200 visible ASCII characters")
        if any(part.is_file for part in message.parts):
            raise RpcError(Code.CONTENT_TYPE_NOT_SUPPORTED, f"Files are not taken. {USAGE}")
        if wanted.acceptedOutputModes and not _OUTPUT_MODES.intersection(wanted.acceptedOutputModes):
            raise RpcError(Code.CONTENT_TYPE_NOT_SUPPORTED, "Output is text/plain, and application/json beside it")
        if wanted.pushNotificationConfig or wanted.taskPushNotificationConfig:
            raise RpcError(Code.PUSH_NOTIFICATION_NOT_SUPPORTED, "There are no push notifications: stream, or ask")
        return sending

    @property
    def returns_at_once(self) -> bool:
        return self.configuration.returnImmediately or self.configuration.blocking is False

    def idempotency_key(self, conversation: str) -> str:
        """The same for the same message sent again in the conversation, which may have no name."""
        named = f"{conversation}\0{self.message.messageId}"
        return f"a2a-{sha256(named.encode()).hexdigest()}"


class Look(BaseModel):
    """The params of whatever is about a task."""

    id: str

    @classmethod
    def read(cls, params: Mapping[str, Any]) -> Self:
        """Raises RpcError."""
        return read_params(cls, params)


class Asked(Words):
    """A command and its cluster."""

    cluster: Name
    session_id: SessionId | None = None

    def body(self) -> CommandBody:
        """Raises Unacceptable."""
        return CommandBody.model_validate(
            {"argv": self.words(), "timeout_seconds": self.timeout_seconds, "session_id": self.session_id}
        )


def read_asked(parts: list[Part]) -> Asked:
    """Raises Unreadable, and Unacceptable for what can be read and makes no sense."""
    if len(parts) != 1:
        raise Unreadable("a message has one part")
    [part] = parts
    if part.text is not None:
        return Asked.read(_read_text(part.text))
    if not isinstance(part.data, dict):
        raise Unreadable("the part is neither text nor an object")
    if "cluster" not in part.data:
        raise Unreadable("the data names no cluster")
    return Asked.read(part.data)


def _read_text(text: str) -> dict[str, str]:
    """Strict, since what is read is run: nothing is guessed, and a second line is not taken for arguments."""
    lines = text.strip().splitlines()
    if len(lines) != 1:
        raise Unreadable("it is not one line")
    cluster, colon, command = (part.strip() for part in lines[0].partition(":"))
    if not colon or not is_cluster_id(cluster):
        raise Unreadable("it does not begin with the name of a cluster and a colon")
    if not command:
        raise Unacceptable("command", "there is no command in it")
    return {"cluster": cluster, "command": command}


def read_params(model: type[M], params: Mapping[str, Any]) -> M:
    """Null is as good as nothing. Raises RpcError, which names the first mistake."""
    try:
        return model.model_validate({name: value for name, value in params.items() if value is not None})
    except ValidationError as mistakes:
        first = mistakes.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise RpcError(Code.INVALID_PARAMS, f"{field}: {first['msg']}") from None
