"""The end of an agent's connection: what was said last must arrive.

A socket that is closed with bytes of the peer unread is reset, and a reset throws away what the
peer has not read yet: the answer, for one, to an upload that was refused in its middle. So only our
side is closed at first, and what still comes is dropped for a moment (RFC 9112 9.6).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

LINGER = 1.0
"""Seconds that an agent has for its own end."""
MOST = 16 << 20
"""Bytes that are dropped meanwhile; who sends more is not reading."""


class PartingWriter(asyncio.StreamWriter):
    """Closes in two steps, where the transport can be closed on one side."""

    def __init__(
        self,
        transport: asyncio.Transport,
        protocol: asyncio.StreamReaderProtocol,
        reader: asyncio.StreamReader,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(transport, protocol, reader, loop)
        self._incoming = reader
        self._parting: asyncio.Task[None] | None = None

    def close(self) -> None:
        if self._parting is not None:
            return
        if super().is_closing() or self._incoming.at_eof() or not self.can_write_eof():
            super().close()
        else:
            self._parting = asyncio.get_running_loop().create_task(self._part())

    def break_off(self) -> None:
        """Resets the connection: the one end that HTTP/1.0 cannot take for that of a body."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def is_closing(self) -> bool:
        return self._parting is not None or super().is_closing()

    async def wait_closed(self) -> None:
        if self._parting is not None:
            await self._parting
        await super().wait_closed()

    async def _part(self) -> None:
        try:
            with contextlib.suppress(OSError, TimeoutError):
                self.write_eof()
                async with asyncio.timeout(LINGER):
                    left = MOST
                    while left > 0 and (piece := await self._incoming.read(65536)):
                        left -= len(piece)
        finally:
            super().close()
