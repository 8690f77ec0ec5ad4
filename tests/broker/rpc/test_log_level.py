"""SetLogLevel: on one replica or all, who may, and what the audit trail says.

Replicas of a test are in one process, and so have one level; which of them were asked is told by their answers.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest.mock import AsyncMock

import grpc
import pytest

from broker.rpc import everywhere
from openline.errors import OpenlineError, from_rpc_error
from openline.loudness import LOUDNESS, MAX_S
from openline.reasons import Reason
from openline.v1 import admin_service_pb2 as pb
from openline.v1.admin_service_pb2_grpc import AdminServiceStub
from openline.v1.cluster_service_pb2 import Replica

PATIENCE_S = 20.0
ROOT, AUDITOR, OF_PROD = "the-key-of-root", "the-key-of-the-auditor", "the-key-of-an-admin-of-prod"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    LOUDNESS.begin("info")
    yield
    if LOUDNESS._over is not None:
        LOUDNESS._over.cancel()
    LOUDNESS.begin("info")


@pytest.fixture
async def replicas(start_broker: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Two that know each other."""
    async with start_broker(replica_id="r1") as one, start_broker(replica_id="r2") as other:
        async with asyncio.timeout(PATIENCE_S):
            while not all(peers_of(each).reachable for each in (one, other)):
                await asyncio.sleep(0.01)
        yield one, other


def peers_of(broker: Any) -> Any:
    return broker.inside.dispatcher._forwarding._peers


async def change(broker: Any, key: str = ROOT, **fields: Any) -> pb.SetLogLevelResponse:
    """Raises OpenlineError for a status."""
    call = AdminServiceStub(broker.channel()).SetLogLevel
    try:
        answer: pb.SetLogLevelResponse = await call(
            pb.SetLogLevelRequest(**fields), metadata=(("x-api-key", key),), timeout=PATIENCE_S
        )
    except grpc.aio.AioRpcError as failure:
        raise from_rpc_error(failure) from failure
    return answer


async def test_every_replica_changes_it_and_goes_back(
    replicas: tuple[Any, Any], log_lines: list[dict[str, Any]]
) -> None:
    here, _ = replicas
    answer = await change(here, level=pb.LOG_LEVEL_DEBUG, for_s=0.3)
    assert (list(answer.replica_ids), list(answer.unreached_replica_ids)) == (["r1", "r2"], [])
    changes = [line for line in log_lines if line["event"] == "log.level_changed"]
    assert [line["for_s"] for line in changes if line["to"] == "debug"] == [0.3, 0.3]
    async with asyncio.timeout(PATIENCE_S):
        while LOUDNESS.level != "info":
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", ["r1", "r2"])
async def test_one_replica_is_meant(replicas: tuple[Any, Any], name: str) -> None:
    """The one that is asked, or another one, whichever of them a load balancer has chosen."""
    answer = await change(replicas[0], level=pb.LOG_LEVEL_ERROR, replica_id=name)
    assert list(answer.replica_ids) == [name]
    assert LOUDNESS.level == "error"
    await change(replicas[0])
    assert LOUDNESS.level == "info"


async def test_a_replica_that_does_not_answer_is_named(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among all; alone it is an error, and nothing has changed."""
    monkeypatch.setattr(everywhere, "TIMEOUT_S", 0.2)
    peers = peers_of(broker)
    await peers.know([Replica(replica_id="r2", address="127.0.0.1:1")])
    # Redis knows nothing of it, and is not believed.
    monkeypatch.setattr(peers, "know", AsyncMock())
    answer = await change(broker, level=pb.LOG_LEVEL_DEBUG)
    assert (list(answer.replica_ids), list(answer.unreached_replica_ids)) == (["replica-1"], ["r2"])
    await change(broker)
    with pytest.raises(OpenlineError) as refused:
        await change(broker, level=pb.LOG_LEVEL_DEBUG, replica_id="r2")
    assert refused.value.reason is Reason.BROKER_UNAVAILABLE
    assert "r2" in refused.value.error.message
    assert LOUDNESS.level == "info"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"for_s": math.nan}, "for_s"),
        ({"for_s": -1}, "for_s"),
        ({"for_s": MAX_S + 1}, "for_s"),
        ({"replica_id": "two words"}, "replica_id"),
        ({"replica_id": "nobody"}, "replica_id"),
        ({"level": 99}, "level"),
    ],
)
async def test_what_cannot_be_is_refused(broker: Any, fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(OpenlineError) as refused:
        await change(broker, **fields)
    assert [each.field for each in refused.value.error.violations] == [wrong]
    assert LOUDNESS.level == "info"


async def test_who_sees_only_some_clusters_may_not(start_broker: Any) -> None:
    """A log tells of all of them."""
    async with start_broker(extra_keys=[f"pat:{OF_PROD}:admin@prod*"]) as broker:
        with pytest.raises(OpenlineError) as refused:
            await change(broker, OF_PROD, level=pb.LOG_LEVEL_DEBUG)
    assert refused.value.reason is Reason.SCOPE_MISSING
    assert LOUDNESS.level == "info"


async def test_the_audit_trail_has_it(broker: Any) -> None:
    await change(broker, level=pb.LOG_LEVEL_DEBUG)
    await change(broker)
    stub = AdminServiceStub(broker.channel())
    async with asyncio.timeout(PATIENCE_S):
        while True:
            page = await stub.ListAuditEntries(pb.ListAuditEntriesRequest(), metadata=(("x-api-key", AUDITOR),))
            found = [entry for entry in page.entries if entry.action == "set_log_level"]
            if len(found) == 2:
                break
            await asyncio.sleep(0.02)
    assert [(entry.owner, entry.detail) for entry in found] == [
        ("root", "as started on every replica"),
        ("root", "debug on every replica"),
    ]
