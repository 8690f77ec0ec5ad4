"""/metrics: what Prometheus reads. No key is asked for."""

from collections.abc import Iterator

from fastapi import APIRouter, Response

from gateway.documentation import OPEN_TAG
from gateway.traffic import Traffic
from openline import __version__, metrics
from openline.exposition import CONTENT_TYPE, Exposition, Reading, single, yes_no
from openline.pipes import Pipes


def metrics_routes(traffic: Traffic, pipes: Pipes) -> APIRouter:
    routes = APIRouter(tags=[OPEN_TAG])
    exposition = Exposition(lambda: read(traffic, pipes))

    @routes.get(
        "/metrics",
        operation_id="metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def scrape() -> Response:
        """Counts of requests, latencies and connections, in Prometheus' text format."""
        return Response(exposition.text(), media_type=CONTENT_TYPE)

    return routes


def read(traffic: Traffic, pipes: Pipes) -> Iterator[Reading]:
    """Everything in `metrics.GATEWAY`, as it is now."""
    yield metrics.GATEWAY_BUILD, [((__version__,), 1)]
    yield (
        metrics.REQUESTS,
        (((route, method, status, yes_no(agent)), n) for (route, method, status, agent), n in traffic.answered.items()),
    )
    yield (
        metrics.REQUEST_DURATION,
        (((route, yes_no(agent)), each) for (route, agent), each in traffic.durations.items()),
    )
    yield metrics.REQUESTS_IN_FLIGHT, single(traffic.in_flight)
    yield metrics.REFUSED, (((why,), n) for why, n in traffic.refused.items())
    yield metrics.GATEWAY_CONNECTIONS, single(traffic.connections)
    yield metrics.EVENT_STREAMS, single(traffic.event_streams)
    yield metrics.BROKERS_UP, (((replica.address,), replica.is_connected) for replica in pipes.replicas)
    yield metrics.GATEWAY_CERTIFICATE_EXPIRES, single(_expires_at(traffic, pipes))
    yield metrics.GATEWAY_LOOP_LAG, single(traffic.lag)


def _expires_at(traffic: Traffic, pipes: Pipes) -> float:
    """Of the two certificates that there may be, the one that goes first."""
    shown = [each.expires_at for each in (traffic.certificates, pipes.certificates) if each is not None]
    return min((each for each in shown if each is not None), default=0.0)
