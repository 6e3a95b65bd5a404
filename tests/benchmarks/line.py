"""A line to a server that is as slow and far as one likes: a proxy that delays each direction and limits the uplink."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

_CHUNK = 32 * 1024


class _Uplink:
    """So many bytes a second, shared by all connections."""

    def __init__(self, nbytes_per_second: float) -> None:
        self._rate = nbytes_per_second
        self._free_at = 0.0

    async def take(self, nbytes: int) -> None:
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + nbytes / self._rate
        await asyncio.sleep(self._free_at - now)


class _Line:
    def __init__(self, host: str, port: int, uplink: _Uplink, delay: float) -> None:
        self._host = host
        self._port = port
        self._uplink = uplink
        self._delay = delay

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        await asyncio.gather(self._carry(reader, far_writer, is_up=True), self._carry(far_reader, writer, is_up=False))

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_up: bool) -> None:
        loop = asyncio.get_running_loop()
        # What is read waits here for its time; the bound is what a line holds.
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=64)

        async def deliver() -> None:
            while True:
                due, chunk = await line.get()
                await asyncio.sleep(due - loop.time())
                if not chunk:
                    sink.close()
                    return
                sink.write(chunk)
                await sink.drain()

        delivering = asyncio.create_task(deliver())
        try:
            while chunk := await source.read(_CHUNK):
                if is_up:
                    await self._uplink.take(len(chunk))
                await line.put((loop.time() + self._delay, chunk))
        except OSError:
            pass  # the other side is told by the end that follows
        await line.put((loop.time() + self._delay, b""))
        try:
            await delivering
        except OSError:
            sink.close()


@contextmanager
def line(url: str, *, nbytes_per_second: float, delay: float) -> Iterator[str]:
    """Run a proxy to the server at `url` on a thread; yields the URL to use instead."""
    place = urlsplit(url)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> asyncio.Server:
        served = _Line(place.hostname or "", place.port or 80, _Uplink(nbytes_per_second), delay)
        return await asyncio.start_server(served.serve, "127.0.0.1", 0)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
