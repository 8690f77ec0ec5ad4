"""The keys in Redis: what each means, its type, how long it lives and who writes it.

A part in braces that stays in the key is a Redis Cluster hash tag: a command's and a cluster's keys share a slot.
Nothing is without a TTL.
"""

# The cluster was used lately. Other programs read it, so the name is fixed and has no hash tag.
# string, the instant of the last Execute as seconds since 1970; 60 s; by the replica that took the Execute, at most
# once a second.
ACTIVE_S = 60
ACTIVE_EVERY_S = 1.0


def active(cluster_id: str) -> str:
    return f"cluster:active:{cluster_id}"


# What is known of a cluster: when one of its executors was last connected.
# string, openline.v1.Cluster; 30 days, so that a cluster which is gone is forgotten; by the replica that holds a
# connection of it, on connect, on disconnect and every 5 s between.
SEEN_S = 30 * 24 * 3600
SEEN_EVERY_S = 5.0


def seen(cluster_id: str) -> str:
    return f"openline:cluster:{{{cluster_id}}}:seen"


# Presence: which executors of the cluster are connected, on which replica.
# hash, executor id to epoch, expiry and openline.v1.ConnectedExecutor (see epochs); the key and each field 20 s,
# refreshed every 5 s; by the same. One of a higher epoch replaces one of a lower, never the other way round.
PRESENCE_S = 20


def presence(cluster_id: str) -> str:
    return f"openline:cluster:{{{cluster_id}}}:presence"


# Which replicas there are.
# hash, replica id to epoch, expiry and openline.v1.Replica; as presence; by the replica itself.
REPLICAS = "openline:replicas"

# What all replicas agree on: the first one's proposal.
# strings; a day, begun anew by every replica again and again, so that they last while one runs; by all.
AGREED_S = 24 * 3600
# Tells one Redis from another, and from the same one after it has lost everything.
MARK = "openline:mark"
# What replicas show each other. Whoever can read this Redis can speak as a replica.
PEER_SECRET = "openline:peer-secret"  # noqa: S105

# A channel, no key: changes of presence, each as openline.v1.Cluster with the one executor that has come or gone.
# By the scripts that write presence, so that nobody is told what was not written.
NEWS = "openline:presence"


# A command that is done, with its result.
# string, openline.v1.Command; --result-ttl; by the replica that took the Execute.
def command(command_id: str) -> str:
    return f"openline:command:{{{command_id}}}:record"


# The claim of an idempotency key, which its owner's requests share: made before anything is dispatched.
# string, the request's fingerprint and the id of the command that was made for it; --result-ttl and as long as the
# command may wait and run; by the replica that takes the first Execute with it.
def claim(digest: str) -> str:
    return f"openline:idempotency:{{{digest}}}:claim"


# An AI agent's conversation with a cluster.
# string, openline.v1.Session; its own ttl_s, begun anew by every Execute with it; by the replica that is asked.
def session(session_id: str) -> str:
    return f"openline:session:{{{session_id}}}"


# Whether a cluster has a session: the id of the last one made or used. string; that session's TTL; by the same.
def cluster_session(cluster_id: str) -> str:
    return f"openline:cluster:{{{cluster_id}}}:session"


# What a caller with a quota has used, as each replica counts it: see quotas.
# hash, an id that each broker process makes up to: window, commands in it, commands in flight, until when those count;
# two windows, begun anew whenever a replica tells of its counts, which is every 0.25 s while they change; by every
# replica that was asked by that caller.
QUOTA_S = 120


def quota(digest: str) -> str:
    return f"openline:quota:{{{digest}}}"
