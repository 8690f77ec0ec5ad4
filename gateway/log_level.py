"""PUT /admin/log-level: how much this gateway and the broker replicas log, for a while. For admins."""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from gateway.callers import Asking
from gateway.problems import PROBLEMS
from gateway.stubs import Stubs
from openline.loudness import LOUDNESS, MAX_S, USUAL_S, LogLevel
from openline.v1 import admin_service_pb2 as pb

LEVELS: dict[LogLevel, pb.LogLevel.ValueType] = {
    "debug": pb.LOG_LEVEL_DEBUG,
    "info": pb.LOG_LEVEL_INFO,
    "warning": pb.LOG_LEVEL_WARNING,
    "error": pb.LOG_LEVEL_ERROR,
}


class LogLevelBody(BaseModel):
    """What is to be logged, and for how long."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"level": "debug", "for_seconds": 600}, {"level": "usual"}]}
    )

    level: LogLevel | Literal["usual"] = Field(
        description="Lines below it are left out; `usual` is as each program was started."
    )
    for_seconds: Annotated[int, Field(ge=1, le=int(MAX_S))] = Field(
        int(USUAL_S), description="After so long it is again as at the start."
    )


class LogLevelAnswer(BaseModel):
    """Who logs so now."""

    level: str = Field(description="Of the gateway that answers.")
    replica_ids: list[str] = Field(description="The broker replicas that have changed theirs.")
    unreached_replica_ids: list[str] = Field(description="Broker replicas that did not answer.")


def log_level_routes(stubs: Stubs) -> APIRouter:
    routes = APIRouter(prefix="/admin", tags=["admin"], responses=PROBLEMS)

    @routes.put("/log-level", operation_id="set_log_level")
    async def set_log_level(caller: Asking, body: LogLevelBody) -> LogLevelAnswer:
        """Changes for a while how much is logged: by the gateway that answers, and by every broker replica.

        Then a request can be followed all its way. It is the broker that says who may, and puts it into the audit
        trail; without one, nothing changes. SIGUSR1 is for one process alone, and for executors.
        """
        level = None if body.level == "usual" else body.level
        usual = pb.LOG_LEVEL_UNSPECIFIED
        request = pb.SetLogLevelRequest(level=usual if level is None else LEVELS[level], for_s=body.for_seconds)
        answer = await stubs.set_log_level(request, caller)
        LOUDNESS.change(level, for_s=body.for_seconds, by=caller.exchange.request_id)
        return LogLevelAnswer(
            level=LOUDNESS.level,
            replica_ids=list(answer.replica_ids),
            unreached_replica_ids=list(answer.unreached_replica_ids),
        )

    return routes
