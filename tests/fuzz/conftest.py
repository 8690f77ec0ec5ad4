"""What a peer may send that nobody should: arbitrary messages made from the descriptors, and streams to send them on.

Everything comes from a seed, so that a failure is told by its seed and a length, and a hundred thousand messages take
some minutes. Each end gets at least 2,000 in `make test`, and as many as OPENLINE_FUZZ_MESSAGES says in `make fuzz`.
"""

import asyncio
import functools
import os
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import grpc
import pytest
import structlog
import uvloop
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openline import limits

MESSAGES = int(os.environ.get("OPENLINE_FUZZ_MESSAGES", "2000"))
# Messages of a session, beside those that come first. Hypothesis prefers short ones: it makes them about seven long.
MAX_LENGTH = 18
AVERAGE_LENGTH = 6
# Enough levels for every message of the contract.
DEEPEST = 6

M = TypeVar("M", bound=Message)

F = FieldDescriptor
_INTEGERS = {
    F.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    F.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    F.CPPTYPE_UINT32: (0, 2**32 - 1),
    F.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_DOUBLES = (0.0, 0.001, 0.2, 1.0, 5.0, -1.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"))
_TEXTS = ("", "x", "get", "pods", "\0", "ünï", "a b", "-", "x" * 300, "\N{BROKEN HEART}" * 50, "x" * 20_000)
_SIZES = (0, 1, 10, 1000, limits.MAX_FRAME_BYTES, limits.MAX_FRAME_BYTES + 1)


class Arbitrary:
    """Messages from a seed. `words` are texts that mean something to the other end, such as ids, by field name."""

    def __init__(self, seed: int, *, words: dict[str, Sequence[str]]) -> None:
        self.dice = random.Random(seed)
        self._words = words

    def message(self, kind: type[M], depth: int = 0) -> M:
        """Any message of this kind; of each oneof one member, or none."""
        made = kind()
        descriptor: Any = kind.DESCRIPTOR
        for oneof in descriptor.oneofs:
            if self.dice.random() < 0.97:
                self._fill(made, self.dice.choice(oneof.fields), depth)
        for field in descriptor.fields:
            if field.containing_oneof is None and self.dice.random() < 0.7:
                self._fill(made, field, depth)
        return made

    def garbage(self) -> bytes:
        """Bytes that are no message, or hardly one."""
        return self.dice.choice(
            (b"\xff\xff\xff", b"\n\x05ab", self.dice.randbytes(self.dice.randrange(200)), b"\n\xff\xff\xff\xff\x0f")
        )

    def _fill(self, made: Message, field: Any, depth: int) -> None:
        if depth >= DEEPEST:
            return
        many = self.dice.choice((0, 1, 1, 2, 3, 3, 70)) if field.is_repeated else 1
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for _ in range(many):
                getattr(made, field.name)[self._text("")] = self._text("")
        elif field.is_repeated and field.message_type is not None:
            for _ in range(min(many, 4 if depth else 20)):
                getattr(made, field.name).append(self.message(field.message_type._concrete_class, depth + 1))
        elif field.is_repeated:
            getattr(made, field.name).extend(self._value(field) for _ in range(many))
        elif field.message_type is not None:
            getattr(made, field.name).CopyFrom(self.message(field.message_type._concrete_class, depth + 1))
        else:
            setattr(made, field.name, self._value(field))

    def _value(self, field: Any) -> Any:
        match field.cpp_type:
            case F.CPPTYPE_STRING if field.type == F.TYPE_BYTES:
                return b"x" * self.dice.choice(_SIZES)
            case F.CPPTYPE_STRING:
                return self._text(field.name)
            case F.CPPTYPE_BOOL:
                return self.dice.random() < 0.5
            case F.CPPTYPE_ENUM:
                values = [value.number for value in field.enum_type.values] if field.enum_type else []
                return self.dice.choice([*values, 99])
            case F.CPPTYPE_DOUBLE | F.CPPTYPE_FLOAT:
                return self.dice.choice(_DOUBLES)
        low, high = _INTEGERS[field.cpp_type]
        # Mostly small, since ids and seqs must meet what is there to matter.
        return self.dice.choice((*range(6), *range(6), low, high))

    def _text(self, name: str) -> str:
        known = self._words.get(name)
        return self.dice.choice(known if known and self.dice.random() < 0.9 else _TEXTS)


class Loopback:
    """One end of a stream without grpc, for whoever was written for a grpc.aio call or a servicer's context.

    What the test `puts` is read there: a message, None for bytes that cannot be parsed, EOF, or the end of everything.
    """

    def __init__(self, *, serves: bool) -> None:
        self._serves = serves
        self._incoming: deque[Any] = deque()
        self._arrived = asyncio.Event()
        self._lost = asyncio.Event()
        self.written: list[Any] = []
        self.status: grpc.StatusCode | None = None

    def put(self, *messages: Any) -> None:
        self._incoming.extend(messages)
        self._arrived.set()

    def lose(self) -> None:
        """The connection breaks."""
        self._lost.set()
        self._arrived.set()

    async def read(self) -> Any:
        while not self._incoming:
            if self._lost.is_set():
                raise asyncio.CancelledError if self._serves else _lost()
            self._arrived.clear()
            await self._arrived.wait()
        message = self._incoming.popleft()
        if message is None and self._serves:
            raise DecodeError("not a message")
        return message

    async def write(self, message: Any) -> None:
        # Turned into bytes, as grpc does: what cannot be sent is found here.
        self.written.append(type(message).FromString(message.SerializeToString()))
        if self._lost.is_set():
            raise asyncio.CancelledError if self._serves else _lost()

    # A servicer's context

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", "Bearer the-token-of-fuzzed"), ("x-api-key", "the-key-of-alice"))

    def peer(self) -> str:
        return "loopback"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    async def send_initial_metadata(self, _metadata: Any) -> None:
        if self._lost.is_set():
            raise asyncio.CancelledError

    async def abort(self, code: grpc.StatusCode, _details: str = "", _trailers: Any = ()) -> None:
        self.status = code
        raise grpc.aio.AbortError

    # A client's call

    async def done_writing(self) -> None:
        """The peer hears that this end is finished, and finishes too."""
        self.put(grpc.aio.EOF)

    def done(self) -> bool:
        return self._lost.is_set()

    def cancel(self) -> bool:
        self.lose()
        return True

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    async def details(self) -> str:
        return "lost"


class LoopbackChannel:
    """A channel whose every stream is this one."""

    def __init__(self, call: Loopback) -> None:
        self._call = call

    def _multicallable(self, *_path: Any, **_serializers: Any) -> Callable[..., Loopback]:
        return lambda *_arguments, **_options: self._call

    unary_unary = unary_stream = stream_unary = stream_stream = _multicallable


def _lost() -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, details="lost")


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    """One loop for all of this: grpc.aio loses events when they come for a loop that has been closed meanwhile."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.fixture
def quiet() -> Iterator[list[Any]]:
    """Log lines, kept rather than shown: what an arbitrary broker is called fills screens."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture(scope="session")
def arbitrary() -> Callable[..., Arbitrary]:
    return Arbitrary


@pytest.fixture(scope="session")
def loopback() -> type[Loopback]:
    return Loopback


@pytest.fixture(scope="session")
def loopback_channel() -> type[LoopbackChannel]:
    return LoopbackChannel


@pytest.fixture(scope="session")
def fuzz() -> Callable[..., None]:
    """Runs a session, which is a stream, for so many seeds and lengths that they make as many messages as asked for."""

    def run(session: Callable[[int, int], None], *, share: int = 1) -> None:
        """With `share`, the n-th part of them."""
        wanted = MESSAGES // share
        made = 0

        @functools.wraps(session)
        def counted(seed: int, length: int) -> None:
            nonlocal made
            made += length
            session(seed, length)

        checked = settings(
            max_examples=wanted // AVERAGE_LENGTH + 1,
            database=None,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        checked(given(seed=st.integers(0, 2**63), length=st.integers(1, MAX_LENGTH))(counted))()
        assert made >= wanted

    return run
