"""The application: routes, and what each kind of failure becomes."""

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from gateway import problems
from gateway.a2a.door import a2a_routes
from gateway.admin import admin_routes
from gateway.argv import Unacceptable
from gateway.audit import audit_routes
from gateway.clusters import cluster_routes
from gateway.commands import command_routes
from gateway.debug import debug_routes
from gateway.documentation import Api, docs_routes
from gateway.edge import Edge
from gateway.express import Express
from gateway.fanout import fanout_routes
from gateway.health import health_routes
from gateway.keys import key_routes
from gateway.leaving import CallerGone
from gateway.listing import listing_routes
from gateway.live_page import live_page_routes
from gateway.log_level import log_level_routes
from gateway.mcp.door import mcp_routes
from gateway.overview import overview_routes
from gateway.scraping import metrics_routes
from gateway.sse import PING_S
from gateway.stubs import Stubs
from gateway.traffic import Traffic
from gateway.v1 import v1_routes
from gateway.validating import validating_routes
from openline import __version__
from openline.errors import OpenlineError
from openline.pipes import Pipes


def build_app(pipes: Pipes, *, traffic: Traffic | None = None, ping_s: float = PING_S, public_url: str = "") -> ASGIApp:
    """Everything that a request passes through, from the outermost layer on."""
    api = Api(
        title="openline",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # FastAPI's own has query strings, what validation was given and each exception in it; ours is in `spans`.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        description="Runs kubectl commands in Kubernetes clusters that nobody can dial into.",
        exception_handlers={
            OpenlineError: problems.on_openline_error,
            CallerGone: problems.on_caller_gone,
            Unacceptable: problems.on_unacceptable,
            RequestValidationError: problems.on_validation_error,
            HTTPException: problems.on_http_exception,
            Exception: problems.on_defect,
        },
    )
    stubs = Stubs(pipes)
    traffic = traffic or Traffic()
    for routes in (
        debug_routes(pipes, stubs, ping_s=ping_s),
        command_routes(pipes, stubs, ping_s=ping_s),
        fanout_routes(pipes, stubs, ping_s=ping_s),
        v1_routes(stubs),
        listing_routes(stubs),
        validating_routes(stubs),
        cluster_routes(stubs),
        admin_routes(stubs),
        key_routes(stubs),
        overview_routes(pipes, stubs, ping_s=ping_s),
        audit_routes(stubs),
        log_level_routes(stubs),
        health_routes(pipes),
        metrics_routes(traffic, pipes),
        docs_routes(),
        live_page_routes(),
    ):
        api.include_router(routes)
    api.routes.extend(mcp_routes(pipes, stubs))
    api.routes.extend(a2a_routes(pipes, stubs, ping_s=ping_s, public_url=public_url))
    return Edge(Express(api, pipes), traffic)
