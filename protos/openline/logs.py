"""Logs: structlog set up the same way in every program, and the names of the fields that all of them use.

A line is a noun and a verb, then fields: `connection.opened cluster_id=… epoch=7`. Never argv, output or secrets at
info.
"""

import io
import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import orjson
import structlog

from openline.loudness import LOUDNESS, AdjustableLogger, LogLevel

LogFormat = Literal["json", "console"]


def set_up_logs(level: LogLevel, log_format: LogFormat) -> None:
    """Sends our lines and those of the libraries to stderr, one line each, at `level` and above."""
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        _Clock(),
    ]
    render: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(serializer=_dumps)
        if log_format == "json"
        # Plain tracebacks: the rich ones show local variables, and with them secrets and output.
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_escaped_traceback)
    )
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, render]
        if log_format == "json"
        else [*shared, _escape_values, render],
        wrapper_class=AdjustableLogger,
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _escape_values],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(handlers=[handler], force=True)
    LOUDNESS.begin(level)


class _Clock:
    """Stamps a line with the time in UTC, ISO 8601 with microseconds; a second is formatted once."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def __call__(
        self, _logger: structlog.typing.WrappedLogger, _method: str, fields: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        second, nanosecond = divmod(time.time_ns(), 10**9)
        if second != self._second:
            self._second = second
            self._text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        fields["timestamp"] = f"{self._text}.{nanosecond // 1000:06d}Z"
        return fields


def _dumps(fields: structlog.typing.EventDict, **options: Any) -> str:
    """A line of JSON. The usual one has nothing to escape in it, and orjson takes a tenth of json's time for it."""
    try:
        line = orjson.dumps(fields)
    except TypeError:  # of a kind that only json's fallback knows, or not to be encoded
        line = b"\\"
    if line.isascii() and b"\\" not in line and b"\x7f" not in line:
        return line.decode()
    return json.dumps(_escape_values(None, "", fields), **options)


def escape(text: str) -> str:
    """`text` without characters that a terminal would act on: what callers send can be in a line, but is not obeyed."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode("ascii") for each in text
    )


def _escape_values(
    _logger: structlog.typing.WrappedLogger, _method: str, fields: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escapes the fields that are strings; of the others, the repr is shown, which escapes, and tracebacks are JSON."""
    for name, value in fields.items():
        if isinstance(value, str) and not value.isprintable() and name != "exception":
            fields[name] = escape(value)
    return fields


def _escaped_traceback(out: TextIO, raised: structlog.typing.ExcInfo) -> None:
    """A traceback on lines of its own; the message of the exception may hold anything."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, raised)
    out.write("\n".join(map(escape, text.getvalue().split("\n"))))
