"""The digest of a command's output, by which a caller knows it again. Pure."""

from hashlib import sha256

from openline.v1 import command_pb2


def digest_of(result: command_pb2.CommandResult) -> str:
    """Of both streams, apart, as far as they were kept, and of how much was not."""
    hashed = sha256()
    for data, summary in ((result.stdout, result.stdout_summary), (result.stderr, result.stderr_summary)):
        hashed.update(b"%d %d " % (len(data), summary.cut_bytes))
        hashed.update(data)
    return f"sha256:{hashed.hexdigest()}"


def is_cut(result: command_pb2.CommandResult) -> bool:
    """Some output was not kept, or a log is as long as the executor lets it be, so that there may be more of it.

    Then two outputs with the same digest may still differ, in what is not there.
    """
    written = result.stdout_summary
    most = {"--tail": written.total_lines, "--limit-bytes": written.total_bytes}
    for name, _, value in (flag.partition("=") for flag in result.bounded):
        if name in most and value.isdecimal() and most[name] >= int(value):
            return True
    return bool(written.cut_bytes or result.stderr_summary.cut_bytes)
