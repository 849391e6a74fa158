"""Exhaustion: what one agent pours in is bounded, and the others are served meanwhile."""

from __future__ import annotations

import contextlib
import gzip
import socket
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import brotli  # type: ignore[import-untyped]
import pytest

from tests.attacks.stage import Stage, say, speak_h2
from tests.support.program import basic
from tests.support.upstream import Reply

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.e2e

ODD = "request_ambiguous"
LARGE = "body_too_large"
LIMIT = 10 << 20
MEBIBYTE = 1 << 20


@pytest.fixture(autouse=True)
def served_afterwards(stage: Stage) -> Iterator[None]:
    """After every one of these another agent is served, on a new connection."""
    yield
    stage.lawful()
    stage.begin()
    assert stage.ask(stage.get("/open/after"), agent=stage.agents["other"]).status == 404


def memory(stage: Stage) -> int:
    """Bytes of memory that all of the program's Python processes have now."""
    assert stage.kb.process is not None
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError, KeyError, ValueError):
            lines = dict(
                line.split(":", 1) for line in status.read_text().splitlines() if ":" in line
            )
            session = int((status.parent / "stat").read_text().rpartition(")")[2].split()[3])
            if session == stage.kb.process.pid and "VmRSS" in lines:
                total += int(lines["VmRSS"].split()[0]) * 1024
    assert total > 0
    return total


HEADERS = [
    ("one-of-2-mb", lambda: [b"X-A: " + b"a" * (2 << 20)]),
    ("2-mb-in-many", lambda: [b"X-%d: " % n + b"a" * 1000 for n in range(2000)]),
    ("10000", lambda: [b"X-%d: a" % n for n in range(10000)]),
    ("201", lambda: [b"X-%d: a" % n for n in range(201)]),
    ("64-kb", lambda: [b"X-A: " + b"a" * (64 << 10)]),
    ("a-long-name", lambda: [b"X" * 5000 + b": a"]),
    ("10000-of-one-name", lambda: [b"Accept: a"] * 5000),
    ("a-long-cookie", lambda: [b"Cookie: " + b"a=b; " * 20000]),
]


@pytest.mark.parametrize(("name", "lines"), HEADERS, ids=[name for name, _ in HEADERS])
@pytest.mark.parametrize("way", ["tunnel", "connect", "plain"])
def test_headers(stage: Stage, name: str, lines: Callable[[], list[bytes]], way: str) -> None:
    more = b"\r\n".join([*lines(), b"", b""])
    if way == "tunnel":
        got = stage.ask(stage.get("/open/x")[:-2] + more)
    else:
        auth = f"Proxy-Authorization: {basic(stage.bot)}"
        host = stage.at() if way == "connect" else f"localhost:{stage.plain.port}"
        line = f"CONNECT {host}" if way == "connect" else f"GET http://{host}/open/x"
        got = stage.raw(
            f"{line} HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n".encode() + more, patience=1
        )
    if way == "connect" and got.status == 200:
        return  # a tunnel was opened, nothing was sent: its calls are judged inside
    stage.held(got)
    # Keybroker closes before all was taken in: then the answer may be lost on the way.
    assert got.codes == [ODD] or got.data == b"", got.data


def test_a_long_request_line(stage: Stage) -> None:
    for size in (17_000, 70_000, 2 << 20):
        got = stage.ask(stage.get("/open/" + "a" * size))
        stage.held(got)
        assert got.codes == [ODD] or got.data == b""


BODIES = [
    ("length", b"Content-Length: %d\r\n" % (LIMIT + 1), False),
    ("length-of-a-terabyte", b"Content-Length: %d\r\n" % (1 << 40), False),
    ("chunks", b"Transfer-Encoding: chunked\r\n", True),
    ("expect", b"Expect: 100-continue\r\nContent-Length: %d\r\n" % (LIMIT + 1), False),
]


@pytest.mark.parametrize(("name", "framing", "chunks"), BODIES, ids=[row[0] for row in BODIES])
def test_bodies(stage: Stage, name: str, framing: bytes, chunks: bool) -> None:
    head = stage.get("/open/x", method="POST")[:-2] + framing + b"\r\n"
    if chunks:
        chunk = b"%x\r\n%s\r\n" % (MEBIBYTE, bytes(MEBIBYTE))
        head += chunk * 11 + b"0\r\n\r\n"
    got = stage.ask(head)
    stage.held(got)
    assert got.codes == [LARGE] or (chunks and got.data == b""), got.data


