"""When a certificate expires, and saying so in time to whoever runs the program that shows it.

Nothing is refused for it: clocks differ, and the other side decides. The standard library tells the dates of what
others show, and of authorities, alone; so the few bytes that are needed are read here.
"""

import base64
import re
from datetime import UTC, datetime
from math import inf
from pathlib import Path

from structlog.typing import FilteringBoundLogger

# Long enough to find out why nobody has renewed it, and below a third of the ninety days that most are issued for.
SOON_S = 7 * 24 * 3600.0

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
# Tags of DER: what stands before the serial number in all but the oldest certificates, and the short form of a date.
_VERSION, _UTC_TIME = 0xA0, 0x17


class Expiry:
    """Of the certificate in a file, as it was read last. Not thread-safe."""

    def __init__(self, file: Path | None, log: FilteringBoundLogger) -> None:
        self._file = file
        self._log = log
        self.read()

    def read(self) -> None:
        """The file is another one."""
        # In Unix seconds; None without a certificate that can be read.
        self.at = None if self._file is None else _of_file(self._file)
        self._tell_at = inf if self.at is None else self.at - SOON_S

    def tell(self, now: float) -> None:
        """Logs it when it is near, and again when it has come."""
        if self.at is None or now < self._tell_at:
            return
        is_over = now >= self.at
        self._tell_at = inf if is_over else self.at
        event = "certificate.expired" if is_over else "certificate.expires"
        self._log.warning(event, expires_at=datetime.fromtimestamp(self.at, UTC).isoformat(), file=str(self._file))


def expires_at(pem: bytes) -> float | None:
    """When the first one of these certificates expires, in Unix seconds; None where there is none that can be read."""
    found = [_not_after(each) for each in _PEM.findall(pem)]
    return min((each for each in found if each is not None), default=None)


def _of_file(file: Path) -> float | None:
    try:
        return expires_at(file.read_bytes())
    except OSError:
        return None


def _not_after(base64_der: bytes) -> float | None:
    """RFC 5280, 4.1: Certificate { TBSCertificate { version?, serial, signature, issuer, Validity { from, to }, …"""
    try:
        der = base64.b64decode(base64_der)
        _, at, _ = _element(der, 0)
        _, at, _ = _element(der, at)
        tag, _, _ = _element(der, at)
        for _ in range(4 if tag == _VERSION else 3):
            _, _, at = _element(der, at)
        _, at, _ = _element(der, at)
        _, _, at = _element(der, at)
        tag, begin, end = _element(der, at)
        text = der[begin:end].decode("ascii")
        if tag == _UTC_TIME:
            text = ("19" if text >= "50" else "20") + text
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except (IndexError, ValueError):
        return None


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """The tag of what begins there, and where its content begins and ends."""
    tag, length, begin = der[at], der[at + 1], at + 2
    if length & 0x80:  # it takes so many bytes of its own
        begin += length & 0x7F
        length = int.from_bytes(der[at + 2 : begin], "big")
    return tag, begin, begin + length
