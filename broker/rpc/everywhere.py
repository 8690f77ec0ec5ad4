"""What all other replicas are to do at once: cancel every command of somebody's."""

import asyncio

from broker.core.whose import Whose
from broker.rpc.peers import Peers
from openline.errors import OpenlineError
from openline.v1 import admin_service_pb2 as pb
from openline.v1.admin_service_pb2_grpc import AdminServiceStub

# One that is there answers within milliseconds, or has fifty thousand commands.
TIMEOUT_S = 3.0


async def cancel_all(peers: Peers, whose: Whose, *, why: str) -> tuple[set[str], set[str]]:
    """The ids of the commands that had not ended there, and the replicas that have not said so."""
    request = pb.CancelAllRequest(reason=why, clusters=whose.within.texts)
    if whose.session_id:
        request.session_id = whose.session_id
    elif whose.owner:
        request.owner = whose.owner
    else:
        request.cluster_id = whose.cluster_id
    command_ids: set[str] = set()
    unreached: set[str] = set()

    async def tell(replica_id: str) -> None:
        try:
            answer = await peers.ask(
                replica_id, lambda channel: AdminServiceStub(channel).CancelAll, request, timeout_s=TIMEOUT_S
            )
        except OpenlineError:
            unreached.add(replica_id)
        else:
            command_ids.update(answer.command_ids)

    async with asyncio.TaskGroup() as tasks:
        forgotten = tasks.create_task(peers.forgotten())
        for replica_id in peers.known:
            tasks.create_task(tell(replica_id))
    return command_ids, unreached | forgotten.result()
