"""The blocking client's way to one replica, when its certificates change."""

from pathlib import Path

import pytest
import trustme

from openline.channels import Dialer
from openline.client.lines import Line
from openline.errors import OpenlineError
from openline.settings import Address
from openline.tls import TlsFiles


def test_of_the_channels_that_were_left_one_stays_open(tmp_path: Path) -> None:
    """For the calls that are on it; the one before that is closed, and all are at the end."""
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(ca)
    line = Line(Address("127.0.0.1:1"), Dialer(TlsFiles(ca)), api_key="k")
    knocks = []
    for _ in range(3):
        knocks.append(line._knock)
        (tmp_path / "new.pem").write_bytes(trustme.CA().cert_pem.bytes())
        (tmp_path / "new.pem").replace(ca)
        with pytest.raises(OpenlineError):
            line.reach(0.1)
    assert [is_closed(knock) for knock in [*knocks, line._knock]] == [True, True, False, False]
    line.close()
    assert all(is_closed(knock) for knock in [*knocks, line._knock])
    (tmp_path / "new.pem").write_bytes(trustme.CA().cert_pem.bytes())
    (tmp_path / "new.pem").replace(ca)
    with pytest.raises(OpenlineError):
        line.reach(0.1)
    assert is_closed(line._knock)


def is_closed(knock: object) -> bool:
    """Whether the channel can still be asked, whoever answers."""
    try:
        knock(b"", timeout=0.01)  # type: ignore[operator]
    except ValueError:
        return True
    except Exception:
        return False
    raise AssertionError("nobody is there")
