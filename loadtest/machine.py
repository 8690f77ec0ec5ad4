"""What the figures were measured on: they mean little without it."""

import importlib.metadata
import os
import platform
from typing import Any

LIBRARIES = ("openline", "grpcio", "protobuf", "uvloop", "redis", "hiredis", "uvicorn", "httptools", "nats-py")


def describe() -> dict[str, Any]:
    """Cores that may be used, kernel, Python, versions of libraries, and the load average of the last minute."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
        "load_average": round(os.getloadavg()[0], 2),
    }


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor()
