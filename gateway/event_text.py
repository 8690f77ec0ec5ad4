"""A command's events as Server-Sent Events (WHATWG HTML, 9.2): names, ids, and output as text. Pure.

The id is the output's seq, so that `Last-Event-ID` says what was seen. Text is decoded as it comes: a character that is
split over two pieces of output comes whole with the second one.
"""

import codecs
import json

from gateway.command_answers import state_name
from openline.v1 import command_pb2

PING = b": ping\n\n"
TIME_IS_UP = b": the time asked for is up; the command runs on\n\n"

_SOURCES = {command_pb2.OUTPUT_SOURCE_STDOUT: "stdout", command_pb2.OUTPUT_SOURCE_STDERR: "stderr"}


def said(name: str, data: bytes, *, seq: int = -1) -> bytes:
    """One event; `data` is JSON on one line."""
    identity = b"id: %d\n" % seq if seq >= 0 else b""
    return b"event: %s\n%sdata: %s\n\n" % (name.encode(), identity, data)


class _Text:
    """Bytes of one stream as text, as far as whole characters have come."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept = b""

    def decode(self, data: bytes, *, final: bool = False) -> tuple[str, bool]:
        """The text, and whether some bytes had to be replaced; what may be half a character waits, unless `final`."""
        data = self._kept + data
        text, used = codecs.utf_8_decode(data, "replace", final)
        self._kept = data[used:]
        return text, "\ufffd" in text and text.encode() != data[:used]


class EventText:
    """The events of one command, for one caller."""

    def __init__(self, command_id: str) -> None:
        self._command_id = command_id
        self._texts = {source: _Text() for source in _SOURCES.values()}
        self._seq = -1

    def status(self, event: command_pb2.CommandEvent) -> bytes:
        self._command_id = event.command_id or self._command_id
        return said("status", _json(command_id=self._command_id, state=state_name(event.state)))

    def output(self, output: command_pb2.Output) -> bytes:
        self._command_id = output.command_id or self._command_id
        self._seq = output.seq
        # A stream that this version does not know is shown rather than dropped.
        source = _SOURCES.get(output.source, "stdout")
        return _output(self._seq, source, *self._texts[source].decode(output.data))

    def skip(self, output: command_pb2.Output) -> None:
        """Output that was shown before, but for a half of a character at its end."""
        self.output(output)

    def gap(self, gap: command_pb2.OutputGap) -> bytes:
        """How many bytes are missing here; 0 for some, if nobody knows how many."""
        rest = self.rest()
        # What is missed was before this seq: whoever resumes from here does not hear of it again.
        self._seq = gap.next_seq - 1
        return rest + _output(self._seq, None, "", False, missed_bytes=gap.missed_bytes)

    def rest(self) -> bytes:
        """Halves of characters of which the other half does not come: at a gap, and at the end."""
        rests = ((source, *text.decode(b"", final=True)) for source, text in self._texts.items())
        return b"".join(_output(self._seq, source, text, replaced) for source, text, replaced in rests if text)


def _output(seq: int, source: str | None, text: str, replaced: bool, *, missed_bytes: int | None = None) -> bytes:
    data = _json(seq=seq, source=source, text=text, encoding_replaced=replaced, missed_bytes=missed_bytes)
    return said("output", data, seq=seq)


def _json(**members: str | int | None) -> bytes:
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()
