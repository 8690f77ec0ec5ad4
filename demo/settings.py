"""The demo's settings."""

from pydantic import Field

from openline.settings import ProgramSettings


class DemoSettings(ProgramSettings):
    """Runs everything in one box: Valkey, brokers, executors, gateway, and a small Kubernetes API server."""

    clusters: int = Field(1, ge=1, le=50)
    """How many clusters: `local`, `local-2`, …, each with an executor of its own."""
    replicas: int = Field(2, ge=1, le=10)
    """How many broker replicas."""
    port: int = Field(8080, ge=1, le=65535)
    """The gateway's port on 127.0.0.1."""
    broker_port: int = Field(50051, ge=1, le=65000)
    """The first broker's port on 127.0.0.1; the others follow it."""
    api_key: str = Field("test-key", pattern=r"^[!-+\-.-~]+$", max_length=200)
    """The API key that may do everything. For trying things out on this machine only."""
