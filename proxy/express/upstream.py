"""A connection to an upstream: one request at a time, and what comes back told to its asker."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from mitmproxy import http
from OpenSSL import SSL

from proxy import pages
from proxy.dialing import TOO_SLOW
from proxy.express.replies import ReplyReader, Unreadable
from proxy.express.secure import Secure
from proxy.patience import Timeouts, slow_connect_sentence, slow_tls_sentence
from proxy.tls import Tls
from proxy.translate import Fields

Place = tuple[str, str, int]
"""Scheme, host, port."""


class NoUpstream(Exception):
    """There is no connection, and nothing was sent. The message is a fixed sentence."""


class Asker(Protocol):
    """Told of the response, in order; must not raise. One of the last two comes, once."""

    def on_head(self, response: http.Response) -> None: ...
    def on_data(self, data: bytes) -> None: ...
    def on_end(self, trailers: Fields) -> None: ...
    def on_break(self) -> None: ...
    def on_turn(self) -> None:
        """All that had come was told; more may be long in coming."""


class Upstream(asyncio.Protocol):
    """Made by `connect`; over when `open` is False."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.open = False
        self._transport: asyncio.Transport | None = None
        self._secure: Secure | None = None
        self._ready: asyncio.Future[None] | None = None
        self._reader = ReplyReader()
        self._asker: Asker | None = None
        self._headed = False

    @classmethod
    async def connect(cls, place: Place, tls: Tls, timeouts: Timeouts) -> Upstream:
        """A connection to where the egress guard has pinned `place`, TLS verified. Raises
        NoUpstream."""
        loop = asyncio.get_running_loop()
        scheme, host, port = place
        upstream = cls(place)
        try:
            transport, _ = await loop.create_connection(lambda: upstream, host, port)
        except OSError as error:
            slow = TOO_SLOW in str(error)
            raise NoUpstream(
                slow_connect_sentence(timeouts) if slow else pages.NO_CONNECTION
            ) from error
        try:
            if scheme == "https":
                secure = Secure(tls.with_upstream((host, port)), transport)
                await upstream._shake(secure, timeouts)
        except BaseException:
            transport.abort()
            raise
        if transport.is_closing():
            raise NoUpstream(pages.NOT_SET_UP)
        upstream.open = True
        return upstream

    async def _shake(self, secure: Secure, timeouts: Timeouts) -> None:
        self._secure = secure
        self._ready = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeouts.tls):
                if not secure.shake():
                    await self._ready
            if secure.receive() or secure.ended:
                raise NoUpstream(pages.NOT_SET_UP)  # it speaks, or leaves, unasked
        except TimeoutError as error:
            raise NoUpstream(slow_tls_sentence(timeouts)) from error
        except SSL.Error as error:
            unverified = "verify failed" in str(error)
            raise NoUpstream(pages.UNVERIFIED if unverified else pages.NOT_SET_UP) from error
        finally:
            self._ready = None

    def ask(self, request: bytes, method: bytes, asker: Asker) -> None:
        """Sends the whole request. Raises Unreadable or SSL.Error if that is impossible; some of it
        may have left."""
        assert self._transport is not None
        self._reader.begin(method)
        self._headed = False
        self._asker = asker
        if self._secure is None:
            self._transport.write(request)
        else:
            self._secure.send(request)

    def abort(self) -> None:
        """Hangs up at once, and tells nobody."""
        self._asker = None
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """The response is to be read no further for now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Reading goes on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        if self._ready is not None:
            self._go_on_shaking(data)
            return
        try:
            plain = data if self._secure is None else self._secure.receive(data)
            if self._asker is None:
                if plain:
                    self.abort()  # nobody asked
            elif plain:
                self._reader.take(plain)
                self._tell()
            if self._secure is not None and self._secure.ended:
                self._over()
        except (Unreadable, SSL.Error):
            self._break()
        finally:
            if self._asker is not None:
                self._asker.on_turn()

    def eof_received(self) -> bool:
        self._over()
        return False  # asyncio closes

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(NoUpstream(pages.NOT_SET_UP))
        self._break()

    def _go_on_shaking(self, data: bytes) -> None:
        assert self._ready is not None
        assert self._secure is not None
        try:
            if self._secure.shake(data) and not self._ready.done():
                self._ready.set_result(None)
        except SSL.Error as error:
            if not self._ready.done():
                self._ready.set_exception(error)

    def _tell(self) -> None:
        asker = self._asker
        while asker is not None and asker is self._asker:
            if not self._headed:
                response = self._reader.head()
                if response is None:
                    return
                self._headed = True
                asker.on_head(response)
                continue
            data, over = self._reader.parts()
            if data:
                asker.on_data(data)
            if asker is not self._asker or over is False:
                return
            if over is not True:
                raise over
            self._end()

    def _over(self) -> None:
        """Nothing more will come."""
        self.open = False
        if self._asker is None:
            self.abort()
            return
        if self._secure is not None and not self._secure.finished:
            self._break()  # anybody on the way can end TCP (RFC 9112 9.8)
            return
        try:
            while self._asker is not None and (part := self._reader.eof()):
                self._asker.on_data(part)
        except Unreadable:
            self._break()
        else:
            self._end()

    def _end(self) -> None:
        asker, self._asker = self._asker, None
        if not self._reader.reusable:
            self.open = False
            if self._transport is not None:
                self._transport.close()
        if asker is not None:
            asker.on_end(self._reader.trailers)
            asker.on_turn()

    def _break(self) -> None:
        asker = self._asker
        self.abort()
        if asker is not None:
            asker.on_break()
            asker.on_turn()
