"""Versions of the protocol: which are spoken here, and which one two ends keep to on a stream. Pure.

What is only added needs no new version, since who does not know it ignores it. A version is for what the other end must
know before it reads on; docs/upgrading.md says how one is made, and for how long the one before is spoken.
"""

from dataclasses import dataclass
from typing import Protocol

from openline.limits import MIN_PROTOCOL_VERSION, PROTOCOL_VERSION


class Hello(Protocol):
    """Either stream's."""

    @property
    def protocol_version(self) -> int: ...
    @property
    def max_protocol_version(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Spoken:
    """All versions from the lowest to the highest."""

    lowest: int
    highest: int

    def __str__(self) -> str:
        return str(self.lowest) if self.lowest == self.highest else f"{self.lowest} to {self.highest}"

    def __contains__(self, version: int) -> bool:
        return self.lowest <= version <= self.highest


SPOKEN = Spoken(MIN_PROTOCOL_VERSION, PROTOCOL_VERSION)


def said(hello: Hello) -> Spoken:
    """What a peer speaks. One of 0.1.0 says no highest: it speaks one version alone."""
    return Spoken(hello.protocol_version, hello.max_protocol_version or hello.protocol_version)


def agreed(ours: Spoken, theirs: Spoken) -> int | None:
    """The highest version that both speak; None where there is none."""
    version = min(ours.highest, theirs.highest)
    return version if version in ours and version in theirs else None


def disagreement(broker: Spoken, theirs: Spoken, *, peer: str) -> str:
    """Why a broker and its peer cannot talk, and which of them is to be upgraded; `peer` is what that is."""
    older = peer if theirs.highest < broker.lowest else "broker"
    return f"the {peer} speaks protocol version {theirs}, this broker {broker}: upgrade the {older}"
