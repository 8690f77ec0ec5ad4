"""An overview as a terminal shows it: a line of totals, replicas, errors, what runs, and the busiest clusters.

What others have named goes out as text: no markup of rich's, and no character that a terminal would obey.
"""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from broker.rates import History
from openline.v1 import cluster_service_pb2, command_pb2, overview_pb2

RATE_OVER_S, LATENCY_OVER_S = 5.0, 60.0
# Lines that are not rows: the totals, and what is above and below each table.
FRAME_LINES = 13
FEWEST_ROWS = 3
# From here on there is room to say which executor has a command.
WIDE = 140
STATES = {
    command_pb2.COMMAND_STATE_QUEUED: ("waits", "dim"),
    command_pb2.COMMAND_STATE_FORWARDED: ("forwarded", "dim"),
    command_pb2.COMMAND_STATE_WRITTEN: ("sent", "dim"),
    command_pb2.COMMAND_STATE_ACCEPTED: ("accepted", "dim"),
    command_pb2.COMMAND_STATE_RUNNING: ("running", "green"),
}


def screen(overview: overview_pb2.Overview, history: History, *, width: int, height: int, lost: str = "") -> Group:
    """`lost` says why it is old."""
    rows = max(2 * FEWEST_ROWS, height - FRAME_LINES - len(overview.replicas))
    busiest = min(max(FEWEST_ROWS, rows // 3), max(1, len(overview.clusters)))
    parts: list[RenderableType] = [_totals(overview, history, lost), Text(), _replicas(overview)]
    if overview.is_whole:
        parts += [Text(), _errors(history, width)]
    parts += [Text(), _commands(overview, rows - busiest, width), Text(), _clusters(overview, busiest)]
    return Group(*parts)


def _totals(overview: overview_pb2.Overview, history: History, lost: str) -> Text:
    now, minute = history.over(RATE_OVER_S), history.over(LATENCY_OVER_S)
    reachable = sum(replica.reachable for replica in overview.replicas)
    clusters = len(overview.clusters) + overview.more_clusters
    line = Text.assemble(("openline", "bold"), no_wrap=True, overflow="ellipsis")
    figures = [
        (f"{reachable}/{len(overview.replicas)}", "replicas"),
        (f"{overview.connected_clusters}/{clusters}", "clusters"),
        (str(len(overview.commands) + overview.more_commands), "in flight"),
    ]
    if overview.is_whole:
        figures.append((_rate(now.per_second), "commands/s"))
        figures += [(_seconds(minute.total.percentile(share / 100)), f"p{share}") for share in (50, 95, 99)]
        figures.append(("–" if minute.error_share is None else f"{minute.error_share:.1%}", "errors"))
    for figure, name in figures:
        line.append("  ").append(figure, "bold").append(f" {name}", "dim")
    if lost:
        line.append("  stale: ", "bold red").append(plain(lost).plain, "red")
    return line


def _replicas(overview: overview_pb2.Overview) -> Table:
    table = _table("REPLICA", "STATE", "VERSION", ">EXECUTORS", ">IN FLIGHT", "REDIS")
    for shown in overview.replicas:
        replica = shown.replica
        state, style = ("answers", "green") if shown.reachable else ("does not answer", "bold red")
        if shown.reachable and replica.draining:
            state, style = "drained", "yellow"
        in_flight = sum(each.commands for each in shown.in_flight if each.state != command_pb2.COMMAND_STATE_FORWARDED)
        redis = Text("–", "dim")
        if shown.HasField("figures"):
            degraded = shown.figures.redis_degraded
            redis = Text("degraded", "bold red") if degraded else Text("takes writes", "green")
        table.add_row(
            plain(replica.replica_id or replica.address),
            Text(state, style),
            plain(shown.version or "–"),
            str(replica.executors) if shown.reachable else "–",
            str(in_flight) if shown.reachable else "–",
            redis,
        )
    return table


def _errors(history: History, width: int) -> Text:
    ends = history.over(LATENCY_OVER_S).ends
    reasons = [(reason, count) for (_, reason), count in ends.most_common() if reason and count]
    line = Text("errors of the last minute", "dim", no_wrap=True, overflow="ellipsis")
    for reason, count in reasons:
        line.append(f"  {plain(reason)} ", "red").append(str(count), "bold")
    if not reasons:
        line.append("  none")
    line.truncate(width)
    return line


def _commands(overview: overview_pb2.Overview, most: int, width: int) -> Table:
    has_room = width >= WIDE
    table = _table("STATE", ">FOR", "CLUSTER", "COMMAND", "OWNER", *(["EXECUTOR"] if has_room else []), "REPLICA")
    shown = overview.commands[:most]
    for each in shown:
        command = each.command
        state, style = STATES.get(command.state, ("?", ""))
        if each.cancelling:
            state, style = "cancelling", "yellow"
        table.add_row(
            Text(state, style),
            _seconds(each.elapsed_s),
            plain(command.cluster_id),
            plain(" ".join(command.argv)),
            plain(command.owner),
            *([plain(each.executor_id)] if has_room else []),
            plain(each.replica_id),
        )
    if more := len(overview.commands) + overview.more_commands - len(shown):
        table.add_row("", "", "", Text(f"… and {more} more", "dim"))
    if not shown:
        table.add_row(Text("nothing runs", "dim"))
    return table


def _clusters(overview: overview_pb2.Overview, most: int) -> Table:
    table = _table("CLUSTER", "STATE", ">RUNNING", "EXECUTORS", "REPLICA")

    def load(cluster: cluster_service_pb2.Cluster) -> tuple[int, float, bool]:
        # What is away is of more interest than what is idle.
        return (-_running(cluster), -cluster.active_for_s, cluster.connected)

    for cluster in sorted(overview.clusters, key=load)[:most]:
        state, style = ("connected", "green") if cluster.connected else ("away", "bold red")
        table.add_row(
            plain(cluster.cluster_id),
            Text(f"{state}, active" if cluster.active else state, style),
            _load(cluster),
            _executors(cluster),
            _names(sorted({executor.replica_id for executor in cluster.executors})),
        )
    if more := max(0, len(overview.clusters) + overview.more_clusters - most):
        table.add_row(Text(f"… and {more} more", "dim"))
    return table


def plain(text: str) -> Text:
    """Characters that show, on one line; the others as `·`."""
    return Text("".join(each if each.isprintable() else "·" for each in text))


def _running(cluster: cluster_service_pb2.Cluster) -> int:
    return sum(executor.running for executor in cluster.executors)


def _load(cluster: cluster_service_pb2.Cluster) -> str:
    """Of the executors that are shown; there may run more on the others."""
    if not cluster.executors:
        return "–"
    places = sum(executor.max_concurrency for executor in cluster.executors)
    return f"{'≥' if cluster.more_executors else ''}{_running(cluster)}/{places}"


def _executors(cluster: cluster_service_pb2.Cluster) -> Text:
    names = _names(executor.executor_id for executor in cluster.executors)
    return names.append(f" and {cluster.more_executors} more", "dim") if cluster.more_executors else names


def _names(names: Iterable[str]) -> Text:
    return plain(", ".join(names))


def _table(*columns: str) -> Table:
    """`>` before a name puts its column to the right."""
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(
            name.removeprefix(">"),
            justify="right" if name.startswith(">") else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=3 if name == "COMMAND" else None,
        )
    return table


def _rate(per_second: float | None) -> str:
    return "–" if per_second is None else f"{per_second:,.1f}" if per_second < 100 else f"{per_second:,.0f}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f}:{seconds % 60:02.0f}"
