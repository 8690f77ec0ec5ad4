"""What a cluster allows, as its executors have said it."""

from collections.abc import Iterable

from pydantic import BaseModel, Field

from openline.policy import Allowed, Denied, Policy, Selection, judge
from openline.policy.wire import policy_of
from openline.v1 import cluster_service_pb2
from openline.v1.executor_service_pb2 import Capabilities


class NamesAnswer(BaseModel):
    """Names that are allowed, all if null; and of those none that are denied."""

    allowed: list[str] | None
    denied: list[str]


class PolicyAnswer(BaseModel):
    """What of an executor's policy its owner decided; docs/policy.md says what holds in any case."""

    digest: str = Field(description="The same for the same policy.")
    resources: NamesAnswer = Field(description="Secrets are denied besides.")
    namespaces: NamesAnswer = Field(description="`*` stands for any letters.")
    max_output_bytes: int
    masks_secrets: bool
    masks_values: bool


def policy_answer(capabilities: Capabilities) -> PolicyAnswer | None:
    """None for an executor that does not say."""
    policy = policy_of(capabilities)
    if policy is None:
        return None
    return PolicyAnswer(
        digest=capabilities.policy.digest,
        resources=_names(policy.types),
        namespaces=_names(policy.namespaces),
        max_output_bytes=policy.output.max_bytes,
        masks_secrets=policy.masking.secrets,
        masks_values=policy.masking.values,
    )


def policies_of(cluster: cluster_service_pb2.Cluster) -> list[Policy]:
    """Of its connected executors, each once; empty where nobody knows."""
    said = (policy_of(executor.capabilities) for executor in cluster.executors)
    return list(dict.fromkeys(policy for policy in said if policy is not None))


def judge_by_all(
    argv: list[str], policies: Iterable[Policy], *, streamed: bool, remaining_s: float
) -> Allowed | Denied:
    """What any of these would answer who denies it, else one of them: nobody knows which executor will get it."""
    verdicts = [judge(argv, policy, streamed=streamed, remaining_s=remaining_s) for policy in policies]
    return next((verdict for verdict in verdicts if isinstance(verdict, Denied)), verdicts[0])


def _names(selection: Selection) -> NamesAnswer:
    return NamesAnswer(allowed=None if selection.allow is None else list(selection.allow), denied=list(selection.deny))
