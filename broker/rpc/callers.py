"""Who calls: the key in a call's metadata, held against the rule of the method, or another replica's proof."""

import time
from typing import Any

import grpc

from broker.core.access import rule
from broker.core.credentials import Caller, Credentials
from broker.core.proof import METADATA_KEY, Proof
from broker.rpc.service import credential, shown

Context = grpc.aio.ServicerContext[Any, Any]


def known(credentials: Credentials, context: Context) -> Caller:
    """Raises UNAUTHENTICATED, STORE_UNAVAILABLE."""
    return credentials.caller(credential(context), clock_s=time.time())


def admitted(credentials: Credentials, context: Context, method: str) -> Caller:
    """Of a method such as `AdminService.Drain`. Raises as `known`, and SCOPE_MISSING."""
    caller = known(credentials, context)
    rule(method).check(caller)
    return caller


def is_replica(proof: Proof, context: Context) -> bool:
    """Whether another replica calls, which has checked for whom itself."""
    said = shown(context, METADATA_KEY)
    return said is not None and proof.check(said, clock_s=time.time()) is not None
