"""The Python client: run commands in clusters, from asyncio (AsyncClient) or without (Client).

Both have the same methods, results and errors, and the same rules for asking another broker replica.
"""

from openline.client.answers import Answer, Answers, Group
from openline.client.async_client import AsyncClient
from openline.client.async_session import AsyncSession
from openline.client.clusters import Cluster, Executor
from openline.client.errors import (
    BrokerUnavailable,
    Cancelled,
    ClusterBusy,
    ClusterOffline,
    ClusterUnknown,
    CommandTimeout,
    CommandUnknown,
    Ended,
    ExecutorFailed,
    ExecutorLost,
    IdempotencyConflict,
    Internal,
    InvalidCommand,
    Mismatch,
    NotBuilt,
    NotFound,
    NotNow,
    PolicyDenied,
    ProtocolViolation,
    QuotaExceeded,
    Refused,
    ResultExpired,
    ScopeMissing,
    SessionMismatch,
    SessionUnknown,
    StoreUnavailable,
    TokenExists,
    TokenUnknown,
    Unauthenticated,
    VersionUnsupported,
)
from openline.client.events import Event, Gap, Output, Source, State
from openline.client.results import Command, CommandFailed, CommandState, Outcome, OutputSummary, Result, Timings
from openline.client.sync_client import Client
from openline.client.sync_session import Session
from openline.errors import OpenlineError
from openline.reasons import Reason

__all__ = [
    "Answer",
    "Answers",
    "AsyncClient",
    "AsyncSession",
    "BrokerUnavailable",
    "Cancelled",
    "Client",
    "Cluster",
    "ClusterBusy",
    "ClusterOffline",
    "ClusterUnknown",
    "Command",
    "CommandFailed",
    "CommandState",
    "CommandTimeout",
    "CommandUnknown",
    "Ended",
    "Event",
    "Executor",
    "ExecutorFailed",
    "ExecutorLost",
    "Gap",
    "Group",
    "IdempotencyConflict",
    "Internal",
    "InvalidCommand",
    "Mismatch",
    "NotBuilt",
    "NotFound",
    "NotNow",
    "OpenlineError",
    "Outcome",
    "Output",
    "OutputSummary",
    "PolicyDenied",
    "ProtocolViolation",
    "QuotaExceeded",
    "Reason",
    "Refused",
    "Result",
    "ResultExpired",
    "ScopeMissing",
    "Session",
    "SessionMismatch",
    "SessionUnknown",
    "Source",
    "State",
    "StoreUnavailable",
    "Timings",
    "TokenExists",
    "TokenUnknown",
    "Unauthenticated",
    "VersionUnsupported",
]
