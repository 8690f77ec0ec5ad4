"""A policy: what the owner of a cluster decides, within what the tables allow at all. Values only."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase

from openline.capture import MOST_OUTPUT_BYTES
from openline.policy.resources import DENIED_BY_DEFAULT
from openline.policy.selection import Selection
from openline.policy.tables import VERBS


@dataclass(frozen=True, slots=True)
class Output:
    """How much may come out of one command, at most; a caller may ask for less."""

    # Of stdout and stderr together, head and tail kept, on a call that is not streamed.
    max_bytes: int = MOST_OUTPUT_BYTES
    # What `logs` may ask of each container on such a call. The end of a log is what people look for, so lines are few
    # enough that their bytes are rarely cut: kubelets cut those at the end.
    max_log_lines: int = 20_000
    max_log_bytes: int = 16 << 20


@dataclass(frozen=True, slots=True)
class Masking:
    """What is blotted out in output."""

    secrets: bool = True  # `data` and `stringData` of Secrets
    values: bool = True  # what looks like a credential


@dataclass(frozen=True, slots=True)
class Policy:
    """What one executor allows."""

    verbs: tuple[str, ...] = tuple(sorted(VERBS))
    types: Selection = field(default_factory=lambda: Selection(deny=DENIED_BY_DEFAULT))
    namespaces: Selection = field(default_factory=Selection)
    output: Output = field(default_factory=Output)
    masking: Masking = field(default_factory=Masking)

    @property
    def digest(self) -> str:
        """Short, and another one for every other policy."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def allows_namespace(self, name: str) -> bool:
        """Whether the namespace may be read; entries may have `*` in them."""
        allow, deny = self.namespaces.allow, self.namespaces.deny
        is_in = allow is None or any(fnmatchcase(name, pattern) for pattern in allow)
        return is_in and not any(fnmatchcase(name, pattern) for pattern in deny)
