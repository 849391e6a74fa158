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
import select
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
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""No bytes yet. (What TLS itself has to write, it writes with what is written next.)"""


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
        self._loop: asyncio.AbstractEventLoop | None = None
        """Which watches the socket, from the first exchange on; while it is idle, too."""
        self._came = select.poll()
        self._came.register(self._fd, select.POLLIN)
        self._reader = Reader()
        self._answered: asyncio.Future[None] | None = None
        """What an exchange waits for: an answer, or an error."""
        self._answer: Response | Exception = Garbled()

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
        self._reader = Reader()
        keep = False
        try:
            self._answered = self._watch().create_future()
            await self._send(request)
            await self._answered
            if isinstance(self._answer, Exception):
                raise self._answer
            keep = self._answer.keep
            return self._answer
        except TooLong:
            raise Broken("garbled", TOO_LONG) from None
        except Garbled:
            raise Broken("garbled", GARBLED) from None
        except ConnectionError:
            raise Broken("cut", CUT, unanswered=not self._reader.begun) from None
        except OSError as error:
            kind, cause = cause_of(error)
            raise Broken(kind, cause, unanswered=not self._reader.begun) from None
        finally:
            self._answered, self._answer = None, Garbled()
            if not keep:
                self.close()

    @property
    def usable(self) -> bool:
        """Whether it is open and quiet: an end, or bytes that nobody asked for, spoil it."""
        if self._fd < 0:
            return False
        if not self._came.poll(0):
            return True
        try:
            self._sock.recv(1)
        except _LATER:  # what came was TLS's own
            return True
        except OSError:
            pass
        self.close()
        return False

    def close(self) -> None:
        """Ends it; a second call does nothing."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        self._loop = None
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

    # The loop's side

    def _watch(self) -> asyncio.AbstractEventLoop:
        """Has the loop call `_readable`. Once: to begin and end it costs more than to read."""
        if self._loop is None:
            if self._fd < 0:
                raise ConnectionResetError
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._fd, self._readable)
        return self._loop

    def _readable(self) -> None:
        answered = self._answered
        if answered is None:
            _ = self.usable  # closes it, if it is not
        elif not answered.done():
            try:
                answer: Response | Exception | None = self._receive()
            except (Garbled, OSError) as error:
                answer = error
            if answer is not None:
                self._answer = answer
                answered.set_result(None)

    def _receive(self) -> Response | None:
        """Reads all that is there; the answer once it is whole."""
        while True:
            try:
                data = self._sock.recv(_CHUNK)
            except _LATER:
                return None
            if not data:
                raise ConnectionResetError
            if (response := self._reader.feed(data)) is not None:
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
