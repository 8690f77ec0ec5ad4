"""/v1/clusters/{id}/commands:validate: what would become of a command, without running it.

Commands that are run are not judged here before they are sent: the executor decides anyway, and to know its policy of
this moment would cost each of them a look-up.
"""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from gateway.callers import Asking
from gateway.command_models import CommandBody
from gateway.policies import judge_by_all, policies_of
from gateway.problems import PROBLEMS
from gateway.requests import command_request
from gateway.stubs import Stubs
from openline.errors import next_step
from openline.policy import Denied, Policy
from openline.policy.wire import denied_error


class ValidateAnswer(BaseModel):
    """Whether a command may run, and as what."""

    allowed: bool
    rule: str | None = Field(description="Which rule denies it; null if it is allowed.")
    detail: str | None = Field(description="Why: what the denial would say if it were run.")
    instead: str | None = Field(description="What is allowed instead; there it is `allowed`.")
    nearest: str | None = Field(description="The word that was probably meant, where that can be told.")
    next_step: str | None = Field(description="What to do about it.")
    argv: list[str] | None = Field(description="What would be run, without the program; null if it is denied.")
    policy: Literal["cluster", "default"] = Field(
        description="Whose: the cluster's own, or the default one where no executor is connected that says its own."
    )


def validating_routes(stubs: Stubs) -> APIRouter:
    routes = APIRouter(prefix="/v1", responses=PROBLEMS)

    @routes.post("/clusters/{cluster_id}/commands:validate", operation_id="validate_command", tags=["commands"])
    async def validate_command(cluster_id: str, body: CommandBody, caller: Asking) -> ValidateAnswer:
        """Says whether a command may run in a cluster, and with which arguments; runs nothing.

        With `Accept: text/event-stream` it is judged as one whose output is read as it comes, so that it may follow and
        watch. The executor decides anew when the command is run.
        """
        request = command_request(cluster_id, body, caller)
        caller.exchange.facts.update(cluster_id=cluster_id)
        await stubs.check_ids(request, caller)
        own = policies_of(await stubs.get_cluster(cluster_id, caller))
        verdict = judge_by_all(
            list(request.argv), own or [Policy()], streamed=caller.takes_events, remaining_s=request.timeout_s
        )
        whose: Literal["cluster", "default"] = "cluster" if own else "default"
        if isinstance(verdict, Denied):
            return ValidateAnswer(
                allowed=False,
                rule=verdict.rule,
                detail=verdict.message,
                instead=verdict.allowed,
                nearest=verdict.nearest or None,
                next_step=next_step(denied_error(verdict)),
                argv=None,
                policy=whose,
            )
        return ValidateAnswer(
            allowed=True,
            rule=None,
            detail=None,
            instead=None,
            nearest=None,
            next_step=None,
            argv=list(verdict.argv),
            policy=whose,
        )

    return routes
