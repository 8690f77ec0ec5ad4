"""From a message to the command that it asks for, or to the task that says what is wrong with it."""

from gateway.a2a.asking import Asked, Sending, Unreadable, read_asked
from gateway.a2a.tasks import Task
from gateway.a2a.telling import refused, unacceptable, unreadable
from gateway.callers import Caller
from gateway.fanout import OF_THE_KEY
from gateway.requests import command_request
from gateway.stubs import Stubs
from openline.errors import OpenlineError
from openline.ids import new_id
from openline.reasons import Reason
from openline.v1.command_service_pb2 import ExecuteRequest
from openline.words import Unacceptable


async def request_of(sending: Sending, caller: Caller, stubs: Stubs, *, key: str) -> ExecuteRequest | Task:
    """`key` is the message's idempotency key. Raises OpenlineError for what is wrong with the caller's own."""
    exchange = caller.exchange
    cluster = ""
    try:
        asked = await _read(sending, caller, stubs)
        cluster = asked.cluster
        request = command_request(asked.cluster, asked.body(), asked.asked_by(caller))
        request.idempotency_key = caller.idempotency_key or key
        exchange.facts.update(cluster_id=request.cluster_id, command_id=request.command_id)
        await stubs.check_ids(request, caller)
    except Unacceptable as wrong:
        # No broker need be asked to know that it is wrong; but that the key is comes first.
        await stubs.refuse_wrong_key(caller)
        failure = unacceptable(wrong)
    except OpenlineError as wrong:
        failure = wrong
    else:
        return request
    if failure.reason in OF_THE_KEY:
        raise failure
    exchange.facts["reason"] = failure.reason
    return refused(failure, new_id(), exchange.correlation_id, cluster=cluster)


async def _read(sending: Sending, caller: Caller, stubs: Stubs) -> Asked:
    """Raises Unacceptable, and OpenlineError for what cannot be read at all: it names the clusters that are known."""
    parts = sending.message.parts
    try:
        return read_asked(parts)
    except Unreadable as why:
        try:
            page = await stubs.list_clusters(caller)
            clusters = [each.cluster_id for each in page.clusters]
        except OpenlineError as failure:
            if failure.reason is Reason.UNAUTHENTICATED:
                raise
            clusters = []
        raise unreadable(str(why), parts[0].text or "", clusters) from None
