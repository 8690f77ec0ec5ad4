"""Messages of a client that speaks on stdin and stdout, passed on to a gateway one by one, and its answers passed back.

What a message means is the gateway's to say. Here is what HTTP wants to be told beside it, that whoever asks is
answered, also when the gateway is not there, and how a call is taken back: by a message in the older versions of the
protocol, by closing the call's connection in the newer ones.
"""

import asyncio
import base64
import contextlib
from dataclasses import dataclass
from typing import Any

import httpx2
import orjson
import structlog

from gateway.mcp.asked import SESSION_ID
from gateway.mcp.lines import MAX_LINE_BYTES, LinesIn, LinesOut
from openline.logs import escape

log = structlog.get_logger()

# At one time; a client that asks for more is told so.
MAX_IN_FLIGHT = 100
# What is still being answered when there is nothing more to read has so long.
DRAIN_S = 5.0
CANCEL_S = 1.0
NOTICE_S = 5.0
MAX_ANSWER_BYTES = 192 << 20

CANCELLED = "notifications/cancelled"
VERSION = "io.modelcontextprotocol/protocolVersion"
NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}

PARSE_ERROR, INVALID_REQUEST, FAILED = -32700, -32600, -32000

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Asking:
    """A request on its way."""

    task: asyncio.Task[None]
    # It says itself of which version it is, and is taken back by being left.
    is_modern: bool


