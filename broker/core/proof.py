"""How replicas know each other, and commands that another replica has sent: by one secret that all of them have.

The secret never travels between them. A replica that opens a pipe shows a MAC (keyed BLAKE2b, RFC 7693) over who it is,
whom it means to reach and when; the other one answers with a MAC over that, before a single frame with a caller's
command is written. The seal on an Execute says that a replica of this installation has sent it to an executor of this
cluster.
"""

import hashlib
import hmac
import secrets

from openline.ids import new_id
from openline.v1 import executor_service_pb2

METADATA_KEY = "x-openline-peer"
# Clocks of replicas may be off by so much; a proof that was overheard is worth nothing after it.
FRESH_S = 60.0
SECRET_BYTES = 32
MAC_BYTES = 32
MAX_SHOWN_CHARACTERS = 800
_SEPARATOR = "\0"


class Proof:
    """The secret, and what is made of it. Before Redis has told the common one it is this replica's alone."""

    def __init__(self, replica_id: str, *, secret: bytes | None = None) -> None:
        self._replica_id = replica_id
        self.secret = secret or secrets.token_bytes(SECRET_BYTES)
        # Whether it is the one that all replicas have.
        self.is_common = secret is not None
        # The one before, under which executors may still hold commands.
        self._previous = self.secret

    def __repr__(self) -> str:
        return f"<Proof of {self._replica_id}>"

    def agree(self, secret: bytes) -> None:
        """The replicas' common secret."""
        self.is_common = True
        if secret != self.secret:
            self._previous, self.secret = self.secret, secret

    def show(self, to_replica_id: str, *, clock_s: float) -> str:
        """What this replica shows another one; `clock_s` is seconds since 1970. Good for one minute."""
        said = f"{self._replica_id} {to_replica_id} {clock_s:.0f} {new_id()}"
        return f"{said} {_mac(self.secret, b'show', said).hex()}"

    def check(self, shown: str, *, clock_s: float) -> str | None:
        """The id of the replica that shows this; None for anybody else."""
        said, _, mac = shown.rpartition(" ")
        try:
            from_replica_id, to_replica_id, at, _ = said.split(" ")
            is_fresh = abs(clock_s - float(at)) <= FRESH_S
        except ValueError:
            return None
        macs = (_mac(key, b"show", said).hex().encode() for key in self._secrets())
        good = any([hmac.compare_digest(known, mac.encode(errors="replace")) for known in macs])
        return from_replica_id if good and is_fresh and to_replica_id == self._replica_id else None

    def answer(self, shown: str) -> bytes:
        """The other end's proof, for what was shown to it."""
        return _mac(self.secret, b"answer", shown)

    def is_answer(self, shown: str, answer: bytes) -> bool:
        return any(hmac.compare_digest(_mac(key, b"answer", shown), answer) for key in self._secrets())

    def seal(self, execute: executor_service_pb2.Execute, *, cluster_id: str, executor_id: str) -> bytes:
        """For an Execute that goes to this executor."""
        return _mac(self.secret, b"seal", _SEPARATOR.join(_sealed(execute, cluster_id, executor_id)))

    def is_sealed(self, execute: executor_service_pb2.Execute, *, cluster_id: str, executor_id: str) -> bool:
        """Whether a replica has sent this Execute to this executor."""
        parts = _sealed(execute, cluster_id, executor_id)
        sealed = _SEPARATOR.join(parts)
        # A field with the separator in it would look like two fields. No replica sends one.
        if sealed.count(_SEPARATOR) != len(parts) - 1:
            return False
        return any(hmac.compare_digest(_mac(key, b"seal", sealed), execute.seal) for key in self._secrets())

    def alias(self, digest: bytes) -> str:
        """A name for what this is the digest of: on all replicas the same, and nobody else can try guesses on it."""
        return _mac(self.secret, b"alias", digest.hex()).hex()[:16]

    def _secrets(self) -> tuple[bytes, ...]:
        return (self.secret, self._previous)


def _sealed(execute: executor_service_pb2.Execute, cluster_id: str, executor_id: str) -> list[str]:
    """What a seal is on: field by field, since serialized messages of two versions need not be equal."""
    identity = execute.identity
    return [
        cluster_id,
        executor_id,
        execute.command_id,
        identity.owner,
        execute.session_id,
        execute.correlation_id,
        execute.traceparent,
        "live" if execute.live else "",
        str(execute.output_limits.max_bytes),
        str(len(identity.scopes)),
        *identity.scopes,
        *execute.argv,
    ]


def _mac(secret: bytes, purpose: bytes, message: str) -> bytes:
    text = message.encode(errors="surrogatepass")
    # Whatever somebody has put into Redis: a longer key would be refused.
    return hashlib.blake2b(
        text, key=secret[: hashlib.blake2b.MAX_KEY_SIZE], digest_size=MAC_BYTES, person=purpose
    ).digest()
