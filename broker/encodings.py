"""Takes off gzip and deflate content codings (RFC 9110 8.4.1), in a stream of bounded pieces. Pure.

Anything else is unsupported: what cannot be read cannot be scrubbed. Malformed input raises
CorruptBody; nothing is guessed or skipped.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

from broker.errors import KeybrokerError

PIECE = 1 << 20
"""Bytes of the largest piece that comes out at once, however far the input was compressed."""
MAX_CODINGS = 2
"""More on top of each other are unsupported: nobody needs them but who hides something."""

_GZIP = ("gzip", "x-gzip")
_MAGIC = {b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


class CorruptBody(KeybrokerError):
    """An encoded body is truncated or malformed."""


def codings(content_encoding: str | None) -> tuple[str, ...]:
    """The codings that a Content-Encoding value names, in the order applied, without `identity`."""
    names = (name.strip().lower() for name in (content_encoding or "").split(","))
    return tuple(name for name in names if name not in ("", "identity"))


def unsupported(content_encoding: str | None) -> bool:
    """Whether a body with this Content-Encoding (several lines joined by commas) cannot be read."""
    named = codings(content_encoding)
    return len(named) > MAX_CODINGS or any(name not in (*_GZIP, "deflate") for name in named)


def compressed_as(start: bytes) -> str | None:
    """`gzip` or `zstd` if a body that begins so (4 bytes suffice) is compressed that way."""
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)


class _Coding(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def finish(self) -> None: ...


class Decoder:
    """One body, in order: iterate over `feed` for each chunk, then over `finish`.

    Every piece has at most PIECE bytes and is made when it is asked for, so who stops asking stops
    a decompression bomb. A body without a coding passes as it is; if it begins as gzip or zstd do
    all the same, `disguise` says so before anything of it comes out.
    """

    def __init__(self, content_encoding: str | None) -> None:
        """Raises CorruptBody for an unsupported encoding (ask `unsupported` first)."""
        if unsupported(content_encoding):
            raise CorruptBody("the response has a content encoding that Keybroker cannot read")
        named = codings(content_encoding)
        self._stages: list[_Coding] = [
            _Gzip() if name in _GZIP else _Deflate() for name in reversed(named)
        ]
        self._start: bytes | None = None if named else b""
        self.disguise: str | None = None
        """`gzip` or `zstd`: what an undeclared body turned out to be; None if nothing."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The decoded pieces of `chunk`. Raises CorruptBody; then the body is over."""
        if self._start is not None:
            chunk = self._start + chunk
            if any(magic.startswith(chunk) and magic != chunk for magic in _MAGIC):
                self._start = chunk  # too little to tell
                return iter(())
            self._start, self.disguise = None, compressed_as(chunk)
        return self._through(0, chunk) if chunk else iter(())

    def finish(self) -> Iterator[bytes]:
        """What is left. Raises CorruptBody if the body ends before its coding does."""
        rest, self._start = self._start, None
        for stage in self._stages:
            stage.finish()
        return iter((rest,)) if rest else iter(())

    def _through(self, stage: int, data: bytes) -> Iterator[bytes]:
        if stage == len(self._stages):
            yield data
            return
        for piece in self._stages[stage].feed(data):
            yield from self._through(stage + 1, piece)


def _inflate(stream: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    """Pieces of at most PIECE bytes, until `data` is used up or the stream ends."""
    while True:
        try:
            piece = stream.decompress(data, PIECE)
        except zlib.error as error:
            raise CorruptBody("the response is not what its content encoding says") from error
        if piece:
            yield piece
        data = stream.unconsumed_tail
        if stream.eof or (not data and len(piece) < PIECE):
            return


class _Gzip:
    """RFC 1952: one or more members, the last maybe followed by zero bytes (as gzip(1) allows)."""

    def __init__(self) -> None:
        self._stream: zlib._Decompress | None = None
        self._padding = False
        self._members = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._stream is None:
                self._padding = self._padding or (self._members > 0 and data[0] == 0)
                if self._padding:
                    if data.strip(b"\0"):
                        raise CorruptBody("there is something behind the end of the gzip body")
                    return
                self._stream = zlib.decompressobj(wbits=31)
            yield from _inflate(self._stream, data)
            if not self._stream.eof:
                return
            data = self._stream.unused_data
            self._stream = None
            self._members += 1

    def finish(self) -> None:
        if self._stream is not None:
            raise CorruptBody("the gzip body ends in the middle")


class _Deflate:
    """RFC 9110 8.4.1.2: zlib (RFC 1950), or as some servers do, bare deflate (RFC 1951)."""

    def __init__(self) -> None:
        self._start = b""
        self._stream: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._stream is None:
            data = self._start + data
            if len(data) < 2:
                self._start = data
                return
            zlib_header = data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
            self._stream = zlib.decompressobj(wbits=15 if zlib_header else -15)
        if self._stream.eof:
            self._refuse(data)
        yield from _inflate(self._stream, data)
        self._refuse(self._stream.unused_data)

    def finish(self) -> None:
        if (self._start and self._stream is None) or (self._stream and not self._stream.eof):
            raise CorruptBody("the deflate body ends in the middle")

    def _refuse(self, rest: bytes) -> None:
        if rest:
            raise CorruptBody("there is something behind the end of the deflate body")
