"""What comes nearest to what is asked for in vain, where its name does not tell: verbs, types, a shell. Data."""

import re

_OBJECTS = "get and describe, which show what it would have changed; nothing can be changed here"
_WITHIN = (
    "logs (also with --previous) and describe, which show what a container wrote and what became of it; nobody gets in"
)
_NODE = "describe node, which shows what runs there; nothing can be changed here"
_ROLLOUT = "rollout status and rollout history; nothing can be changed here"
_SHELL = (
    "the grep, tail and jsonpath of the request itself, or kubectl's -l, --field-selector, -o jsonpath=… and --tail"
)

# By the verb as it was written, the first word of it or both.
VERBS_INSTEAD = {
    **dict.fromkeys(
        ("annotate", "apply", "autoscale", "create", "delete", "edit", "expose", "label", "patch", "replace", "set"),
        _OBJECTS,
    ),
    **dict.fromkeys(("attach", "cp", "debug", "exec", "port-forward", "proxy"), _WITHIN),
    **dict.fromkeys(("cordon", "drain", "taint", "uncordon"), _NODE),
    **dict.fromkeys(("rollout pause", "rollout restart", "rollout resume", "rollout undo"), _ROLLOUT),
    **dict.fromkeys(("awk", "bash", "cat", "curl", "grep", "head", "jq", "sed", "sh", "tail", "wc", "wget"), _SHELL),
    "certificate": "get csr",
    "config": "auth whoami, which says who the executor is, or cluster-info, which says which cluster it asks",
    "diff": "get -o yaml, which shows what is there",
    "helm": "get all -l app.kubernetes.io/managed-by=Helm",
    "list": "get",
    "ls": "get",
    "ps": "get pods",
    "run": "get pods; nothing can be changed here",
    "scale": "get deployments, which shows how many replicas there are; nothing can be changed here",
    "show": "get and describe",
    "wait": "rollout status --timeout=…, or get again after a while, or get --watch on a streaming call",
}

# Of types that no policy allows, by the plural.
TYPES_INSTEAD = {
    "secrets": (
        "Secrets hold credentials, and no policy allows them. Which ones a pod uses, describe pod tells; that one is "
        "missing, the pod's events do."
    ),
}

# Words that mean something to a shell alone: `|`, `&&`, `;`, `2>&1`, `>file`, `<<EOF`.
OF_A_SHELL = re.compile(r"\|{1,2}&?|&{1,2}|;{1,2}|[0-9&]?>{1,2}(&[0-9-]|/\S*)?|>\S+|<{1,3}\S*")
# What a shell would look for within a word.
IN_A_SHELL = re.compile(r"[|&;<>`]|\$[({]")
WITHOUT_A_SHELL = f"one command and no pipes; instead of what follows: {_SHELL}"
