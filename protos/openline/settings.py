"""Settings: each program's flags and OPENLINE_ variables, read once at the edge into a frozen object.

A flag wins over its variable. A mistake is one line that names the flag, and exit code 2.
"""

import argparse
import errno
import ipaddress
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, Self, TypeVar

import structlog
from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationError, model_validator
from pydantic_core import core_schema
from pydantic_settings import BaseSettings, CliApp, CliSettingsSource, NoDecode, SettingsConfigDict, SettingsError

from openline import __version__
from openline.logs import LogFormat
from openline.loudness import LogLevel
from openline.tls import Unusable, check_certificates, server_context

log = structlog.get_logger()


class Address(str):
    """`host:port`, as it is given to whoever listens or dials."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `host:port` or `[v6]:port`; raises ValueError."""
        host, colon, port = text.strip().rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"expected HOST:PORT, got {text!r}")
        return cls(f"{host}:{int(port)}")

    @property
    def host(self) -> str:
        return self.rpartition(":")[0].removeprefix("[").removesuffix("]")

    @property
    def port(self) -> int:
        return int(self.rpartition(":")[2])

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema())


def is_loopback(host: str) -> bool:
    """Whether what is said there stays on this machine. Other names than `localhost` are not looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def split_commas(text: object) -> object:
    """`a,b` as a tuple of its parts, empty ones left out; anything else unchanged."""
    if isinstance(text, str):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if isinstance(text, list | tuple):
        return tuple(piece for part in text for piece in ([part] if not isinstance(part, str) else part.split(",")))
    return text


def _not_empty(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    if not addresses:
        raise ValueError("expected HOST:PORT[,HOST:PORT…]")
    return addresses


Addresses = Annotated[tuple[Address, ...], NoDecode, BeforeValidator(split_commas), AfterValidator(_not_empty)]


def _readable(file: Path) -> Path:
    try:
        if file.exists() and not file.is_file():
            raise ValueError(f"{file} is not a file")
        with file.open("rb"):
            return file.absolute()
    except OSError as failure:
        raise ValueError(f"cannot read {file}: {failure.strerror}") from None


def _certificates(file: Path) -> Path:
    try:
        check_certificates(file)
    except Unusable as problem:
        raise ValueError(str(problem)) from None
    return file


MAX_KEY_CHARACTERS = 4096


def read_key(flag: str, key: SecretStr | None, file: Path | None) -> str:
    """An API key from a flag, or from the file of `flag`-file. Raises ValueError, which does not show it."""
    if (key is None) == (file is None):
        raise ValueError(f"{flag}: give a key with {flag} or {flag}-file")
    if file is None:
        text = key.get_secret_value() if key else ""
    else:
        flag = f"{flag}-file"
        try:
            text = file.read_text().strip()
        except (OSError, UnicodeDecodeError):
            raise ValueError(f"{flag}: cannot read {file}") from None
    if not 1 <= len(text) <= MAX_KEY_CHARACTERS or not all("!" <= character <= "~" for character in text):
        raise ValueError(f"{flag}: expected a key of 1 to {MAX_KEY_CHARACTERS} visible ASCII characters")
    return text


ReadableFile = Annotated[Path, AfterValidator(_readable)]
CertificateFile = Annotated[ReadableFile, AfterValidator(_certificates)]


def check_tls_pair(cert: Path | None, key: Path | None, *, side: str = "--tls") -> None:
    """Raises ValueError, naming the flag, unless both or neither are there, and the key is that of the certificate.

    `side` is what the two flags begin with.
    """
    if (cert is None) != (key is None):
        raise ValueError(f"{side}-cert and {side}-key go together")
    if cert is None or key is None:
        return
    try:
        server_context(cert, key)
    except OSError as problem:
        raise ValueError(f"{side}-key: {problem}") from None


class ProgramSettings(BaseSettings):
    """What every program has."""

    model_config = SettingsConfigDict(
        env_prefix="OPENLINE_",
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_show_env_vars=True,
        cli_hide_none_type=True,
        use_attribute_docstrings=True,
    )

    log_level: LogLevel = "info"
    """Lines below this level are left out."""
    log_format: LogFormat = "console"
    """`json` for machines, `console` for people."""


class NetworkSettings(ProgramSettings):
    """What a program has whose words travel over networks."""

    insecure: bool = False
    """Speak plaintext off this machine as well, where it can be read and changed on the way: for where something else
    encrypts, such as a mesh or a proxy."""

    @property
    def plaintext(self) -> list[tuple[str, str]]:
        """The flags with an address off this machine at which plaintext is spoken, each with that address."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _check_plaintext(self) -> Self:
        if self.plaintext and not self.insecure:
            flag, address = self.plaintext[0]
            raise ValueError(f"{flag}: plaintext at {address} leaves this machine; use TLS, or allow it by --insecure")
        return self

    def warn_of_plaintext(self) -> None:
        """A line in the log for each address where `insecure` has allowed it."""
        for flag, address in self.plaintext:
            log.warning("plaintext.allowed", flag=flag, address=address)


S = TypeVar("S", bound=ProgramSettings)


class _Parser(argparse.ArgumentParser):
    """argparse, with a mistake as one line on stderr."""

    def error(self, message: str) -> NoReturn:
        fail(self.prog, message)


def fail(program: str, message: str, *, code: int = 2) -> NoReturn:
    """Ends the program with one line on stderr."""
    sys.stderr.write(f"{program}: {' '.join(message.split())}\n")
    raise SystemExit(code)


def fail_to_listen(program: str, address: Address, failure: OSError, *, flag: str = "--listen") -> NoReturn:
    """Ends the program: with code 1 when somebody else has the address, else with that of a wrong flag."""
    code = 1 if failure.errno == errno.EADDRINUSE else 2
    fail(program, f"{flag}: cannot listen on {address}: {failure.strerror or failure}", code=code)


def load(settings: type[S], *, program: str, arguments: Sequence[str] | None = None) -> S:
    """Reads flags (default: those of this process) and variables; ends the process with code 2 on a mistake."""
    parser = _Parser(
        prog=program,
        description=settings.__doc__,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{program} {__version__}")
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        source: CliSettingsSource[Any] = CliSettingsSource(settings, root_parser=parser, cli_prog_name=program)
        return CliApp.run(settings, cli_args=given, cli_settings_source=source)
    except ValidationError as mistakes:
        first = mistakes.errors(include_input=False, include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        # What is wrong with several settings together has no place; its message names them.
        flag = f"--{str(first['loc'][0]).replace('_', '-')}: " if first["loc"] else ""
        fail(program, flag + message)
    except SettingsError as mistake:
        fail(program, str(mistake))
