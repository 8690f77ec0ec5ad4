"""The blocking client's way to a replica: when its certificates change, and past those that are frozen."""

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import trustme

from openline.channels import Dialer
from openline.client.lines import Line, Lines
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


def test_those_that_are_frozen_leave_time_for_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes their connections, and nobody says anything on them."""
    monkeypatch.setattr("openline.client.lines.TIMEOUT_S", 5.0)
    server = grpc.server(ThreadPoolExecutor(1))
    good = Address(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop, 0)
        frozen = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        addresses = [*(Address(f"127.0.0.1:{each.getsockname()[1]}") for each in frozen), good]
        lines = Lines([Line(address, Dialer(TlsFiles()), api_key="k") for address in addresses])
        stack.callback(lines.close)
        assert lines.first_answer(lambda line, _timeout_s: line.address) == good


def is_closed(knock: object) -> bool:
    """Whether the channel can still be asked, whoever answers."""
    try:
        knock(b"", timeout=0.01)  # type: ignore[operator]
    except ValueError:
        return True
    except Exception:
        return False
    raise AssertionError("nobody is there")
