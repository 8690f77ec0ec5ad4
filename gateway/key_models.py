"""The shapes of /admin/keys."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.admin_models import MAX_TTL_S, Chosen

Scope = Literal["execute", "session", "read", "admin", "audit"]
Pattern = Annotated[str, Field(pattern=r"^[a-z0-9*-]{1,100}$")]


class KeyQuotaShape(BaseModel):
    """How much the key may ask, of all replicas together; 0 is no limit."""

    commands_per_minute: int = Field(0, ge=0, le=10_000_000)
    in_flight: int = Field(0, ge=0, le=1_000_000, description="Running or waiting at one time.")


class KeyBody(BaseModel):
    """Whom an API key is for, and what it may do."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"owner": "sre-agent", "scopes": ["execute", "session", "read"], "clusters": ["prod-*", "staging"]},
                {
                    "owner": "nightly-report",
                    "scopes": ["execute", "read"],
                    "ttl_seconds": 86400,
                    "quota": {"commands_per_minute": 60, "in_flight": 4},
                },
            ]
        }
    )

    owner: str = Field(
        pattern=r"^[A-Za-z0-9._@-]{1,100}$",
        description="Whose the key's commands and sessions are; it may have several.",
    )
    scopes: list[Scope] = Field(min_length=1, max_length=100, description="Only such as the asking key has.")
    clusters: list[Pattern] = Field(
        default_factory=list,
        max_length=100,
        description="Which clusters the key sees, by names in which `*` stands for anything; all, if it is empty. Only "
        "such as the asking key sees.",
    )
    ttl_seconds: Annotated[int, Field(ge=1, le=MAX_TTL_S)] | None = Field(None, description="Null: it does not expire.")
    key: Chosen | None = Field(None, description="A key of the caller's choice; without one, a key is made.")
    quota: KeyQuotaShape | None = Field(None, description="Null: what the broker has for everybody, for each owner.")


class KeyListed(BaseModel):
    """An API key, but for the key itself."""

    key_id: str = Field(description="For `DELETE /admin/keys/{key_id}`; no secret.")
    owner: str
    scopes: list[str]
    clusters: list[str] = Field(description="Patterns of what it sees; empty: every cluster.")
    created_at: datetime | None = Field(description="Null for one that the broker was given at start.")
    expires_at: datetime | None = Field(description="Null for one that does not expire.")
    quota: KeyQuotaShape | None = Field(description="Null for one without numbers of its own.")


class KeyAnswer(KeyListed):
    """A new API key."""

    key: str = Field(description="For `X-API-Key`. It cannot be had again.")


class KeyPage(BaseModel):
    """Those that are good, sorted by owner; of a key that sees some clusters only, those that see no others."""

    keys: list[KeyListed]
    count: int = Field(description="Of these keys.")
    next_cursor: str | None = Field(description="Goes on with the next ones; null at the end.")
