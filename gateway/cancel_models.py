"""The shapes of the kill switch: whose commands are to end, and what came of it."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gateway.exchange import visible
from gateway.models import Name, Text

MAX_REASON_CHARACTERS = 200

SessionName = Annotated[Name, Field(min_length=1, max_length=200, pattern=r"^[!-~]+$")]
# As it travels: as it was given, or as it was told back.
Conversation = Annotated[
    Text,
    AfterValidator(lambda text: visible(text.encode())),
    Field(min_length=1, description="As it was given, or as it was told back."),
]
Why = Annotated[
    Text,
    Field(
        max_length=MAX_REASON_CHARACTERS,
        description="For those who asked for the commands, and the audit trail; all on one line.",
    ),
]


class CancelAllBody(BaseModel):
    """Whose commands: exactly one of the four; with a correlation id, which several may use, an owner as well."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"owner": "sre-agent", "reason": "it deletes what it should watch"},
                {"cluster_id": "prod-east"},
                {"correlation_id": "incident-7", "owner": "sre-agent", "reason": "it runs in circles"},
            ],
            "oneOf": [
                {"required": ["session_id"]},
                {"required": ["cluster_id"]},
                {"anyOf": [{"required": ["correlation_id"]}, {"required": ["owner"]}]},
            ],
        }
    )

    session_id: SessionName = ""
    owner: Annotated[Name, Field(min_length=1, max_length=200)] = ""
    cluster_id: Annotated[Name, Field(min_length=1, max_length=100)] = ""
    correlation_id: Conversation = ""
    reason: Why = ""

    @model_validator(mode="after")
    def _check_whose(self) -> Self:
        given = [self.session_id, self.cluster_id, self.correlation_id or self.owner]
        if sum(map(bool, given)) != 1:
            raise ValueError(
                "must have exactly one of session_id, owner, cluster_id and correlation_id; with the last, an owner too"
            )
        return self


class CancelCommandsBody(BaseModel):
    """Which conversation: exactly one of the two."""

    model_config = ConfigDict(
        # Passed over, an `owner` or a `cluster_id` would have other commands end than were meant.
        extra="forbid",
        json_schema_extra={
            "examples": [{"correlation_id": "incident-7", "reason": "nobody waits for the answer any more"}],
            "oneOf": [{"required": [name]} for name in ("session_id", "correlation_id")],
        },
    )

    session_id: SessionName = ""
    correlation_id: Conversation = ""
    reason: Why = ""

    @model_validator(mode="after")
    def _check_which(self) -> Self:
        if bool(self.session_id) == bool(self.correlation_id):
            raise ValueError("must have exactly one of session_id and correlation_id")
        return self


class CancelAllAnswer(BaseModel):
    """What has come of it."""

    cancelled: int = Field(description="Commands that had not ended; those that run end when their executor says so.")
    unreached_replica_ids: list[str] = Field(
        description="Broker replicas that did not answer: they may have some left, so ask again."
    )


class CancelCommandsAnswer(BaseModel):
    """What has come of it."""

    cancelled: int = Field(description="Commands that had not ended; those that run end when their executor says so.")
    incomplete: bool = Field(description="Not every broker replica did answer: some may be left, so ask again.")
    unreached_replica_ids: list[str] = Field(
        description="Which those are, for keys with the scope `admin`; empty for all others."
    )