def test_an_http2_body(stage: Stage) -> None:
    fields = [(":method", "POST"), (":scheme", "https"), (":authority", stage.at())]
    fields += [(":path", "/open/x"), ("content-length", str(LIMIT + 1))]
    with stage.tls(alpn=("h2",)) as sock:
        got = speak_h2(sock, fields, b"x")
    stage.held(got)
    assert got.codes == [LARGE] or got.status == 0


def test_a_body_at_the_limit_arrives(stage: Stage) -> None:
    assert stage.ask(stage.get("/open/x", method="POST", body=bytes(LIMIT))).status == 404
    (request,) = stage.arrived
    assert len(request.body) == LIMIT


def test_half_sent_heads(stage: Stage) -> None:
    """200 connections that never finish a line, in every state that a connection has."""
    auth = f"Proxy-Authorization: {basic(stage.bot)}"
    before = memory(stage)
    with contextlib.ExitStack() as stack:
        for number in range(200):
            sock = stack.enter_context(stage.dial())
            sock.sendall(
                [
                    b"",
                    b"CONN",
                    f"CONNECT {stage.at()} HTTP/1.1\r\nX: ".encode(),
                    f"CONNECT {stage.at()} HTTP/1.1\r\n{auth}\r\n\r\n".encode(),
                    b"\x16\x03\x01\x02\x00",
                ][number % 5]
            )
        assert stage.ask(stage.get("/open/x")).status == 404
        assert memory(stage) - before < 40 * MEBIBYTE
    assert len(stage.arrived) == 1


def test_a_head_that_comes_slowly_sends_nothing(stage: Stage) -> None:
    with stage.tls() as sock:
        for byte in stage.get("/open/x")[:-1]:
            sock.sendall(bytes([byte]))
        stage.held(say(sock, b"", patience=0.3))


def test_too_many_held_calls(stage: Stage) -> None:
    """The agent's own limit; other agents are held as before."""
    codes: list[str] = []
    with stage.tls(agent=stage.agents["glutton"]) as sock:
        for number in range(260):
            lines = ["Prefer: respond-async", "Content-Type: text/plain"]
            data = stage.get(f"/ask/many-{number}", *lines, method="POST", body=b"x")
            got = say(sock, data)
            codes += got.codes
            if got.codes == ["too_many_pending"]:
                assert got.status == 429
                assert b"\r\nretry-after: " in got.data.lower()
                break
    assert codes[-1] == "too_many_pending"
    assert codes.count("approval_pending") >= 100
    stage.held(stage.ask(stage.get("/ask/other", "Prefer: respond-async")), "approval_pending")


def test_pipelined_into_a_hold(stage: Stage) -> None:
    """What comes behind a held call is kept up to a bound, then the connection is closed."""
    before = memory(stage)
    held = stage.get("/ask/pipe", method="POST", body=b"x")
    with stage.tls(agent=stage.agents["other"]) as sock:
        got = say(sock, held + stage.get("/open/x") * 40_000, patience=5)
        say(sock, b"", patience=0.5)
    assert memory(stage) - before < 40 * MEBIBYTE
    stage.held(got)


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(MEBIBYTE)) for _ in range(size)) + packer.flush()


WIDE = {zstd.CompressionParameter.window_log: 27}
"""A window of 128 MiB, which the reader would have to keep."""
BOMBS = [
    ("gzip", "gzip", lambda: bomb(64)),
    ("gzip-in-gzip", "gzip, gzip", lambda: gzip.compress(bomb(64))),
    ("members", "gzip", lambda: gzip.compress(b"") * 100_000),
    ("br", "br", lambda: brotli.compress(bytes(64 * MEBIBYTE), quality=3)),
    ("zstd", "zstd", lambda: zstd.compress(bytes(64 * MEBIBYTE))),
    ("zstd-wide-window", "zstd", lambda: zstd.compress(bytes(64 * MEBIBYTE), options=WIDE)),
    ("zstd-in-br", "zstd, br", lambda: brotli.compress(zstd.compress(bytes(64 * MEBIBYTE)))),
    ("frames", "zstd", lambda: zstd.compress(b"") * 100_000),
]


