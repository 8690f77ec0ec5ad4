"""What a program of ours asks of the kernel for its own process. Its children inherit it."""

import resource

# As many as a replica with tens of thousands of connections needs; some systems allow a thousand million.
MAX_OPEN_FILES = 65_536


def forbid_core_dumps() -> None:
    """A core would hold keys and tokens. Called before any is read."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def allow_open_files() -> None:
    """Takes as many as there may be; the limit that a process begins with is meant for programs that use `select`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def open_files() -> int:
    """How many this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else soft
