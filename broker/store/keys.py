"""The keys in Redis: what each means, its type, how long it lives and who writes it.

A part in braces that stays in the key is a Redis Cluster hash tag: a command's and a cluster's keys share a slot.
Nothing is without a TTL but credentials, which end when they are revoked or expire by themselves, and the audit trail,
which has a length.
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
# connection of it, on connect, on disconnect and every 10 s between.
SEEN_S = 30 * 24 * 3600
SEEN_EVERY_S = 10.0


def seen(cluster_id: str) -> str:
    return f"openline:cluster:{{{cluster_id}}}:seen"


# Presence: which executors of the cluster are connected, on which replica.
# hash, executor id to epoch, expiry and openline.v1.ConnectedExecutor (see epochs); the key and each field 30 s,
# refreshed every 10 s; by the same. One of a higher epoch replaces one of a lower, never the other way round.
PRESENCE_S = 30


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
PEER_SECRET = "openline:peer-secret"  # noqa: S105  (a name in Redis, not the secret)

# A channel, no key: changes of presence, each as openline.v1.Cluster with the one executor that has come or gone.
# By the scripts that write presence, so that nobody is told what was not written.
NEWS = "openline:presence"

# Executor tokens: those that were created, and those that were revoked, whatever they were from.
# hash, cluster id and SHA-256 of the token to what is known of it (see tokens), and one field for the version, which is
# another random word after each change; no TTL: a token that went by itself would cut a cluster off, and one that was
# revoked would come back. At most 100,000 fields. By the replica that is asked to create or to revoke, and by any that
# finds Redis to have lost some. Never by hand: replicas remember what was there.
TOKENS = "openline:executor-tokens"
MAX_TOKENS = 100_000

# A channel, no key: what has changed there, with the versions before and after. By the script that writes it.
TOKEN_NEWS = "openline:executor-token-news"  # noqa: S105  (a channel's name)

# API keys, likewise: those that were created, and those that were revoked.
# hash, SHA-256 of the key to what is known of it (see api_keys), and the version; no TTL, for the same reasons. At most
# 10,000 fields, each of which may have a hundred patterns. By the same, and never by hand.
API_KEYS = "openline:api-keys"
MAX_API_KEYS = 10_000

# A channel, no key: what has changed there, as for tokens.
API_KEY_NEWS = "openline:api-key-news"


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


# Lists. UUIDv7s sort by the time they were made, so each is a sorted set without scores, read by its members' order.

# An owner's sessions.
# sorted set, session ids; two hours, which no session outlives unused, begun anew by create and use; the oldest are
# dropped beyond a bound, and those that are gone when they are read; by the replica that is asked.
OWNED_SESSIONS_S = 2 * 3600
MAX_OWNED_SESSIONS = 10_000


def owned_sessions(owner: str) -> str:
    return f"openline:owner:{{{owner}}}:sessions"


# Commands, by whose they are: an owner's, those of an owner's conversation, those of a session.
# sorted set, command id, 1 if it is done or else 0, and openline.v1.Command without output, so that a list is one look;
# --result-ttl, begun anew by every command of the list; the oldest are dropped beyond a bound; by the replica that has
# the command, some at a time behind the answer. One that ends within that moment is written once, any other twice.
MAX_OWNED_COMMANDS = 10_000
MAX_GROUPED_COMMANDS = 1_000


def owned_commands(owner: str) -> str:
    return f"openline:owner:{{{owner}}}:commands"


def conversation_commands(owner: str, correlation_id: str) -> str:
    return f"openline:owner:{{{owner}}}:correlation:{correlation_id}:commands"


def session_commands(session_id: str) -> str:
    return f"openline:session:{{{session_id}}}:commands"


# Who did what.
# stream, openline.v1.AuditEntry as the field `entry`; no TTL, since whoever asks may ask late, but about as many
# entries as --audit-max-entries says; by the replica that has the command, some at a time behind the answer.
AUDIT = "openline:audit"


# What a caller with a quota has used, or a conversation that has one, as each replica counts it: see quotas.
# hash, an id that each broker process makes up to: window, commands in it, commands in flight, until when those count;
# two windows, begun anew whenever a replica tells of its counts, which is every 0.25 s while they change; by every
# replica that was asked by that caller.
QUOTA_S = 120


def quota(digest: str) -> str:
    return f"openline:quota:{{{digest}}}"
