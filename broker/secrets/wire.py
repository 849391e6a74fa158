"""One kept-alive connection to a Vault, on the event loop but not dialled by it.

A worker's loop dials what the egress guard pinned and nothing else (proxy/dialing.py, law 7), and
this does not touch that: name and connection are made in a thread of their own, to the one place
that the settings name, and the loop gets a socket that is connected. It reads and writes that
socket itself, which costs a third of what asyncio's TLS transport does.

An exchange that did not end with a whole answer closes the connection: what comes late must never
pass for the answer to the next question.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from broker.secrets.http1 import Garbled, Reader, Response, TooLong
from broker.secrets.trouble import CUT, GARBLED, NO_ANSWER, TOO_LONG, Kind, cause_of

_CHUNK = 1 << 16
_LATER = (BlockingIOError, ssl.SSLWantReadError)


class Broken(Exception):
    """The exchange came to nothing; `kind` and `cause` say why, in words of our own."""

    def __init__(self, kind: Kind, cause: str, *, unanswered: bool = False) -> None:
        super().__init__(cause)
        self.kind: Kind = kind
        self.cause = cause
        self.unanswered = unanswered
        """Not a byte came back, as when a kept connection had died meanwhile."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Vault listens."""

    host: str
    port: int
    tls: bool

    @classmethod
    def of(cls, url: str) -> Place:
        """The place that an http(s) URL names."""
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        return cls(parts.hostname or "", parts.port or (443 if tls else 80), tls)

    @property
    def authority(self) -> str:
        """As it stands in a Host field."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def _connect(place: Place, timeout: float) -> socket.socket:
    sock = socket.create_connection((place.host, place.port), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock


def _discard(dialled: Future[socket.socket]) -> None:
    if not dialled.cancelled() and dialled.exception() is None:
        dialled.result().close()


class Wire:
    """For one exchange at a time, on one event loop. Use `Wire.open`."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock` is connected and does not block."""
        self._sock = sock
        self._fd = sock.fileno()
        self.used = False
        """Whether it has carried an exchange, so that its end may have gone meanwhile."""

    @classmethod
    async def open(
        cls,
        place: Place,
        context: ssl.SSLContext | None,
        dialers: ThreadPoolExecutor,
        timeout: float,
    ) -> Wire:
        """A new connection, TLS included, which takes as long as the caller lets it.

        `timeout` (seconds) ends the dial of one address. Raises Broken.
        """
        dialled = dialers.submit(_connect, place, timeout)
        try:
            sock = await asyncio.wrap_future(dialled)
        except asyncio.CancelledError:
            dialled.add_done_callback(_discard)
            raise
        except OSError as error:
            kind, cause = cause_of(error)
            raise Broken(kind, cause, unanswered=True) from None
        if context is None:
            return cls(sock)
        try:
            secured = context.wrap_socket(
                sock, server_hostname=place.host, do_handshake_on_connect=False
            )
        except (OSError, ValueError) as error:
            sock.close()
            raise Broken("tls", cause_of(error)[1]) from None
        wire = cls(secured)
        try:
            await wire._handshake(secured)
        except BaseException:
            wire.close()
            raise
        return wire

    async def _handshake(self, sock: ssl.SSLSocket) -> None:
        while True:
            try:
                sock.do_handshake()
            except ssl.SSLWantReadError:
                await self._ready(writing=False)
            except ssl.SSLWantWriteError:
                await self._ready(writing=True)
            except OSError as error:
                kind, cause = cause_of(error)
                raise Broken(kind, cause) from None
            else:
                return

    async def exchange(self, request: bytes) -> Response:
        """Sends the request and returns the whole answer. Raises Broken."""
        reader = Reader()
        keep = False
        try:
            await self._send(request)
            while True:
                await self._ready(writing=False)
                if (response := await self._receive(reader)) is not None:
                    keep = response.keep
                    return response
        except TooLong:
            raise Broken("garbled", TOO_LONG) from None
        except Garbled:
            raise Broken("garbled", GARBLED) from None
        except ConnectionError:
            raise Broken("cut", CUT, unanswered=not reader.begun) from None
        except OSError as error:
            kind, cause = cause_of(error)
            raise Broken(kind, cause, unanswered=not reader.begun) from None
        finally:
            self.used = True
            if not keep:
                self.close()

    @property
    def usable(self) -> bool:
        """Whether it is open and quiet: an end, or bytes that nobody asked for, spoil it."""
        if self._fd < 0:
            return False
        try:
            self._sock.recv(1)
        except _LATER:
            return True
        except OSError:
            pass
        self.close()
        return False

    def close(self) -> None:
        """Ends it; a second call does nothing."""
        self._fd = -1
        self._sock.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                await self._ready(writing=True)
            except ssl.SSLWantReadError:
                await self._ready(writing=False)

    async def _receive(self, reader: Reader) -> Response | None:
        """Reads all that is there; the answer once it is whole."""
        while True:
            try:
                data = self._sock.recv(_CHUNK)
            except _LATER:
                return None
            except ssl.SSLWantWriteError:
                await self._ready(writing=True)
                continue
            if not data:
                raise ConnectionResetError
            if (response := reader.feed(data)) is not None:
                return response

    async def _ready(self, *, writing: bool) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        fd = self._fd
        if fd < 0:
            raise ConnectionResetError
        add, remove = (
            (loop.add_writer, loop.remove_writer)
            if writing
            else (loop.add_reader, loop.remove_reader)
        )
        add(fd, _settle, ready)
        try:
            await ready
        finally:
            remove(fd)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


__all__ = ["NO_ANSWER", "Broken", "Place", "Wire"]