class Relay:
    """For one client; `run` until it has said everything."""

    def __init__(self, http: httpx2.AsyncClient, url: str, out: LinesOut) -> None:
        self._http = http
        self._url = url
        self._out = out
        self._session_id = ""
        # As it was agreed on, in the older versions.
        self._version = ""
        self._tasks: set[asyncio.Task[None]] = set()
        # What has no answer yet, by the client's number as JSON: 1 is not "1".
        self._asking: dict[bytes, _Asking] = {}

    async def run(self, lines: LinesIn) -> None:
        try:
            async for line in lines:
                await self._take(line)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=DRAIN_S)
        finally:
            await self._stop()

    async def _take(self, line: bytes) -> None:
        if len(line) > MAX_LINE_BYTES:
            await self._put(_error(None, INVALID_REQUEST, f"the message has more than {MAX_LINE_BYTES} bytes"))
            return
        try:
            message = orjson.loads(line)
        except ValueError:
            await self._put(_error(None, PARSE_ERROR, "the line is not JSON"))
            return
        if not isinstance(message, dict):
            await self._put(_error(None, INVALID_REQUEST, "one message a line is taken, and no batch"))
        elif "method" not in message or "id" not in message:
            await self._notify(message)
        else:
            await self._begin(message)

    async def _begin(self, message: Json) -> None:
        if not isinstance(message["id"], str | int) or isinstance(message["id"], bool):
            # The gateway would take it for a message that has no answer.
            await self._put(_error(None, INVALID_REQUEST, "id: must be a string or an integer"))
            return
        number = orjson.dumps(message["id"])
        if number in self._asking:
            await self._put(_error(message["id"], INVALID_REQUEST, "a request with this id is being answered"))
        elif len(self._tasks) >= MAX_IN_FLIGHT:
            why = f"{MAX_IN_FLIGHT} requests are being answered: wait for some"
            await self._put(_error(message["id"], FAILED, why))
        else:
            task = asyncio.create_task(self._ask(message, number), name="mcp-ask")
            self._asking[number] = _Asking(task, is_modern=bool(_version(message)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _notify(self, message: Json) -> None:
        """Passes on what is not answered."""
        if message.get("method") == CANCELLED and isinstance(message.get("params"), dict):
            number = orjson.dumps(message["params"].get("requestId"))
            if (asking := self._asking.get(number)) is not None and asking.is_modern:
                del self._asking[number]
                asking.task.cancel()
                return
        headers, body = self._headers(message), orjson.dumps(message)
        try:
            # What comes after it waits for it, so it does not wait for long.
            answer = await self._http.post(self._url, content=body, headers=headers, timeout=NOTICE_S)
            if answer.is_error:
                log.warning("mcp.not_passed_on", method=message.get("method"), status=answer.status_code)
        except httpx2.HTTPError as failure:
            log.warning("mcp.not_passed_on", method=message.get("method"), why=_why(failure))

    async def _ask(self, message: Json, number: bytes) -> None:
        """Passes a request on, and its answer back: the gateway's, or that there is none."""
        try:
            try:
                answer = await self._answer(message)
            except httpx2.HTTPError as failure:
                answer = self._no_answer(message, _why(failure))
            except ValueError:
                answer = self._no_answer(message, "the answer is not JSON")
        finally:
            # Whoever reads the answer may use the number again.
            self._asking.pop(number, None)
        await self._put(answer)

    async def _answer(self, message: Json) -> Json:
        """The answer. What the gateway says before it is passed back as it comes. Raises HTTPError, ValueError."""
        is_first = message["method"] == "initialize"
        if is_first:
            self._session_id = self._version = ""
        headers, body = self._headers(message), orjson.dumps(message)
        async with self._http.stream("POST", self._url, content=body, headers=headers) as response:
            if is_first:
                self._session_id = response.headers.get(SESSION_ID, "")
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                said = await _body(response)
                return self._as_answer(said, message) or _error(message["id"], FAILED, self._refusal(response, said))
            async for event in httpx2.EventSource(response, MAX_ANSWER_BYTES):
                said = orjson.loads(event.data) if event.data else None
                if (answer := self._as_answer(said, message)) is not None:
                    return answer
                if isinstance(said, dict) and "method" in said:
                    await self._put(said)
        return self._no_answer(message, "the answer broke off")

    def _as_answer(self, said: Any, message: Json) -> Json | None:
        """What was said, if it answers this message."""
        if not isinstance(said, dict) or said.get("jsonrpc") != "2.0" or "method" in said:
            return None
        result = said.get("result")
        if message["method"] == "initialize" and isinstance(result, dict):
            self._version = str(result.get("protocolVersion", ""))
        # An error about something that could not be read has no number.
        return said | {"id": message["id"]}

    def _no_answer(self, message: Json, why: str) -> Json:
        told = f"no answer from the gateway at {self._url}: {why}. Is it running?"
        return _error(message["id"], FAILED, told)

    async def _put(self, message: Json) -> None:
        await self._out.put(orjson.dumps(message))

    def _refusal(self, response: httpx2.Response, said: Any) -> str:
        """What the gateway says of a request that it does not take: a problem document, if it is a gateway."""
        detail = said.get("detail") if isinstance(said, dict) else None
        match response.status_code:
            case 401:
                advice = "Check the API key that this server is started with."
            case 404 | 405:
                advice = "Is it an openline gateway, of 0.2 or newer?"
            case _:
                advice = ""
        told = detail if isinstance(detail, str) else response.reason_phrase
        return f"the gateway at {self._url} says {response.status_code}: {told}. {advice}".rstrip()

    def _headers(self, message: Json) -> dict[str, str]:
        """What HTTP is to be told of a message."""
        headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
        method = message.get("method")
        if version := _version(message):
            params = message["params"]
            headers |= {"MCP-Protocol-Version": version, "Mcp-Method": _fit(method)}
            name = params.get(NAMED_BY.get(str(method), ""))
            return headers | ({"Mcp-Name": _fit(name)} if isinstance(name, str) else {})
        if self._session_id:
            headers[SESSION_ID] = self._session_id
        if self._version and method != "initialize":
            headers["MCP-Protocol-Version"] = self._version
        return headers

    async def _stop(self) -> None:
        """Takes back what is still being answered."""
        older = [orjson.loads(number) for number, asking in self._asking.items() if not asking.is_modern]
        notices = [{"jsonrpc": "2.0", "method": CANCELLED, "params": {"requestId": number}} for number in older]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_S):
                await asyncio.gather(*map(self._notify, notices))
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _error(number: Any, code: int, why: str) -> Json:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": why}}


def _version(message: Json) -> str:
    """The version of the protocol that a message says it is of; the older ones do not say."""
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    version = meta.get(VERSION) if isinstance(meta, dict) else None
    return _fit(version) if isinstance(version, str) else ""


def _fit(value: Any) -> str:
    """As a header has it: what does not fit is in base64, as the protocol says."""
    text = str(value)
    if text.isascii() and text.isprintable() and text == text.strip() and not text.startswith("=?base64?"):
        return text
    return f"=?base64?{base64.b64encode(text.encode(errors='replace')).decode()}?="


async def _body(response: httpx2.Response) -> Any:
    """None for what is not JSON."""
    try:
        return orjson.loads(await response.aread())
    except ValueError:
        return None


def _why(failure: httpx2.HTTPError) -> str:
    return escape(str(failure)) or type(failure).__name__
