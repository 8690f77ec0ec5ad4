"""Which keys may call which method: one table, and no method without a row in it."""

from collections.abc import Mapping
from dataclasses import dataclass

from broker.core.credentials import Caller


@dataclass(frozen=True, slots=True)
class Rule:
    """What a method takes of the key that calls it."""

    scope: str = ""
    # This one will do as well.
    or_scope: str = ""
    # Where the request names a cluster, which for a key that does not see it is one that does not exist.
    cluster_field: str = ""
    # Anybody may call it; whom what is within then belongs to, it finds out by itself.
    is_open: bool = False

    def check(self, caller: Caller) -> None:
        """Raises SCOPE_MISSING."""
        if not self.is_open:
            caller.require(self.scope, or_scope=self.or_scope)


# By full name. A server does not start with a method that is not here.
RULES: Mapping[str, Rule] = {
    # Probes and load balancers have no key.
    f"grpc.health.v1.Health.{name}": Rule(is_open=True)
    for name in ("Check", "List", "Watch")
} | {
    f"openline.v1.{name}": rule
    for name, rule in {
        # An executor shows a token for the cluster of its Hello.
        "ExecutorService.Connect": Rule(is_open=True),
        # Each frame has the key of whom it is for, and is held to the rule of the method that does the same.
        "CommandService.Pipe": Rule(is_open=True),
        "CommandService.Execute": Rule("execute", cluster_field="cluster_id"),
        # Held to the rule of Execute, in whichever way it comes.
        "CommandService.ExecuteStream": Rule("execute", cluster_field="execute.cluster_id"),
        "CommandService.GetCommand": Rule("read"),
        "CommandService.WatchCommand": Rule("read"),
        # An admin can cancel all of them, and so one.
        "CommandService.CancelCommand": Rule("execute", or_scope="admin"),
        "CommandService.CancelCommands": Rule("execute"),
        "CommandService.ListCommands": Rule("read", cluster_field="cluster_id"),
        "SessionService.CreateSession": Rule("session", cluster_field="cluster_id"),
        "SessionService.GetSession": Rule("session"),
        "SessionService.ListSessions": Rule("session", cluster_field="cluster_id"),
        "SessionService.DeleteSession": Rule("session"),
        "ClusterService.ListClusters": Rule("read", or_scope="admin"),
        "ClusterService.GetCluster": Rule("read", or_scope="admin", cluster_field="cluster_id"),
        "ClusterService.WatchClusters": Rule("read", or_scope="admin"),
        "AdminService.CreateExecutorToken": Rule("admin", cluster_field="cluster_id"),
        "AdminService.ListExecutorTokens": Rule("admin", cluster_field="cluster_id"),
        "AdminService.RevokeExecutorToken": Rule("admin", cluster_field="cluster_id"),
        "AdminService.CreateApiKey": Rule("admin"),
        "AdminService.ListApiKeys": Rule("admin"),
        "AdminService.RevokeApiKey": Rule("admin"),
        "AdminService.Drain": Rule("admin"),
        "AdminService.GetOverview": Rule("admin"),
        "AdminService.WatchOverview": Rule("admin"),
        "AdminService.CancelAll": Rule("admin", cluster_field="cluster_id"),
        "AdminService.ListAuditEntries": Rule("audit", cluster_field="cluster_id"),
        "AdminService.SetLogLevel": Rule("admin"),
    }.items()
}


def rule(method: str) -> Rule:
    """Of a method such as `AdminService.Drain`."""
    return RULES[f"openline.v1.{method}"]
