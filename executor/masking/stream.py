"""One output stream of a process on its way out of the cluster, through all stages."""

from executor.masking.controls import Controls
from executor.masking.credentials import Credentials
from executor.masking.lines import Lines
from executor.masking.objects import SecretObjects
from openline.policy import Masking

MASK_ALL = Masking()


class Masked:
    """Takes a stream in pieces as the process writes it, and hands on what may leave.

    What comes back together is what went in, without control sequences and with `MARKER` for each masked value.
    """

    def __init__(self, masking: Masking) -> None:
        self._controls = Controls()
        self._objects = SecretObjects() if masking.secrets else None
        self._credentials = Credentials() if masking.values else None
        # Nothing to be masked, nothing to be held back: pieces go on as they are.
        self._lines = Lines() if masking.secrets or masking.values else None

    @property
    def masked_values(self) -> int:
        """How many values were masked up to here."""
        return sum(stage.masked for stage in (self._objects, self._credentials) if stage is not None)

    def feed(self, chunk: bytes) -> bytes:
        """What may leave now, which may be nothing."""
        text = self._controls.feed(chunk)
        if self._lines is None:
            return text
        return self._mask(self._lines.feed(text))

    def finish(self) -> bytes:
        """The stream has ended: the rest."""
        text = self._controls.finish()
        if self._lines is None:
            return text
        text = self._mask(self._lines.feed(text) + self._lines.finish())
        if self._objects is not None:
            rest = self._objects.finish()
            text += self._credentials.feed(rest) if self._credentials is not None else rest
        return text + self._credentials.finish() if self._credentials is not None else text

    def _mask(self, lines: bytes) -> bytes:
        if lines and self._objects is not None:
            lines = self._objects.feed(lines)
        return self._credentials.feed(lines) if lines and self._credentials is not None else lines
