"""What all other replicas are asked at once, or one of them: to do something, and what they have."""

import asyncio
from dataclasses import dataclass, field
from typing import Generic

from broker.core.patterns import Patterns
from broker.core.whose import Whose
from broker.rpc.peer import A, Method, Q
from broker.rpc.peers import Peers
from openline.calls import broker_unavailable
from openline.errors import OpenlineError
from openline.reasons import NO, UNKNOWN, Reason
from openline.v1 import admin_service_pb2 as pb
from openline.v1 import overview_pb2
from openline.v1.admin_service_pb2_grpc import AdminServiceStub

# One that is there answers within milliseconds, or has fifty thousand commands.
TIMEOUT_S = 3.0


@dataclass(slots=True)
class Told(Generic[A]):
    """What came of asking all other replicas."""

    answers: dict[str, A] = field(default_factory=dict)
    # Those that have not given an answer in time, or a refusal.
    failed: dict[str, Reason | None] = field(default_factory=dict)
    # Where replicas listen that Redis has forgotten.
    forgotten: set[str] = field(default_factory=set)

    @property
    def unreached(self) -> set[str]:
        return self.failed.keys() | self.forgotten


async def ask_all(peers: Peers, method: Method[Q, A], request: Q, *, timeout_s: float | None = None) -> Told[A]:
    """Each is asked at the same time, and has so long."""
    told: Told[A] = Told()
    timeout_s = TIMEOUT_S if timeout_s is None else timeout_s

    async def ask(replica_id: str) -> None:
        try:
            told.answers[replica_id] = await peers.ask(replica_id, method, request, timeout_s=timeout_s)
        except OpenlineError as failure:
            told.failed[replica_id] = failure.reason

    async with asyncio.TaskGroup() as tasks:
        forgotten = tasks.create_task(peers.forgotten())
        for replica_id in peers.known:
            tasks.create_task(ask(replica_id))
    told.forgotten = forgotten.result()
    return told


async def cancel_all(peers: Peers, whose: Whose, *, why: str) -> tuple[set[str], set[str]]:
    """The ids of the commands that had not ended there, and the replicas that have not said so."""
    request = pb.CancelAllRequest(reason=why, clusters=whose.within.texts)
    if whose.is_conversation:
        # One that does not know of this finds no name in the request, and cancels nothing.
        conversation = pb.Conversation(
            session_id=whose.session_id, correlation_id=whose.correlation_id, owner=whose.owner
        )
        request.conversation.CopyFrom(conversation)
    elif whose.session_id:
        request.session_id = whose.session_id
    elif whose.owner:
        request.owner = whose.owner
    else:
        request.cluster_id = whose.cluster_id
    told = await ask_all(peers, lambda channel: AdminServiceStub(channel).CancelAll, request)
    return {command_id for answer in told.answers.values() for command_id in answer.command_ids}, told.unreached


async def set_log_level(peers: Peers, request: pb.SetLogLevelRequest) -> tuple[set[str], set[str]]:
    """The replicas that have done it, and those that have not said so."""
    told = await ask_all(peers, lambda channel: AdminServiceStub(channel).SetLogLevel, request)
    return set(told.answers), told.unreached


async def overviews(peers: Peers, within: Patterns, *, timeout_s: float) -> Told[overview_pb2.GetOverviewResponse]:
    """What each says of itself."""
    request = overview_pb2.GetOverviewRequest(clusters=within.texts)
    return await ask_all(peers, lambda channel: AdminServiceStub(channel).GetOverview, request, timeout_s=timeout_s)


async def ask_one(peers: Peers, replica_id: str, method: Method[Q, A], request: Q) -> A:
    """What that replica says. Raises OpenlineError; BROKER_UNAVAILABLE, with its name, when it does not answer."""
    try:
        return await peers.ask(replica_id, method, request, timeout_s=TIMEOUT_S)
    except OpenlineError as failure:
        # What it says itself when it refuses is that nothing was done.
        if failure.reason is not Reason.BROKER_UNAVAILABLE or failure.error.executed == NO:
            raise
        raise broker_unavailable(f"replica {replica_id} does not answer", executed=UNKNOWN) from failure
