"""The load test's settings."""

import shlex
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from openline.settings import Address, Addresses, ProgramSettings


def _words(text: object) -> object:
    return tuple(shlex.split(text)) if isinstance(text, str) else text


class LoadSettings(ProgramSettings):
    """Asks for one command many times over a Pipe, and says how long it took."""

    broker: Addresses = (Address("127.0.0.1:50051"),)
    """The brokers to ask, HOST:PORT,…"""
    api_key: SecretStr = SecretStr("test-key")
    """The key to show; the default is the demo's."""
    cluster_id: str = "local"
    """The cluster to ask."""
    command: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = ("version", "--client")
    """What to run, without the program."""
    count: int = Field(200, ge=1, le=1_000_000)
    """How many commands, in all."""
    concurrency: int = Field(8, ge=1, le=1000)
    """How many of them at a time."""
    timeout: float = Field(30.0, gt=0, le=300)
    """How long one may take, seconds."""


class SpawnSettings(ProgramSettings):
    """Starts a program many times in each of the ways that there are, and says what that costs."""

    command: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = ("/bin/true",)
    """What to start, with its arguments: a path."""
    count: int = Field(500, ge=1, le=100_000)
    """How often in each way."""
    json_: bool = Field(False, alias="json")
    """Print JSON rather than a table."""
