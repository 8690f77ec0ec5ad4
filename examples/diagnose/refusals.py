"""What to do when openline says no: ask again, of another cluster or later; do without; or give up. Pure."""

from dataclasses import dataclass

from .words import Refusal

# What is said of this one command and of no other: another one may tell as much.
OF_THIS_COMMAND = {"POLICY_DENIED", "COMMAND_TIMEOUT", "CANCELLED"}

MIN_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Again:
    """openline only runs what reads, so it is safe to run it twice, whatever became of the first."""

    cluster: str
    wait_s: float
    said: str


@dataclass(frozen=True, slots=True)
class DoWithout:
    said: str


@dataclass(frozen=True, slots=True)
class Stop:
    said: str


def react(refusal: Refusal, *, cluster: str, patience_s: float) -> Again | DoWithout | Stop:
    """`patience_s` is for how much longer it may be waited."""
    said = f"{refusal.reason}: {refusal.message.rstrip('.')}"
    if not said.endswith(("?", "!")):
        said += "."
    if refusal.reason == "CLUSTER_UNKNOWN" and len(refusal.near) == 1 and refusal.near[0] != cluster:
        return Again(refusal.near[0], 0.0, f"{said} I take {refusal.near[0]}.")
    if refusal.retry_after_s is not None:
        wait_s = max(MIN_WAIT_S, refusal.retry_after_s)
        if wait_s <= patience_s:
            return Again(cluster, wait_s, f"{said} I ask again in {wait_s:g} s.")
    if refusal.reason in OF_THIS_COMMAND:
        allowed = f" Allowed is: {refusal.allowed}." if refusal.allowed else ""
        return DoWithout(f"{said}{allowed} I do without.")
    return Stop(said)
