"""A TCP line that can be long or cut: carries bytes between whoever dials it and one address, until told not to."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator


class Line:
    """Listens on a free port of loopback inside `listening`. Whatever it carries takes `delay_s`."""

    def __init__(self, to: str, *, delay_s: float = 0.0) -> None:
        self._to = to
        self._delay_s = delay_s
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.is_cut = False
        # How often connections were broken.
        self.breaks = 0
        self.address = ""

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["Line"]:
        async with await asyncio.start_server(self._carry, "127.0.0.1", 0) as server:
            self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            try:
                yield self
            finally:
                self.break_all()
                await asyncio.gather(*self._pumps, return_exceptions=True)

    def break_all(self) -> None:
        """Every connection that there is breaks, and what is on its way is lost."""
        self.breaks += bool(self._open)
        for writer in self._open:
            writer.transport.abort()

    @contextlib.contextmanager
    def broken(self) -> Iterator[None]:
        """Meanwhile there is no connection, and none can be made."""
        self.is_cut = True
        self.break_all()
        try:
            yield
        finally:
            self.is_cut = False

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._to.rpartition(":")
        try:
            if self.is_cut:
                raise ConnectionError("cut")
            to_reader, to_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, to_writer}
        if self.is_cut:
            self.break_all()
        for source, sink in ((reader, to_writer), (to_reader, writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while content := await source.read(1 << 16):
                await asyncio.sleep(self._delay_s)
                sink.write(content)
                await sink.drain()
        except OSError:
            pass  # cut
        finally:
            sink.close()
            self._open.discard(sink)
