"""CancelCommands of CommandService: the kill switch for one's own conversation. That for all others is `cancel_all`."""

from functools import partial
from typing import Any

import grpc

from broker.audit import Audit
from broker.core.credentials import Credentials
from broker.core.whose import Whose
from broker.killing import Killing
from broker.rpc.audited import check, check_reason
from broker.rpc.callers import admitted
from openline.ids import is_token
from openline.v1 import command_service_pb2 as pb

Context = grpc.aio.ServicerContext[Any, Any]


class CancelCommandsMethod:
    def __init__(self, killing: Killing, credentials: Credentials, audit: Audit) -> None:
        self._killing = killing
        self._credentials = credentials
        self._audit = audit

    async def CancelCommands(  # noqa: N802
        self, request: pb.CancelCommandsRequest, context: Context
    ) -> pb.CancelCommandsResponse:
        """How many had not ended, of all replicas that could be reached.

        A session or a conversation of somebody else's is one in which nothing runs.
        """
        caller = admitted(self._credentials, context, "CommandService.CancelCommands")
        kind = request.WhichOneof("conversation")
        check(
            ("conversation", kind is not None, "must be one of session_id, correlation_id"),
            (kind or "conversation", kind is None or is_token(getattr(request, kind)), "is none that there can be"),
            check_reason(request.reason),
        )
        whose = Whose(
            session_id=request.session_id,
            correlation_id=request.correlation_id,
            owner=caller.owner,
            within=caller.clusters,
        )
        why = request.reason or "cancelled by the caller"
        tell = partial(
            self._audit.acted,
            "cancel_commands",
            caller,
            session_id=request.session_id,
            correlation_id=request.correlation_id,
        )
        try:
            killed = await self._killing.everywhere(whose, why=why)
        except BaseException:
            tell(detail=f"{why} (broken off: may have been done)")
            raise
        tell(detail=killed.told(whose, why))
        return pb.CancelCommandsResponse(
            cancelled=len(killed.command_ids),
            incomplete=bool(killed.unreached),
            # What there is within is for those who run it.
            unreached_replica_ids=killed.unreached if "admin" in caller.scopes else (),
        )
