"""When a certificate expires, and what is said about that."""

import datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme
from cryptography import x509
from structlog.testing import capture_logs

from openline.expiry import SOON_S, Expiry, expires_at

DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def issue(not_after: datetime.datetime) -> bytes:
    made = trustme.CA().issue_cert("own.test", not_before=not_after - DAY, not_after=not_after)
    return made.cert_chain_pems[0].bytes()


@pytest.mark.parametrize(
    "instant",
    [
        datetime.datetime(2026, 2, 28, 12, 30, 59, tzinfo=datetime.UTC),
        datetime.datetime(1955, 6, 1, tzinfo=datetime.UTC),
        datetime.datetime(2049, 12, 31, 23, 59, 59, tzinfo=datetime.UTC),
        datetime.datetime(2050, 1, 1, tzinfo=datetime.UTC),
        datetime.datetime(2110, 1, 1, tzinfo=datetime.UTC),
    ],
    ids=str,
)
def test_the_instant_is_the_certificates(instant: datetime.datetime) -> None:
    """In both of the forms in which certificates say it."""
    pem = issue(instant)
    assert x509.load_pem_x509_certificate(pem).not_valid_after_utc == instant
    assert expires_at(pem) == instant.timestamp()
    assert expires_at(b"Subject: somebody\r\n" + pem.replace(b"\n", b"\r\n")) == instant.timestamp()


def test_of_a_chain_the_first_one_counts() -> None:
    """Without it the others are worth nothing."""
    dates = (NOW + 3 * DAY, NOW + DAY, NOW + 2 * DAY)
    assert expires_at(b"".join(map(issue, dates))) == dates[1].timestamp()


def test_what_cannot_be_read_has_no_instant() -> None:
    """Of a certificate that is cut anywhere nothing is said, and nothing is raised."""
    pem = issue(NOW)
    head, tail = b"-----BEGIN CERTIFICATE-----\n", b"\n-----END CERTIFICATE-----\n"
    body = b"".join(pem.split(b"\n")[1:-2])
    whole = {NOW.timestamp(), None}
    assert {expires_at(head + body[: 4 * n] + tail) for n in range(len(body) // 4)} <= whole
    for pem in (b"", b"hello", head + tail, head + b"!!!" + tail, head + b"MAMB" + tail, head + b"/////////w==" + tail):
        assert expires_at(pem) is None


def lines_of(file: Path | None, *instants: float) -> list[dict[str, Any]]:
    structlog.reset_defaults()
    with capture_logs() as lines:
        expiry = Expiry(file, structlog.get_logger())
        for now in instants:
            expiry.tell(now)
    return [dict(line) for line in lines]


def test_it_is_said_once_that_it_is_near_and_once_that_it_has_come(tmp_path: Path) -> None:
    (file := tmp_path / "cert").write_bytes(issue(NOW))
    at = NOW.timestamp()
    assert lines_of(file, at - SOON_S - 1) == []
    lines = lines_of(file, at - SOON_S - 1, at - SOON_S, at - SOON_S + 1, at - 1, at, at + 1, at + 1e9)
    said = {"expires_at": NOW.isoformat(), "file": str(file), "log_level": "warning"}
    assert lines == [{"event": "certificate.expires"} | said, {"event": "certificate.expired"} | said]
    # Of one that was taken too late, that alone.
    assert [line["event"] for line in lines_of(file, at + 1, at + 2)] == ["certificate.expired"]


def test_without_a_certificate_nothing_is_said(tmp_path: Path) -> None:
    (file := tmp_path / "cert").write_bytes(b"hello")
    for each in (None, file, tmp_path / "none"):
        assert lines_of(each, 0.0, 1e12) == []
