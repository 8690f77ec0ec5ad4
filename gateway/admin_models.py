"""The shapes of /admin, with the old API's names."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_TTL_S = 10 * 365 * 24 * 3600

Chosen = Annotated[str, Field(min_length=32, max_length=128, pattern=r"^[A-Za-z0-9_-]*$")]


class TokenBody(BaseModel):
    """A token of the caller's choice; without one, a token is made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"token": "a-token-from-the-secrets-store-0001"}, {"ttl_seconds": 90 * 24 * 3600}]
        }
    )

    token: Chosen | None = None
    ttl_seconds: Annotated[int, Field(ge=1, le=MAX_TTL_S)] | None = Field(None, description="Null: it does not expire.")


class TokenAnswer(BaseModel):
    token: str = Field(description="For the executor's --token or --token-file. It cannot be had again.")
    tokenId: str = Field(description="For `?token_id=` when it is revoked; no secret.")  # noqa: N815
    clusterId: str  # noqa: N815
    createdAt: datetime  # noqa: N815
    expiresAt: datetime | None = Field(description="Null for one that does not expire.")  # noqa: N815


class TokenListed(BaseModel):
    """An executor token, but for the token itself."""

    tokenId: str = Field(description="For `?token_id=` when it is revoked; no secret.")  # noqa: N815
    clusterId: str  # noqa: N815
    createdAt: datetime | None = Field(description="Null for one that the broker was given at start.")  # noqa: N815
    expiresAt: datetime | None = Field(description="Null for one that does not expire.")  # noqa: N815


class TokensAnswer(BaseModel):
    """A cluster's tokens that are good."""

    tokens: list[TokenListed] = Field(description="Sorted by id.")
    count: int


class AgentListed(BaseModel):
    """A registered cluster."""

    id: str
    connected: bool
    lastSeen: datetime | None = Field(description="When an executor was last known to be connected.")  # noqa: N815


class AgentsAnswer(BaseModel):
    clusters: list[AgentListed] = Field(description="Sorted by id.")
    count: int


class AgentStatusAnswer(BaseModel):
    """A registered cluster's executor; of several, the one whose id is first."""

    id: str
    connected: bool
    status: Literal["connected", "disconnected"]
    lastSeen: datetime | None  # noqa: N815
    version: str | None = Field(description="The executor's. None while none is connected, as with what follows.")
    kubernetesVersion: str | None = Field(description="None as long as the executor does not know it.")  # noqa: N815
    capabilities: dict[str, Any] | None
    mode: Literal["readOnly"] | None = Field(description="What it would run: kubectl's reading verbs.")
