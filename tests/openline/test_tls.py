"""What is in PEM files."""

import ssl
from pathlib import Path

import pytest
import trustme

from openline.tls import Pems, TlsFiles, Unusable, server_context


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    authority = trustme.CA()
    own = authority.issue_cert("own.test")
    made = TlsFiles(*(tmp_path / name for name in ("ca", "cert", "key")))
    pems = (authority.cert_pem, own.cert_chain_pems[0], own.private_key_pem)
    for file, pem in zip(made.paths, pems, strict=True):
        pem.write_to_path(file)
    return made


def test_they_are_read_as_they_are(files: TlsFiles) -> None:
    """All or some; and a key shows nowhere."""
    assert [*map(Path.read_bytes, files.paths)] == [*vars_of(files.read())]
    assert TlsFiles(ca=files.ca).read() == Pems(ca=files.ca.read_bytes() if files.ca else None)
    assert TlsFiles().read() == Pems()
    assert "PRIVATE" not in repr(files.read())


def vars_of(pems: Pems) -> tuple[bytes | None, bytes | None, bytes | None]:
    return pems.ca, pems.cert, pems.key


def test_any_file_means_tls(files: TlsFiles) -> None:
    assert files
    assert TlsFiles(ca=files.ca)
    assert TlsFiles(cert=files.cert, key=files.key)
    assert not TlsFiles()


@pytest.mark.parametrize(
    ("part", "content", "said"),
    [
        ("ca", b"", "there is no PEM certificate in {ca}"),
        ("ca", None, "cannot read {ca}: No such file or directory"),
        ("cert", b"hello", "there is no PEM certificate in {cert}"),
        ("cert", None, "cannot read {cert}: No such file or directory"),
        ("key", b"hello", "there is no PEM key in {key} that can be used with {cert}"),
        ("key", None, "cannot read {key}: No such file or directory"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_file(
    files: TlsFiles, part: str, content: bytes | None, said: str
) -> None:
    """Whoever replaces a file sees it in the log."""
    file = getattr(files, part)
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Unusable) as problem:
        files.read()
    assert str(problem.value) == said.format(ca=files.ca, cert=files.cert, key=files.key)


def test_another_certificates_key(files: TlsFiles, tmp_path: Path) -> None:
    assert files.cert is not None
    trustme.CA().issue_cert("other.test").private_key_pem.write_to_path(tmp_path / "other")
    with pytest.raises(Unusable, match=r"other is not the key of"):
        TlsFiles(cert=files.cert, key=tmp_path / "other").read()


def test_an_encrypted_key_is_not_asked_a_password_for(files: TlsFiles) -> None:
    """On a terminal OpenSSL would ask, and wait."""
    assert files.key is not None
    text = files.key.read_text().replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")
    files.key.write_text(text)
    with pytest.raises(Unusable, match="there is no PEM key in"):
        files.read()


def test_a_server_asks_for_certificates_where_it_can_check_them(files: TlsFiles) -> None:
    assert files.cert is not None
    assert files.key is not None
    assert server_context(files.cert, files.key).verify_mode is ssl.CERT_NONE
    assert server_context(files.cert, files.key, files.ca).verify_mode is ssl.CERT_REQUIRED
