"""/v1/fanout: one command on many clusters, answered together or as the answers come."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

from fastapi import APIRouter, Request, Response
from starlette.types import Scope, Send

from gateway.argv import Unacceptable
from gateway.callers import Asking, Caller
from gateway.cluster_answers import labels_of
from gateway.command_answers import Wish
from gateway.documentation import FANOUT_EVENTS
from gateway.event_text import said
from gateway.executing import REPLAYED, answered_problem
from gateway.fanning import Ended, Failed, FanOut
from gateway.fanout_models import MAX_CLUSTERS, FanoutAnswer, FanoutBody
from gateway.following import HEAD_WAIT_S
from gateway.grouping import Grouping
from gateway.leaving import while_there
from gateway.problems import PROBLEMS, ProblemResponse, problem_of
from gateway.requests import fanout_requests
from gateway.selectors import BadSelector, parse_selector
from gateway.sse import EventStream
from gateway.stubs import Stubs
from openline.errors import OpenlineError
from openline.ids import is_cluster_id
from openline.pipes import Pipes
from openline.reasons import Reason
from openline.v1.command_service_pb2 import ExecuteRequest

# Of the key and not of a cluster: where every cluster says so, it is the answer.
OF_THE_KEY = frozenset({Reason.UNAUTHENTICATED, Reason.SCOPE_MISSING})


def fanout_routes(pipes: Pipes, stubs: Stubs, *, ping_s: float) -> APIRouter:
    routes = APIRouter(tags=["commands"], responses=PROBLEMS)

    @routes.post("/v1/fanout", operation_id="fan_out", response_model=FanoutAnswer, responses=FANOUT_EVENTS)
    async def fan_out(body: FanoutBody, caller: Asking, http: Request) -> Response:
        """Runs a kubectl command in many clusters and says where the same came out.

        Always a 200: a cluster in which it could not be run, or ran out of time, is among `problems` and is nothing to
        the others. With `Accept: text/event-stream` each cluster's `result` or `error` is an event as soon as it is
        there, and the last one is the `summary`. An `Idempotency-Key` holds for each cluster.
        """
        wish = Wish(shaping=body.shaping("body"))
        chosen, unknown = await choose(body, caller, stubs)
        requests = fanout_requests(chosen, body, caller)
        caller.exchange.facts["clusters"] = len(requests)
        asking = _Asking(pipes, requests, caller, wish, unknown, http.scope)
        if caller.takes_events:
            return await FanoutStream.open(asking, http, ping_s=ping_s)
        async with while_there(http.receive):
            await asking.run()
        return asking.together()

    return routes


class _Asking:
    """One fan-out, from its requests to its answer."""

    def __init__(
        self,
        pipes: Pipes,
        requests: Sequence[ExecuteRequest],
        caller: Caller,
        wish: Wish,
        labels_unknown: Sequence[str],
        scope: Scope,
    ) -> None:
        self._requests = requests
        self._fanout = FanOut(pipes, caller, wish, requests)
        self._scope = scope
        self._facts = caller.exchange.facts
        self._grouping = Grouping([request.cluster_id for request in requests], labels_unknown=labels_unknown)
        self._failures: list[OpenlineError] = []
        self._answered = 0
        self._replayed = 0
        # Set when the first one has answered.
        self.has_begun = asyncio.Event()

    async def run(self, say: Callable[[bytes], Awaitable[None]] | None = None) -> None:
        """Asks all, and says each answer as an event if that is wanted."""

        async def tell(ended: Ended) -> None:
            name, data = self._take(ended)
            self.has_begun.set()
            if say is not None:
                await say(said(name, data))

        await self._fanout.run(tell)

    def check_key(self) -> None:
        """Raises what is wrong with the key, if every cluster so far says so."""
        if self._failures and len(self._failures) == self._answered and self._failures[0].reason in OF_THE_KEY:
            raise self._failures[0]

    def summary(self) -> bytes:
        return self._grouping.answer(with_output=False).model_dump_json().encode()

    def together(self) -> Response:
        """Raises what is wrong with the key."""
        self.check_key()
        headers = REPLAYED if 0 < self._replayed == len(self._requests) else {}
        return Response(self._grouping.answer().model_dump_json(), media_type="application/json", headers=headers)

    def _take(self, ended: Ended) -> tuple[str, bytes]:
        """The event for it."""
        self._answered += 1
        if isinstance(ended, Failed):
            self._failures.append(ended.failure)
            failed = problem_of(self._scope, ended.failure)
        else:
            self._replayed += ended.response.replayed
            if ended.answer.outcome == "exited":
                self._grouping.add(ended.answer)
                return "result", ended.answer.model_dump_json().encode()
            failed = answered_problem(self._scope, ended.response, ended.answer)
        problem = self._problem(failed, ended.request)
        self._grouping.add_problem(problem)
        return "error", json.dumps(problem, ensure_ascii=False, separators=(",", ":")).encode()

    def _problem(self, response: ProblemResponse, request: ExecuteRequest) -> dict[str, Any]:
        """The document that the command would have had for itself, with whose it is."""
        self._facts["failed"] = int(self._facts.get("failed", 0)) + 1
        self._facts.pop("reason", None)
        document: dict[str, Any] = json.loads(bytes(response.body))
        # What is a header of an answer of its own.
        after = response.headers.get("Retry-After")
        mine = {"cluster_id": request.cluster_id, "retry_after_s": int(after) if after else None}
        return {"command_id": request.command_id} | document | mine


class FanoutStream(EventStream):
    """The answers as they come. Made by `open`; it owns what asks."""

    def __init__(self, asking: _Asking, *, ping_s: float) -> None:
        super().__init__(ping_s=ping_s)
        self._asking = asking
        # Who takes the events, once the head is sent.
        self._taker: asyncio.Future[Send] = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(asking.run(self._say), name="fanout-run")

    @classmethod
    async def open(cls, asking: _Asking, http: Request, *, ping_s: float) -> Self:
        """Waits for the first answer, for a moment. Raises what is wrong with the key, and CallerGone."""
        stream = cls(asking, ping_s=ping_s)
        waiting = asyncio.create_task(asking.has_begun.wait(), name="fanout-begin")
        try:
            async with while_there(http.receive):
                first = {stream._running, waiting}
                await asyncio.wait(first, timeout=HEAD_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
            asking.check_key()
        except BaseException:
            await stream.close()
            raise
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        return stream

    async def tell(self, scope: Scope, send: Send) -> None:
        self._taker.set_result(send)
        await self._running
        await self.say(send, said("summary", self._asking.summary()))

    async def close(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    async def _say(self, text: bytes) -> None:
        # The future is everyone's who has an answer to tell: none of them may end it for the others.
        await self.say(await asyncio.shield(self._taker), text)


async def choose(body: FanoutBody, caller: Caller, stubs: Stubs) -> tuple[list[str], list[str]]:
    """The clusters, each once, and those of which nobody knows whether they would be. Raises Unacceptable."""
    if (body.clusters is None) == (body.selector is None):
        raise Unacceptable("clusters", "give either clusters or selector")
    if body.clusters is not None:
        if wrong := [name for name in body.clusters if not is_cluster_id(name)]:
            raise Unacceptable("clusters", f"no cluster can be called {wrong[0]!r}")
        return list(dict.fromkeys(body.clusters)), []
    try:
        selector = parse_selector(body.selector or "")
    except BadSelector as why:
        raise Unacceptable("selector", str(why)) from None
    clusters = await stubs.list_all_clusters(caller)
    chosen = [each.cluster_id for each in clusters if each.executors and selector.fits(labels_of(each))]
    if len(chosen) > MAX_CLUSTERS:
        raise Unacceptable("selector", f"fits {len(chosen)} clusters; at most {MAX_CLUSTERS} are asked at once")
    return chosen, [each.cluster_id for each in clusters if not each.executors]
