"""A TLS connection of the express lane as a transport of decrypted bytes, for the full engine."""

from __future__ import annotations

import asyncio
from typing import Any

from OpenSSL import SSL

from proxy.express.secure import Secure


class Decrypted(asyncio.Transport, asyncio.Protocol):
    """Between the agent's transport, whose protocol this is, and whoever reads the plain text."""

    def __init__(self, transport: asyncio.Transport, secure: Secure) -> None:
        super().__init__()
        self._transport = transport
        self._secure = secure
        self._protocol: asyncio.Protocol | None = None
        transport.set_protocol(self)

    # -- as a protocol

    def data_received(self, data: bytes) -> None:
        try:
            plain = self._secure.receive(data)
        except SSL.Error:
            self._transport.abort()
            return
        if plain and self._protocol is not None:
            self._protocol.data_received(plain)
        if self._secure.ended:
            self._transport.close()

    def eof_received(self) -> bool:
        return False  # asyncio closes

    def connection_lost(self, exc: Exception | None) -> None:
        if self._protocol is not None:
            self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    # -- as a transport

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self._transport.is_closing():
            try:
                self._secure.send(bytes(data))
            except SSL.Error:
                self._transport.abort()

    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    def write_eof(self) -> None:
        if not self._transport.is_closing():
            self._secure.end()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def is_reading(self) -> bool:
        return self._transport.is_reading()

    def close(self) -> None:
        if not self._transport.is_closing():
            self._secure.close()

    def abort(self) -> None:
        self._transport.abort()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()
