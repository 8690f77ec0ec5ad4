"""/health and /healthz: whether the gateway reaches a broker, and whether it runs at all. No key is asked for."""

from typing import Literal

from fastapi import APIRouter, Response

from gateway.documentation import OPEN_TAG
from gateway.models import BrokerHealth, HealthAnswer
from openline import __version__
from openline.pipes import Pipes, Replica

Status = Literal["healthy", "degraded", "unhealthy"]


def health_routes(pipes: Pipes) -> APIRouter:
    routes = APIRouter(tags=[OPEN_TAG])

    @routes.get("/health", operation_id="health", responses={503: {"model": HealthAnswer}})
    async def health(response: Response) -> HealthAnswer:
        """Healthy while a broker replica is connected, degraded while one cannot reach Redis; otherwise 503."""
        brokers = [_broker(replica) for replica in pipes.replicas]
        connected = any(broker.connected for broker in brokers)
        degraded = any(broker.degraded for broker in brokers)
        response.status_code = 200 if connected else 503
        status: Status = "unhealthy" if not connected else "degraded" if degraded else "healthy"
        return HealthAnswer(status=status, brokers=brokers, version=__version__)

    @routes.get("/healthz", operation_id="healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process answers: for liveness probes, which must not restart it because a broker is away."""
        return {"status": "ok"}

    return routes


def _broker(replica: Replica) -> BrokerHealth:
    pipe = replica.pipe if replica.is_connected else None
    return BrokerHealth(
        address=replica.address,
        connected=pipe is not None,
        replica_id=pipe.replica_id if pipe else None,
        degraded=pipe is not None and pipe.is_degraded,
    )
