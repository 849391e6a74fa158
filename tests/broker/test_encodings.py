"""Encoded bodies come out whole, in bounded pieces, or not at all."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.encodings import (
    PIECE,
    CorruptBody,
    Decoder,
    codings,
    compressed_as,
    unsupported,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def members(data: bytes) -> bytes:
    return gzip.compress(data[:7]) + gzip.compress(b"") + gzip.compress(data[7:]) + bytes(20)


def frames(data: bytes) -> bytes:
    """Several, one of them to be skipped."""
    skipped = b"\x5a\x2a\x4d\x18\x03\0\0\0..."
    return zstd.compress(data[:7]) + skipped + zstd.compress(data[7:])


ENCODERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("identity", bytes),
    ("gzip", gzip.compress),
    ("X-GZip", gzip.compress),
    ("gzip", members),
    ("deflate", zlib.compress),
    ("deflate", bare_deflate),
    ("gzip, deflate", lambda data: zlib.compress(gzip.compress(data))),
    ("br", brotli.compress),
    ("BR, gzip", lambda data: gzip.compress(brotli.compress(data))),
    ("zstd", zstd.compress),
    ("zstd", lambda data: frames(data)),
    ("identity, , gzip", gzip.compress),
]


def decode(encoding: str | None, *chunks: bytes) -> bytes:
    decoder = Decoder(encoding)
    out = [piece for chunk in chunks for piece in decoder.feed(chunk)]
    return b"".join([*out, *decoder.finish()])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(ENCODERS), st.binary(max_size=300), st.lists(st.integers(0), max_size=8))
def test_comes_out_whole_however_it_was_cut(
    encoder: tuple[str, Callable[[bytes], bytes]], data: bytes, places: list[int]
) -> None:
    encoding, encode = encoder
    assert decode(encoding, *cut(encode(data), places)) == data


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["gzip", "deflate", "gzip, deflate", "br", "zstd", ""]),
    st.lists(st.binary(), max_size=4),
)
def test_nonsense_raises_the_one_error(encoding: str, chunks: list[bytes]) -> None:
    try:
        decode(encoding, *chunks)
    except CorruptBody as error:
        assert str(error)  # noqa: PT017


@pytest.mark.parametrize(("encoding", "encode"), ENCODERS[1:-1])
def test_truncated_is_refused(encoding: str, encode: Callable[[bytes], bytes]) -> None:
    body = encode(b"The quick brown fox jumps over the lazy dog." * 20).rstrip(b"\0")
    for size in (1, 2, 5, 15, len(body) // 2, len(body) - 1):
        with pytest.raises(CorruptBody):
            decode(encoding, body[:size])


@pytest.mark.parametrize(("encoding", "encode"), ENCODERS[1:-1])
def test_something_behind_the_end_is_refused(
    encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    body = encode(b"the body")
    for rest in (b"x", b"\0x", b"\x1f\x8b"):
        for chunks in ([body + rest], [body, rest], [body, *(rest[i : i + 1] for i in range(2))]):
            with pytest.raises(CorruptBody):
                decode(encoding, *chunks)


def checked(data: bytes) -> bytes:
    """With the checksum that zstd frames may have."""
    options = {zstd.CompressionParameter.checksum_flag: 1}
    return zstd.compress(data, options=options)


def test_a_changed_byte_is_refused() -> None:
    for encoding, encode in (
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("zstd", checked),
    ):
        body = bytearray(encode(b"checksums are checked " * 9))
        body[-2] ^= 1
        with pytest.raises(CorruptBody):
            decode(encoding, bytes(body))


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_no_body_at_all_is_empty(encoding: str) -> None:
    assert decode(encoding) == decode(encoding, b"") == b""


@pytest.mark.parametrize(
    "encoding", ["dcb", "zstd, x", "gzip, lz4", "compress", "gzip;q=1", "br, " * 3]
)
def test_others_are_unsupported(encoding: str) -> None:
    assert unsupported(encoding)
    with pytest.raises(CorruptBody):
        Decoder(encoding)


def test_supported() -> None:
    assert not any(map(unsupported, [None, "", "identity", "gzip", "GZIP", "deflate", "x-gzip"]))
    assert codings("GZip , identity,deflate") == ("gzip", "deflate")


BOMBS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate, gzip": lambda data: gzip.compress(zlib.compress(data)),
    "br": lambda data: brotli.compress(data, quality=3),
    "zstd": zstd.compress,
    "br, zstd": lambda data: zstd.compress(brotli.compress(data, quality=3)),
}


@pytest.mark.parametrize("encoding", list(BOMBS))
def test_a_bomb_stays_small(encoding: str) -> None:
    body = BOMBS[encoding](bytes(64 << 20))
    tracemalloc.start()
    decoder, size = Decoder(encoding), 0
    for piece in decoder.feed(body):
        assert len(piece) <= PIECE
        size += len(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == 64 << 20
    assert peak < 5 * PIECE


def test_a_zstd_window_larger_than_a_content_coding_may_have_is_refused() -> None:
    options = {zstd.CompressionParameter.window_log: 27}
    with pytest.raises(CorruptBody):
        decode("zstd", zstd.compress(bytes(64 << 20), options=options))


DISGUISES = [
    (gzip.compress(b"hello"), "gzip"),
    (zlib.compress(b"hello"), "zlib"),
    (zstd.compress(b"hello"), "zstd"),
    (frames(b"")[9:], "zstd"),
    (bz2.compress(b"hello"), "bzip2"),
    (lzma.compress(b"hello"), "xz"),
]


@pytest.mark.parametrize("size", range(1, 12))
def test_tells_compressed_bodies_that_are_not_declared(size: int) -> None:
    for body, name in DISGUISES:
        assert compressed_as(body) == name
        decoder, out = Decoder(None), b""
        for chunk in cut(body, [size]):
            out += b"".join(decoder.feed(chunk))
            assert decoder.disguise == name or not out
        assert out + b"".join(decoder.finish()) == body
        assert decoder.disguise == name


def test_plain_bodies_pass_at_once() -> None:
    decoder = Decoder("identity")
    assert b"".join(decoder.feed(b"a")) == b"a"
    assert decoder.disguise is None
    assert decode(None, b"\x1f\x8b") == b"\x1f\x8b"
