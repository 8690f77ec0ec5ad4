"""The ASGI application: who asks, may they, and which answer it is. It knows nothing of sockets or TLS."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from demo.kubernetes import discovery, listing, openapi, rbac, requests, reviews, streams
from demo.kubernetes.clock import Clock
from demo.kubernetes.errors import ApiError, MethodNotAllowed, NotFound, TooLarge, Unauthorized
from demo.kubernetes.objects import Obj
from demo.kubernetes.rbac import Identity
from demo.kubernetes.requests import Document, Request, Target
from demo.kubernetes.world import World

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_JSON = "application/json"
_TEXT = "text/plain"
_MAX_BODY_BYTES = 64 * 1024

# Paths that say that the server is well.
_HEALTH = ("/healthz", "/livez", "/readyz")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back: bytes that are there, or bytes that come."""

    body: bytes | AsyncIterator[bytes]
    media_type: str = _JSON
    code: int = 200

    @classmethod
    def object(cls, obj: Obj, *, code: int = 200) -> "Answer":
        return cls(json.dumps(obj, separators=(",", ":")).encode(), code=code)


class App:
    """An API server for one world. `tokens` says whom each bearer token stands for."""

    def __init__(self, world: World, tokens: Mapping[str, Identity]) -> None:
        self.world = world
        self.clock = Clock(world)
        self._tokens = tokens
        self._closed = asyncio.Event()

    def close(self) -> None:
        """Ends every watch and every followed log; the connections stay the server's business."""
        self._closed.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            answer = await self._answer(scope, receive)
        except ApiError as error:
            answer = Answer.object(error.as_object(), code=error.code)
        await self._send(answer, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        identity = self._identity(headers.get(b"authorization", ""))
        request = Request.parse(
            scope["method"],
            scope["path"],
            query=scope["query_string"].decode("latin-1"),
            accept=headers.get(b"accept", ""),
            body=await _body(receive),
        )
        target = requests.target(request)
        rbac.authorize(self.world.store, identity, target=target)
        if isinstance(target, Document):
            return _document(request)
        if delay_s := self.world.delays_s.get(target.namespace):
            await _first(asyncio.sleep(delay_s), self._closed.wait())
        return self._serve(request, target, identity)

    def _identity(self, authorization: str) -> Identity:
        scheme, _, token = authorization.partition(" ")
        found = self._tokens.get(token.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            raise Unauthorized()
        return found

    def _serve(self, request: Request, target: Target, identity: Identity) -> Answer:
        """The answer to a request that is allowed."""
        now, kind = self.clock.now(), target.kind
        if target.subresource == "log" and target.verb == "get":
            pod = listing.find(self.world, target, now=now)
            return Answer(streams.log(self.world, self.clock, request, pod), _TEXT)
        # Subresources that can be read show the object itself.
        verbs = next((s.verbs for s in kind.subresources if s.name == target.subresource), kind.verbs)
        if target.verb not in verbs:
            raise MethodNotAllowed()
        match target.verb:
            case "create":
                review = reviews.answer(kind.kind, request.body, store=self.world.store, identity=identity)
                return Answer.object(review, code=201)
            case "watch":
                return Answer(streams.watch(self.world, self.clock, request, target))
            case "list":
                return Answer.object(listing.page(self.world, request, target, now=now))
        return Answer.object(listing.get(self.world, request, target, now=now))

    async def _send(self, answer: Answer, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", answer.media_type.encode()), (b"cache-control", b"no-cache, private")]
        if isinstance(answer.body, bytes):
            headers.append((b"content-length", str(len(answer.body)).encode()))
            await send({"type": "http.response.start", "status": answer.code, "headers": headers})
            await send({"type": "http.response.body", "body": answer.body})
            return
        await send({"type": "http.response.start", "status": answer.code, "headers": headers})
        # Ends with the stream itself, when the client leaves, or when the server stops: whichever is first.
        await _first(_pump(answer.body, send), _gone(receive), self._closed.wait())
        await send({"type": "http.response.body"})


def create_app(world: World, tokens: Mapping[str, Identity]) -> App:
    """The API server of a world, as an ASGI application. Its owner runs `app.clock.run()` so that time passes."""
    return App(world, tokens)


def _document(request: Request) -> Answer:
    if request.method not in ("GET", "HEAD"):
        raise MethodNotAllowed()
    if request.path.rstrip("/") in _HEALTH:
        return Answer(b"ok", _TEXT)
    if found := discovery.document(request.path, accept=request.accept):
        obj, media_type = found
        return Answer(json.dumps(obj, separators=(",", ":")).encode(), media_type)
    if schema := openapi.document(request.path):
        return Answer(schema)
    raise NotFound.path()


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        received: bytes = message.get("body", b"")
        body += received
        if len(body) > _MAX_BODY_BYTES:
            raise TooLarge(f"the body is longer than {_MAX_BODY_BYTES} bytes")
        if not message.get("more_body"):
            return body


async def _pump(chunks: AsyncIterator[bytes], send: Send) -> None:
    async for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first(*ways: Coroutine[Any, Any, Any]) -> None:
    """Runs all of them until the first ends; the others are cancelled, and have ended when this returns."""
    running = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)
    for task in running:
        if not task.cancelled():
            task.result()
