"""What anybody may ask without a key: health and reflection. So what anybody may hold open of them is bounded.

The health service of grpcio-health-checking has no bound, and one watcher that does not read holds up all others there,
and the end of the server.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from broker.rpc.places import Places
from broker.rpc.service import abort
from openline import errors

MAX_WATCHES = 1_000
# A tool holds one while somebody uses it.
MAX_REFLECTIONS = 100

Context = grpc.aio.ServicerContext[Any, Any]
Status = health_pb2.HealthCheckResponse


class Health:
    """grpc.health.v1.Health, of the server (the empty name) and of each service."""

    def __init__(self, services: Iterable[str]) -> None:
        self._status = dict.fromkeys(("", *services), Status.NOT_SERVING)
        self._places = Places(MAX_WATCHES, full="too many watch the health")
        # Set and replaced whenever something has changed.
        self._changed = asyncio.Event()

    @property
    def is_serving(self) -> bool:
        """What is said of the server."""
        return bool(self._status[""] == Status.SERVING)

    def serves(self, serving: bool) -> None:
        """From now on."""
        self._status = dict.fromkeys(self._status, Status.SERVING if serving else Status.NOT_SERVING)
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> Any:  # noqa: N802
        if (status := self._status.get(request.service)) is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return Status(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:  # noqa: N802
        """What it is, and what it becomes, until the watcher leaves. Of an unknown service that it is unknown."""
        with self._places.one():
            told: int | None = None
            while True:
                changed = self._changed
                status = self._status.get(request.service, Status.SERVICE_UNKNOWN)
                if status != told:
                    await context.write(Status(status=status))
                    told = status
                await changed.wait()


class Reflection(ReflectionServicer):  # type: ignore[misc]  # it has no types
    """grpc.reflection.v1alpha.ServerReflection, for tools such as grpcurl."""

    def __init__(self, services: Iterable[str]) -> None:
        super().__init__(service_names=services)
        self._places = Places(MAX_REFLECTIONS, full="too many reflections are open")

    async def ServerReflectionInfo(  # noqa: N802
        self, requests: AsyncIterator[reflection_pb2.ServerReflectionRequest], context: Context
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        try:
            with self._places.one():
                async for answer in super().ServerReflectionInfo(requests, context):
                    yield answer
        except errors.OpenlineError as refusal:
            await abort(context, refusal.error)
