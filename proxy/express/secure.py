"""TLS over a transport of the event loop, with what it takes and gives as plain bytes."""

from __future__ import annotations

import asyncio
import contextlib

from OpenSSL import SSL

_RECORD = 16 * 1024
"""Bytes of the largest record (RFC 8446 5.1)."""
_ROOM = 1024
"""Bytes that TLS adds to each of what is sent, at most; more for a handshake's certificates."""


class Secure:
    """One side of TLS. What it raises is SSL.Error; then the connection is of no more use."""

    def __init__(self, connection: SSL.Connection, transport: asyncio.Transport) -> None:
        self._tls = connection
        self._transport = transport
        self.ended = False
        """Nothing more will come."""
        self.finished = False
        """The other side said so (close_notify): it was not cut off."""
        self._said_all = False

    def shake(self, data: bytes = b"") -> bool:
        """Takes the handshake as far as `data` leads it. True once it is done."""
        if data:
            self._tls.bio_write(data)
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            return False
        finally:
            self._flush(_RECORD)
        return True

    def receive(self, data: bytes = b"") -> bytes:
        """The plain text that is complete with `data`; whatever breaks TLS behind some ends it."""
        if data:
            self._tls.bio_write(data)
        parts = []
        while True:
            try:
                parts.append(self._tls.recv(_RECORD))
            except SSL.WantReadError:
                break
            except SSL.ZeroReturnError:
                self.ended = self.finished = True
                break
            except SSL.Error:
                if not parts:
                    raise
                self.ended = True
                break
        plain = parts[0] if len(parts) == 1 else b"".join(parts)
        if len(plain) < len(data) // 2:
            self._flush(_ROOM)  # what TLS itself has to say, or a flood of key updates is kept
        return plain

    def send(self, data: bytes) -> None:
        """Writes `data` to the transport."""
        self._tls.sendall(data)
        self._flush(len(data) + _ROOM)

    def end(self) -> None:
        """Says that nothing more will be sent (RFC 8446 6.1); the peer may go on."""
        if self._said_all:
            return
        with contextlib.suppress(SSL.Error):
            self._tls.shutdown()
            self._flush(_ROOM)
        self._said_all = True
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def close(self) -> None:
        """Says so, and closes the transport."""
        self.end()
        self._transport.close()

    def _flush(self, size: int) -> None:
        if self._said_all:
            return  # TLS may have something to say even now
        while True:
            try:
                record = self._tls.bio_read(size)
            except SSL.WantReadError:
                return
            self._transport.write(record)
            if len(record) < size:
                return
