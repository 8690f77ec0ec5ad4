"""The shapes of the audit trail on the drop-in surface."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

AuditStatus = Literal["success", "failure", "timeout", "cancelled", "lost", "rejected"]


class AuditEntryAnswer(BaseModel):
    """One thing that somebody did or was refused. What a command wrote is never part of it."""

    timestamp: datetime = Field(description="When it ended or was refused.")
    action: str = Field(description="`execute`, `cancel`, `create_session`, `delete_session`, or what an admin did.")
    owner: str = Field(description="Name of the key's owner.")
    cluster_id: str | None
    session_id: str | None
    correlation_id: str | None
    command_id: str | None
    command: str | None = Field(description="As it would be typed, without `kubectl`; the first 2 KiB of it.")
    status: AuditStatus = Field(description="As of a command; `lost` with its executor; `rejected` before it ran.")
    reason: str | None = Field(description="Why there is no exit code.")
    exit_code: int | None
    executed: Literal["no", "yes", "unknown"] | None = Field(
        description="Whether the command's process was started; null for what is no command."
    )
    execution_time_ms: int | None = Field(description="From the start of the process to its end.")
    executor_id: str | None
    replica_id: str = Field(description="The broker replica that says so.")
    detail: str | None = Field(description="What more there is to say, as of an admin's action.")


class AuditAnswer(BaseModel):
    """The trail, of all owners, newest first."""

    entries: list[AuditEntryAnswer]
    count: int = Field(description="Of these entries.")
    next_cursor: str | None = Field(
        description="Goes on with what is older; null at the end. There may be few entries, or none, and still more."
    )
