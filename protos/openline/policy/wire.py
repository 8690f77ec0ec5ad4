"""A policy and its decisions in the words of the contract."""

from collections.abc import Iterable

from openline.errors import NEXT_STEP, error
from openline.policy.denial import Denied
from openline.policy.policy import Masking, Output, Policy
from openline.policy.selection import Selection
from openline.policy.tables import VERBS
from openline.reasons import Reason
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

# Of types and of namespaces.
MAX_NAME_CHARACTERS = 63


def denied_error(denied: Denied) -> command_pb2.Error:
    """POLICY_DENIED, with the rule and what is allowed instead; nothing was executed."""
    metadata = {"rule": denied.rule.value, "allowed": denied.allowed}
    more = {"nearest": denied.nearest, NEXT_STEP: denied.next_step}
    metadata.update({name: value for name, value in more.items() if value})
    return error(Reason.POLICY_DENIED, denied.message, metadata=metadata)


def capabilities_of(policy: Policy) -> wire.Capabilities:
    """What Hello says of it."""
    return wire.Capabilities(
        verbs=policy.verbs,
        streaming=True,
        policy=wire.PolicySummary(
            digest=policy.digest,
            types=_summary(policy.types),
            namespaces=_summary(policy.namespaces),
            max_output_bytes=policy.output.max_bytes,
            max_log_lines=policy.output.max_log_lines,
            max_log_bytes=policy.output.max_log_bytes,
            masks_secrets=policy.masking.secrets,
            masks_values=policy.masking.values,
        ),
    )


def policy_of(capabilities: wire.Capabilities) -> Policy | None:
    """The policy that an executor has said it has; None if it has not.

    Verbs that this version does not know are left out: it could not say what they would run as.
    """
    if not capabilities.HasField("policy"):
        return None
    said = capabilities.policy
    return Policy(
        verbs=tuple(verb for verb in capabilities.verbs if verb in VERBS),
        types=_selection(said.types),
        namespaces=_selection(said.namespaces),
        output=Output(
            max_bytes=said.max_output_bytes, max_log_lines=said.max_log_lines, max_log_bytes=said.max_log_bytes
        ),
        masking=Masking(secrets=said.masks_secrets, values=said.masks_values),
    )


def _summary(selection: Selection) -> wire.NameSelection:
    return wire.NameSelection(
        is_limited=selection.allow is not None, allowed=selection.allow or (), denied=selection.deny
    )


def _selection(said: wire.NameSelection) -> Selection:
    return Selection(_names(said.allowed) if said.is_limited else None, _names(said.denied))


def _names(said: Iterable[str]) -> tuple[str, ...]:
    """Without what can be no name; it is somebody else's word, and is kept compiled."""
    return tuple(name for name in said if len(name) <= MAX_NAME_CHARACTERS)
