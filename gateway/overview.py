"""/admin/overview: everything at once, for the live page and for scripts; and /admin/drain."""

import asyncio
from contextlib import aclosing
from typing import Annotated, Self

from fastapi import APIRouter, Query, Request, Response
from starlette.types import Scope, Send

from gateway.callers import Asking
from gateway.documentation import OVERVIEW_EVENTS
from gateway.event_text import said
from gateway.leaving import while_there
from gateway.overview_answers import overview_answer
from gateway.overview_models import DrainAnswer, DrainBody, OverviewAnswer
from gateway.problems import PROBLEMS, problem_of
from gateway.sse import EventStream
from gateway.stubs import Stubs
from gateway.watched import Overviews, overviews
from openline.errors import OpenlineError
from openline.pipes import Pipes
from openline.v1 import admin_service_pb2, overview_pb2

TIME_IS_UP = b": the time asked for is up\n\n"
MIN_INTERVAL_S, MAX_INTERVAL_S = 0.5, 10.0

Interval = Annotated[
    float,
    Query(ge=MIN_INTERVAL_S, le=MAX_INTERVAL_S, allow_inf_nan=False, description="Seconds between two overviews."),
]


def overview_routes(pipes: Pipes, stubs: Stubs, *, ping_s: float) -> APIRouter:
    routes = APIRouter(prefix="/admin", tags=["admin"], responses=PROBLEMS)

    @routes.get("/overview", operation_id="get_overview", response_model=OverviewAnswer)
    async def get_overview(caller: Asking, http: Request) -> Response:
        """Shows all broker replicas, and the clusters and commands that the key sees, as they are now.

        What is counted is counted since each replica's start: for rates, take the difference of two overviews.
        """
        async with while_there(http.receive):
            overview = await stubs.get_overview(caller)
        return Response(_text(overview), media_type="application/json")

    @routes.get("/overview/events", operation_id="watch_overview", response_class=Response, responses=OVERVIEW_EVENTS)
    async def watch_overview(caller: Asking, http: Request, interval: Interval = 1.0) -> Response:
        """Shows the same again and again, as long as `X-Request-Timeout` says, or until the caller leaves.

        Whoever reads slowly is sent the newest one next.
        """
        shown = overviews(pipes, caller, interval_s=interval)
        return await OverviewStream.open(shown, http, ping_s=ping_s, for_s=caller.wait_s)

    @routes.post("/drain", operation_id="drain")
    async def drain(caller: Asking, body: DrainBody) -> DrainAnswer:
        """Tells the executors of a broker replica to move to the others; it takes no new ones until it is restarted.

        It goes on to serve callers, and what runs goes on. Without another replica it is refused.
        """
        request = admin_service_pb2.DrainRequest(
            replica_id=body.replica_id, spread_s=body.spread_seconds, reason=body.reason
        )
        answer = await stubs.drain(request, caller)
        return DrainAnswer(replica_id=body.replica_id, executors=answer.executors)

    return routes


class OverviewStream(EventStream):
    """Made by `open`. It owns the overviews and closes them."""

    def __init__(self, shown: Overviews, *, ping_s: float, for_s: float | None) -> None:
        super().__init__(ping_s=ping_s)
        self._shown = shown
        self._for_s = for_s
        self._first: overview_pb2.Overview | None = None

    @classmethod
    async def open(cls, shown: Overviews, http: Request, *, ping_s: float, for_s: float | None) -> Self:
        """Waits for the first one, so that a refusal has its own status. Raises OpenlineError, CallerGone."""
        stream = cls(shown, ping_s=ping_s, for_s=for_s)
        try:
            async with while_there(http.receive):
                stream._first = await anext(shown)
        except BaseException:
            await stream.close()
            raise
        return stream

    async def tell(self, scope: Scope, send: Send) -> None:
        if self._first is not None:
            await self.say(send, _event(self._first))
            self._first = None
        try:
            async with asyncio.timeout(self._for_s), aclosing(self._shown):
                async for overview in self._shown:
                    await self.say(send, _event(overview))
        except OpenlineError as failure:
            await self.say(send, said("error", bytes(problem_of(scope, failure).body)))
        except TimeoutError:
            await self.say(send, TIME_IS_UP)

    async def close(self) -> None:
        await self._shown.aclose()


def _event(overview: overview_pb2.Overview) -> bytes:
    return said("overview", _text(overview).encode())


def _text(overview: overview_pb2.Overview) -> str:
    return overview_answer(overview).model_dump_json()
