"""Who asks on a pipe, and what answers: the two between which `calls` stands."""

from dataclasses import dataclass
from typing import Protocol

from broker.core.credentials import Credentials
from broker.executions import Executions
from broker.lasting import LastingCalls
from broker.lookups import Lookups
from broker.refusals import Refusals


@dataclass(frozen=True, slots=True)
class Asker:
    """Who is at the other end: the key that the pipe was opened with, the replica's id if it is one, and where."""

    key: str | None
    peer: str | None
    address: str


class Services(Protocol):
    """What answers the calls."""

    executions: Executions
    lookups: Lookups
    credentials: Credentials
    lasting: LastingCalls
    refusals: Refusals
