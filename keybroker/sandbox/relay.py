"""Carries the connections of a sandbox to the proxy, and to nothing else.

The listener belongs to the sandbox's network and is held here, outside; the address dialled is
fixed when the relay is made, and nothing that is carried is looked at. Each direction is closed by
itself, and whoever reads slowly slows the other side down.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import threading
from types import TracebackType
from typing import Self, cast

CONNECT_WITHIN = 10.0
"""Seconds in which the proxy must take a connection."""


class _End(asyncio.Protocol):
    """One end of a carried connection; what it receives goes out at the other."""

    def __init__(self, other: _End | None = None) -> None:
        self.transport: asyncio.Transport | None = None
        self.other = other
        self.finished = False
        """It has sent its end of file."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._far.write(data)

    def eof_received(self) -> bool:
        self.finished = True
        far = self._far
        if self.other is not None and self.other.finished:
            far.close()
            return False
        if far.can_write_eof() and not far.is_closing():
            far.write_eof()
        return True  # the other direction goes on

    def pause_writing(self) -> None:
        self._far.pause_reading()

    def resume_writing(self) -> None:
        self._far.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is None or self.other.transport is None:
            return
        if error is None:
            self.other.transport.close()  # what is buffered is still sent
        else:
            self.other.transport.abort()

    @property
    def _far(self) -> asyncio.Transport:
        assert self.other is not None
        assert self.other.transport is not None
        return self.other.transport


class _FromInside(_End):
    """The sandbox's end: nothing is read from it before the proxy has answered."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self._relay = relay
        self._dialling: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._relay.open.add(self)
        assert self.transport is not None
        self.transport.pause_reading()
        self._dialling = asyncio.get_running_loop().create_task(self._dial(self.transport))

    def connection_lost(self, error: Exception | None) -> None:
        self._relay.open.discard(self)
        if self._dialling is not None:
            self._dialling.cancel()
        super().connection_lost(error)

    async def _dial(self, transport: asyncio.Transport) -> None:
        self.other = far = _End(self)
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                await asyncio.get_running_loop().create_connection(
                    lambda: far, self._relay.host, self._relay.port
                )
        except OSError:  # TimeoutError is one
            transport.abort()
            return
        transport.resume_reading()


class Relay:
    """Runs in a thread of its own while it is entered; leaving it ends every connection."""

    def __init__(self, listener: socket.socket, host: str, port: int) -> None:
        """Takes `listener` over, which listens already. `host:port` is the proxy."""
        self.host = host
        self.port = port
        self.open: set[_FromInside] = set()
        """The connections of the sandbox."""
        self._listener = listener
        self._loop = asyncio.new_event_loop()
        self._leaving = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="relay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._leaving.set)
        self._thread.join()

    def _serve(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        server = loop.run_until_complete(
            loop.create_server(lambda: _FromInside(self), sock=self._listener, backlog=1024)
        )
        loop.run_until_complete(self._leaving.wait())
        server.close()
        for end in tuple(self.open):
            assert end.transport is not None
            end.transport.abort()
        loop.run_until_complete(_settled(loop))
        loop.close()


async def _settled(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop) - {asyncio.current_task()}:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await asyncio.sleep(0)


def open_many() -> None:
    """Lets this process have as many connections as the system allows it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
