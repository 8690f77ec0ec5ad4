"""What to do about a refusal, for whoever was refused: often a model, which plans its next call by it.

One table, which says what is so whenever the reason is; who refuses may know more, and says it in the error's metadata
(see `errors.next_step`). The words are those of the contract's fields, which every protocol has under the same names.
"""

from openline.reasons import Reason

NEXT_STEPS: dict[Reason, str] = {
    Reason.CLUSTER_UNKNOWN: (
        "Use one of the names in `available`; if yours should be there, ask for a key that sees the cluster."
    ),
    Reason.CLUSTER_OFFLINE: (
        "Ask again later, or with `wait_for_cluster_s` (up to 300), which runs the command as soon as the cluster "
        "connects. Other clusters can be asked meanwhile."
    ),
    Reason.CLUSTER_BUSY: "Ask again after a moment, and for fewer commands at a time.",
    Reason.QUOTA_EXCEEDED: (
        "Ask again when the retry time is over, and for less: one command for many objects instead of one for each."
    ),
    Reason.POLICY_DENIED: (
        "Ask for something that `allowed` names; the same command will be denied again. Clusters can only be read."
    ),
    Reason.INVALID_COMMAND: (
        'Correct the fields that are named. A command is a list of words, such as ["get", "pods", "-n", "shop"].'
    ),
    Reason.UNAUTHENTICATED: (
        "Send a good API key, as `Authorization: Bearer …` or `X-API-Key`. An admin makes keys; this one stays refused."
    ),
    Reason.SCOPE_MISSING: "Ask an admin for a key that may do this; this one stays refused.",
    Reason.SESSION_UNKNOWN: "Leave `session_id` out, for it is optional; or begin a new session and use its id.",
    Reason.SESSION_MISMATCH: "Leave `session_id` out, for it is optional; or use a session of this cluster.",
    Reason.IDEMPOTENCY_CONFLICT: "Use a new idempotency key: this one stands for an earlier, different command.",
    Reason.EXECUTOR_LOST: "Ask again, as a new command: commands only read, so it does no harm if this one has run.",
    Reason.COMMAND_TIMEOUT: (
        "Use the output so far. Then ask for less (a namespace, a name, -l, --tail, --since) or with a longer timeout."
    ),
    Reason.CANCELLED: "See in the message who stopped it and why, and ask again only if it is still wanted.",
    Reason.RESULT_EXPIRED: "Run the command again, as a new one: results are kept for a limited time.",
    Reason.COMMAND_UNKNOWN: (
        "Check the id, which the answer to the command had; commands can be listed. Only their owner's keys find them."
    ),
    Reason.EXECUTOR_FAILED: "Ask again once. If it fails again, tell whoever runs the cluster's executor the message.",
    Reason.STORE_UNAVAILABLE: (
        "Ask again after a moment. A new command without session and idempotency key does not need what is away."
    ),
    Reason.BROKER_UNAVAILABLE: (
        "Ask again after a moment. If there is a `command_id`, look it up first: the command may have run."
    ),
    Reason.PROTOCOL_VIOLATION: "Report it: the program that asked has a defect, which asking again does not mend.",
    Reason.VERSION_UNSUPPORTED: "Upgrade the older one of the two programs.",
    Reason.TOKEN_EXISTS: "Choose another token, or leave it out to have one made.",
    Reason.TOKEN_UNKNOWN: "List the cluster's tokens, and use one of their ids.",
    Reason.KEY_EXISTS: "Choose another key, or leave it out to have one made.",
    Reason.KEY_UNKNOWN: "List the keys, and use one of their ids.",
    Reason.NOT_BUILT: "Do without it, or have the brokers upgraded.",
    Reason.INTERNAL: "Ask again once. If it fails again, report it with the request id.",
}