@pytest.mark.parametrize(("name", "coding", "make"), BOMBS, ids=[name for name, *_ in BOMBS])
def test_a_response_that_swells(
    stage: Stage, name: str, coding: str, make: Callable[[], bytes]
) -> None:
    body = make()
    stage.upstream.answer("/made/x", Reply(headers=(("Content-Encoding", coding),), body=body))
    before = memory(stage)
    with stage.tls() as sock:
        sock.sendall(stage.get("/made/x"))
        size = 0
        sock.settimeout(10)
        with contextlib.suppress(OSError):
            while size < 3 * MEBIBYTE and (data := sock.recv(1 << 16)):
                size += len(data)
                if data.endswith(b"0\r\n\r\n"):
                    break
        grown = memory(stage) - before
    assert grown < 96 * MEBIBYTE, f"{grown >> 20} MiB"
    stage.upstream.answer("/made/x", Reply())


RESPONSES = [
    ("endless-early-hints", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 5000),
    ("endless-head", b"HTTP/1.1 200 OK\r\n" + b"X-A: aaaaaaaa\r\n" * 100_000),
    ("endless-line", b"HTTP/1.1 200 " + b"a" * MEBIBYTE),
    (
        "endless-chunk-size",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * MEBIBYTE,
    ),
]


@pytest.mark.parametrize(("name", "data"), RESPONSES, ids=[name for name, _ in RESPONSES])
def test_responses(stage: Stage, name: str, data: bytes) -> None:
    stage.upstream.answer("/made/x", Reply(raw=data))
    got = stage.ask(stage.get("/made/x"), patience=5)
    stage.held(got, arrived=1)
    assert got.status in (200, 502)
    stage.upstream.answer("/made/x", Reply())


# --- HTTP/2 frames by hand ---------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + struct.pack(">I", 0)[1:] + b"\x04\x00" + bytes(4)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def request_block(stage: Stage, path: bytes = b"/open/x") -> bytes:
    """HPACK without indexing or Huffman (RFC 7541 6.2.2)."""
    pairs = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", path)]
    pairs.append((b":authority", stage.at().encode()))
    return b"".join(b"\0" + bytes([len(n)]) + n + bytes([len(v)]) + v for n, v in pairs)


FLOODS: list[tuple[str, Callable[[Stage], bytes]]] = [
    (
        "continuations",
        lambda s: frame(1, 0, 1, request_block(s)) + frame(9, 0, 1, b"\0\1x\1y" * 500) * 2000,
    ),
    ("empty-continuations", lambda s: frame(1, 0, 1, request_block(s)) + frame(9, 0, 1) * 20_000),
    ("settings", lambda s: frame(4, 0, 0, struct.pack(">HI", 4, 65535)) * 5000),
    ("pings", lambda s: frame(6, 0, 0, bytes(8)) * 20_000),
    ("priorities", lambda s: b"".join(frame(2, 0, n, bytes(5)) for n in range(1, 20_000, 2))),
    (
        "rapid-reset",
        lambda s: b"".join(
            frame(1, 5, n, request_block(s)) + frame(3, 0, n, struct.pack(">I", 8))
            for n in range(1, 2000, 2)
        ),
    ),
    (
        "too-many-streams",
        lambda s: b"".join(frame(1, 4, n, request_block(s)) for n in range(1, 4000, 2)),
    ),
    (
        "hpack-bomb",
        lambda s: frame(1, 4, 1, b"\x40\1a\x7f\xff\x1f" + b"b" * 4000 + b"\xbe" * 12_000),
    ),
    ("frame-too-large", lambda s: frame(0, 0, 1, bytes(1 << 20))),
    (
        "window-of-zero",
        lambda s: (
            frame(4, 0, 0, struct.pack(">HI", 4, 0)) + frame(1, 5, 1, request_block(s, b"/echo"))
        ),
    ),
    ("window-overflow", lambda s: frame(8, 0, 0, struct.pack(">I", 2**31 - 1)) * 3),
    ("data-without-stream", lambda s: frame(0, 1, 7, b"x")),
    ("even-stream", lambda s: frame(1, 5, 2, request_block(s))),
    ("push-promise", lambda s: frame(5, 4, 1, struct.pack(">I", 2) + request_block(s))),
]


@pytest.mark.parametrize(("name", "flood"), FLOODS, ids=[name for name, _ in FLOODS])
def test_http2_floods(stage: Stage, name: str, flood: Callable[[Stage], bytes]) -> None:
    before = memory(stage)
    with stage.tls(alpn=("h2",)) as sock:
        with contextlib.suppress(OSError):
            sock.settimeout(5)
            sock.sendall(PREFACE + flood(stage))
        got = say(sock, b"", patience=0.5)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
    assert memory(stage) - before < 64 * MEBIBYTE
    assert b"internal_error" not in got.data
