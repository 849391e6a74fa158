"""Takes off the content codings gzip, deflate (RFC 9110 8.4.1), br (RFC 7932) and zstd (RFC 8878),
in a stream of bounded pieces. Pure.

Anything else is unsupported: what cannot be read cannot be scrubbed. Malformed input raises
CorruptBody; nothing is guessed or skipped.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from broker.errors import KeybrokerError

PIECE = 1 << 20
"""Bytes of the largest piece that comes out at once, however far the input was compressed."""
MAX_CODINGS = 2
"""More on top of each other are unsupported: nobody needs them but who hides something."""

MAX_WINDOW_LOG = 23
"""8 MiB: the most that a zstd decoder must keep for a content coding (RFC 9659)."""

_GZIP = ("gzip", "x-gzip")
_MAGIC = {
    b"\x1f\x8b\x08": "gzip",
    b"\x1f\x9d": "compress",
    b"\x28\xb5\x2f\xfd": "zstd",
    **{bytes((low,)) + b"\x2a\x4d\x18": "zstd" for low in range(0x50, 0x60)},
    **{b"BZh%d1AY&SY" % level: "bzip2" for level in range(1, 10)},
    b"\xfd7zXZ\0": "xz",
    b"\x04\x22\x4d\x18": "lz4",
    # No text in UTF-8 begins so; the fourth level (`x^`) could be one.
    b"\x78\x01": "zlib",
    b"\x78\x9c": "zlib",
    b"\x78\xda": "zlib",
}
"""How compressed data begin. Bare deflate and br have no such mark."""
_MARKS = tuple(_MAGIC)
_LONGEST_MARK = max(map(len, _MARKS))


class CorruptBody(KeybrokerError):
    """An encoded body is truncated or malformed."""


def codings(content_encoding: str | None) -> tuple[str, ...]:
    """The codings that a Content-Encoding value names, in the order applied, without `identity`."""
    if not content_encoding:
        return ()
    names = (name.strip().lower() for name in content_encoding.split(","))
    return tuple(name for name in names if name not in ("", "identity"))


def unsupported(content_encoding: str | None) -> bool:
    """Whether a body with this Content-Encoding (several lines joined by commas) cannot be read."""
    named = codings(content_encoding)
    return len(named) > MAX_CODINGS or not _CODINGS.keys() >= set(named)


def compressed_as(start: bytes) -> str | None:
    """What a body that begins so (10 bytes suffice) is compressed with, as far as one can tell."""
    if not start.startswith(_MARKS):
        return None
    return next(name for magic, name in _MAGIC.items() if start.startswith(magic))


class _Coding(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def finish(self) -> None: ...


class Decoder:
    """One body, in order: iterate over `feed` for each chunk, then over `finish`.

    Every piece has at most PIECE bytes and is made when it is asked for, so who stops asking stops
    a decompression bomb. A body without a coding passes as it is; if it begins as compressed ones
    do all the same, `disguise` says so before anything of it comes out.
    """

    def __init__(self, content_encoding: str | None) -> None:
        """Raises CorruptBody for an unsupported encoding (ask `unsupported` first)."""
        if unsupported(content_encoding):
            raise CorruptBody("the response has a content encoding that Keybroker cannot read")
        named = codings(content_encoding)
        self._stages: list[_Coding] = [_CODINGS[name]() for name in reversed(named)]
        self._start: bytes | None = None if named else b""
        self.disguise: str | None = None
        """What an undeclared body turned out to be compressed with; None if with nothing."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The decoded pieces of `chunk`. Raises CorruptBody; then the body is over."""
        if self._start is not None:
            chunk = self._start + chunk
            if len(chunk) < _LONGEST_MARK and any(
                magic.startswith(chunk) and magic != chunk for magic in _MARKS
            ):
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


class _Brotli:
    """RFC 7932: one stream, and nothing behind it."""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data or self._begun:
            self._begun = True
            try:
                out: bytes = self._stream.process(data, output_buffer_limit=PIECE)
            except brotli.error as error:
                raise CorruptBody("the response is not what its content encoding says") from error
            # The limit is passed by as much as one of its inner blocks has.
            yield from (out[at : at + PIECE] for at in range(0, len(out), PIECE))
            data = b""
            if not out and self._stream.can_accept_more_data():
                return
            if self._stream.is_finished():
                return

    def finish(self) -> None:
        if self._begun and not self._stream.is_finished():
            raise CorruptBody("the br body ends in the middle")


class _Zstd:
    """RFC 8878: one or more frames, skippable ones among them."""

    def __init__(self) -> None:
        self._frame: zstd.ZstdDecompressor | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data or (self._frame is not None and not self._frame.needs_input):
            if self._frame is None:
                limit: dict[int, int] = {zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
                self._frame = zstd.ZstdDecompressor(options=limit)
            try:
                piece = self._frame.decompress(data, PIECE)
            except zstd.ZstdError as error:
                raise CorruptBody("the response is not what its content encoding says") from error
            data = b""
            if piece:
                yield piece
            if self._frame.eof:
                data = self._frame.unused_data
                self._frame = None

    def finish(self) -> None:
        if self._frame is not None:
            raise CorruptBody("the zstd body ends in the middle")


_CODINGS: Mapping[str, Callable[[], _Coding]] = {
    **dict.fromkeys(_GZIP, _Gzip),
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstd,
}
