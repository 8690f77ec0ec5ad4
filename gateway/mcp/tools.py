"""What each tool does, in the functions that the REST routes call as well."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from gateway.answers import instant
from gateway.argv import Unacceptable
from gateway.calling_off import cancel_one
from gateway.cluster_answers import labels_of
from gateway.command_answers import Wish, state_name
from gateway.cursors import BadCursor, read_cursor
from gateway.fanout import choose
from gateway.mcp.advising import LABELS
from gateway.mcp.arguments import (
    MAX_PAGE_CHARS,
    CancelArguments,
    ClustersArguments,
    FanoutArguments,
    KubectlArguments,
    ResultArguments,
)
from gateway.mcp.call import Call, ended
from gateway.mcp.many import run_in_many
from gateway.mcp.running import run
from gateway.mcp.telling import Told, clusters_text, failed, refused, told
from gateway.requests import command_request, fanout_requests
from gateway.selectors import BadSelector, parse_selector
from gateway.shaping_models import LookFields, ShapingFields
from gateway.showing import show
from gateway.stubs import Stubs
from openline.errors import OpenlineError
from openline.lookups import TIMEOUT_S
from openline.v1 import cluster_service_pb2

PAGE = 100

Tool = Callable[["Tools", Mapping[str, Any], Call], Awaitable[Told]]


class Tools:
    """By name in `TOOLS`. Whatever a call comes to is told, not raised."""

    def __init__(self, stubs: Stubs) -> None:
        self._stubs = stubs

    async def call(self, name: str, given: Mapping[str, Any], call: Call) -> Told:
        """Raises KeyError for a tool that there is not."""
        tool = TOOLS[name]
        try:
            try:
                return await tool(self, given, call)
            except Unacceptable as wrong:
                # No broker may have seen the key yet, and a wrong one comes before anything else.
                await self._stubs.refuse_wrong_key(call.caller)
                return refused(wrong)
        except OpenlineError as failure:
            facts = call.caller.exchange.facts
            facts["reason"] = failure.reason
            return failed(failure, command_id=str(facts.get("command_id", "")))

    async def kubectl(self, given: Mapping[str, Any], call: Call) -> Told:
        arguments = KubectlArguments.read(given)
        body = arguments.body()
        wish = Wish(shaping=body.shaping("body"))
        request = command_request(arguments.cluster, body, arguments.asked_by(call.caller))
        call.give_ids([request])
        facts = call.caller.exchange.facts
        facts.update(cluster_id=request.cluster_id, command_id=request.command_id)
        await self._stubs.check_ids(request, call.caller)
        answer = await show(await run(request, call), wish)
        facts["outcome"] = answer.outcome or ""
        return told(answer, timeout_s=request.timeout_s)

    async def kubectl_fanout(self, given: Mapping[str, Any], call: Call) -> Told:
        arguments = FanoutArguments.read(given)
        body = arguments.body()
        wish = Wish(shaping=body.shaping("body"))
        chosen, unknown = await choose(body, call.caller, self._stubs)
        requests = fanout_requests(chosen, body, arguments.asked_by(call.caller))
        call.give_ids(requests)
        call.caller.exchange.facts["clusters"] = len(requests)
        return await run_in_many(requests, call, wish, labels_unknown=unknown)

    async def get_result(self, given: Mapping[str, Any], call: Call) -> Told:
        look = ResultArguments.read(given)
        command_id, wish = _looked_for(look)
        await self._stubs.check_command_id(command_id, call.caller)
        call.caller.exchange.facts["command_id"] = command_id
        # When the wait is over there is still an answer to come.
        wait_s = min(look.wait_seconds, max(0.0, call.left_s() - TIMEOUT_S))
        looking = asyncio.create_task(self._stubs.get_command(command_id, call.caller, wait_s=wait_s), name="mcp-look")
        async with ended(looking):
            # The look itself has a bound in time.
            while not await call.wait(looking, wait_s=wait_s + TIMEOUT_S, describe=lambda: "waiting"):
                pass
        return told(await show(looking.result(), wish))

    async def cancel(self, given: Mapping[str, Any], call: Call) -> Told:
        command_id = CancelArguments.read(given).command_id
        await self._stubs.check_command_id(command_id, call.caller)
        call.caller.exchange.facts["command_id"] = command_id
        cancelled = await cancel_one(call.pipes, command_id, call.caller)
        fields = {
            "command_id": command_id,
            "state": state_name(cancelled.state),
            "next_step": "get_result shows its output.",
        }
        said = "had ended before, and stays as it is" if fields["state"] == "done" else "is being stopped"
        return Told(f"{command_id} {said}; {fields['next_step']}", fields)

    async def list_clusters(self, given: Mapping[str, Any], call: Call) -> Told:
        arguments = ClustersArguments.read(given)
        try:
            selector = parse_selector(arguments.selector) if arguments.selector else None
        except BadSelector as why:
            raise Unacceptable("selector", str(why)) from None
        clusters = [
            each
            for each in await self._stubs.list_all_clusters(call.caller)
            if each.cluster_id > (arguments.after or "") and (selector is None or _fits(each, selector.fits))
        ]
        page = [_cluster_fields(each) for each in clusters[:PAGE]]
        fields: dict[str, Any] = {"clusters": page}
        if left := len(clusters) - len(page):
            fields |= {"next": page[-1]["cluster"], "left": left}
        if selector is not None and not page and not arguments.after:
            fields["next_step"] = LABELS
        return Told(clusters_text(fields), fields)


TOOLS: dict[str, Tool] = {
    "kubectl": Tools.kubectl,
    "list_clusters": Tools.list_clusters,
    "kubectl_fanout": Tools.kubectl_fanout,
    "get_result": Tools.get_result,
    "cancel": Tools.cancel,
}


def _looked_for(look: ResultArguments) -> tuple[str, Wish]:
    """Which command, and what of it. A cursor has both in it. Raises Unacceptable."""
    if look.cursor is None:
        if look.command_id is None:
            raise Unacceptable("command_id", "give a command_id or a cursor")
        return look.command_id, Wish(shaping=look.shaping("body"))
    if look.model_fields_set & ShapingFields.model_fields.keys():
        raise Unacceptable("cursor", "a cursor brings its own shaping; give nothing else")
    try:
        command_id = read_cursor(look.cursor).command_id
    except BadCursor as wrong:
        raise Unacceptable("cursor", str(wrong)) from None
    shaping, offset = LookFields.model_validate({"cursor": look.cursor}).page(look.command_id or command_id)
    # One of REST may be of longer pages.
    bounded = replace(shaping, max_chars=min(shaping.max_chars or MAX_PAGE_CHARS, MAX_PAGE_CHARS))
    return command_id, Wish(shaping=bounded, offset=offset)


def _fits(cluster: cluster_service_pb2.Cluster, fits: Callable[[Mapping[str, str]], bool]) -> bool:
    return bool(cluster.executors) and fits(labels_of(cluster))


def _cluster_fields(cluster: cluster_service_pb2.Cluster) -> dict[str, Any]:
    last_seen = instant(cluster.last_seen)
    fields: dict[str, Any] = {"cluster": cluster.cluster_id, "connected": cluster.connected}
    if last_seen is not None and not cluster.connected:
        fields["last_seen"] = last_seen.isoformat(timespec="seconds")
    if labels := labels_of(cluster):
        fields["labels"] = labels
    if version := next((each.versions.kubernetes for each in cluster.executors if each.versions.kubernetes), ""):
        fields["kubernetes"] = version
    return fields
