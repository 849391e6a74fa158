"""Framing: one message is one message to everyone who reads it; what could be two is refused."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.attacks.stage import Got, Stage
from tests.support.program import basic

pytestmark = pytest.mark.e2e

ODD = "request_ambiguous"
WAYS = ["tunnel", "plain"]


@dataclass(frozen=True)
class Case:
    """Header lines between Host and the blank line, and what follows it.

    `arrived`: how many requests reach the upstream. HOST stands for the right host, LEN for the
    length of what follows. A `code` of "" means that there need be no answer at all.
    """

    name: str
    headers: str = ""
    body: str = ""
    line: str = "POST TARGET HTTP/1.1"
    arrived: int = 0
    code: str = ODD
    host: str = "Host: HOST\r\n"


SMUGGLED = "GET TARGET2 HTTP/1.1\r\nHost: HOST\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"


def spell(stage: Stage, case: Case, way: str) -> bytes:
    text = f"{case.line}\r\n{case.host}AUTH{case.headers}\r\n{case.body}"
    port = stage.plain.port if way == "plain" else stage.upstream.port
    base = f"http://localhost:{port}" if way == "plain" else ""
    auth = f"Proxy-Authorization: {basic(stage.bot)}\r\n" if way == "plain" else ""
    text = text.replace(SMUGGLED, SMUGGLED.replace("\r\n\r\n", f"\r\n{auth}\r\n"))
    for mark, value in (
        ("TARGET2", f"{base}/open/private/smuggled"),
        ("TARGET", f"{base}/open/x"),
        ("HOST", f"localhost:{port}"),
        ("AUTH", auth),
    ):
        text = text.replace(mark, value)
    return text.replace("LEN", str(len(text.partition("\r\n\r\n")[2]))).encode("latin-1")


def send(stage: Stage, data: bytes, way: str, answers: int = 1) -> Got:
    if way == "plain":
        return stage.raw(data, answers=answers, patience=0.6, linger=0.05)
    return stage.ask(data, answers=answers, patience=0.6, linger=0.05)


GOOD = [
    Case("length", "Content-Length: LEN\r\n", "hello"),
    Case("chunks", CHUNKED, "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"),
    Case("chunk-sizes-with-zeros", CHUNKED, "0005\r\nhello\r\n0\r\n\r\n"),
    Case("no-body", "Content-Length: 0\r\n"),
    Case("white-space-around-values", "Content-Length: \t LEN \t\r\n", "hello"),
    Case("connection-close", "Connection: close\r\nContent-Length: LEN\r\n", "hello"),
    Case("expect-100", "Expect: 100-continue\r\nContent-Length: LEN\r\n", "hello"),
    Case(
        "empty-lines-before", line="\r\n\r\nPOST TARGET HTTP/1.1", headers="Content-Length: 0\r\n"
    ),
    Case("http-1.0", "Content-Length: LEN\r\n", "hello", line="POST TARGET HTTP/1.0"),
    Case("body-that-looks-like-a-request", "Content-Length: LEN\r\n", "GET / HTTP/1.1\r\n\r\n"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", GOOD, ids=lambda c: c.name)
def test_control(stage: Stage, case: Case, way: str) -> None:
    """Well-framed requests arrive, once, framed by their length whatever way they came."""
    data = spell(stage, case, way)
    got = send(stage, data, way)
    assert 404 in got.statuses, got.data
    (request,) = stage.arrived
    assert request.values("content-length") == [str(len(request.body))]
    assert request.values("transfer-encoding") == []
    assert len(request.body) in (0, 5, 6) or request.body.startswith(b"GET ")


BAD = [
    # Both framings, and framings that only some would see.
    Case("cl-te", f"Content-Length: LEN\r\n{CHUNKED}", "0\r\n\r\n" + SMUGGLED),
    Case("te-cl", f"{CHUNKED}Content-Length: 4\r\n", "5\r\nhello\r\n0\r\n\r\n" + SMUGGLED),
    Case("te-identity", "Transfer-Encoding: identity\r\nContent-Length: LEN\r\n", "hello"),
    Case("te-twice", CHUNKED + CHUNKED, "0\r\n\r\n" + SMUGGLED),
    Case("te-twice-differing", CHUNKED + "Transfer-Encoding: x\r\n", "0\r\n\r\n" + SMUGGLED),
    Case("te-list", "Transfer-Encoding: identity, chunked\r\n", "0\r\n\r\n"),
    Case("te-gzip", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
    Case("te-chunked-first", "Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
    Case("te-xchunked", "Transfer-Encoding: xchunked\r\nContent-Length: LEN\r\n", "hello"),
    Case("te-upper", "Transfer-Encoding: CHUNKED\r\n", "0\r\n\r\n"),
    Case("te-parameter", "Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"),
    Case("te-quoted", 'Transfer-Encoding: "chunked"\r\nContent-Length: LEN\r\n', "hello"),
    Case("te-vertical-tab", "Transfer-Encoding: \x0bchunked\r\nContent-Length: LEN\r\n", "hello"),
    Case("te-nul", "Transfer-Encoding: chunked\0\r\nContent-Length: LEN\r\n", "hello"),
    Case("te-empty", "Transfer-Encoding:\r\nContent-Length: LEN\r\n", "hello"),
    Case(
        "te-space-before-colon", "Transfer-Encoding : chunked\r\nContent-Length: LEN\r\n", "hello"
    ),
    Case("te-underscore", "Transfer_Encoding: chunked\r\nContent-Length: LEN\r\n", "hello"),
    Case("te-folded", "Transfer-Encoding:\r\n chunked\r\nContent-Length: LEN\r\n", "hello"),
    Case(
        "te-behind-bare-lf", "X: y\nTransfer-Encoding: chunked\r\nContent-Length: LEN\r\n", "hello"
    ),
    Case(
        "te-behind-bare-cr", "X: y\rTransfer-Encoding: chunked\r\nContent-Length: LEN\r\n", "hello"
    ),
    Case("te-in-1.0", CHUNKED, "0\r\n\r\n" + SMUGGLED, line="POST TARGET HTTP/1.0"),
    Case("te-in-connection", f"Connection: transfer-encoding\r\n{CHUNKED}Content-Length: 0\r\n"),
    # Content-Length.
    Case("cl-twice-same", "Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
    Case("cl-twice-differing", "Content-Length: 0\r\nContent-Length: LEN\r\n", SMUGGLED),
    Case("cl-list", "Content-Length: 5, 5\r\n", "hello"),
    Case("cl-plus", "Content-Length: +5\r\n", "hello"),
    Case("cl-minus", "Content-Length: -1\r\n", SMUGGLED),
    Case("cl-minus-zero", "Content-Length: -0\r\n"),
    Case("cl-zeros", "Content-Length: 05\r\n", "hello"),
    Case("cl-hex", "Content-Length: 0x5\r\n", "hello"),
    Case("cl-exponent", "Content-Length: 5e0\r\n", "hello"),
    Case("cl-point", "Content-Length: 5.0\r\n", "hello"),
    Case("cl-underscore", "Content-Length: 0_5\r\n", "hello"),
    Case("cl-space-inside", "Content-Length: 5 5\r\n", "hello"),
    Case("cl-empty", "Content-Length:\r\n", SMUGGLED),
    Case("cl-word", "Content-Length: five\r\n", "hello"),
    Case("cl-superscript", "Content-Length: \u00b2\r\n", "hi"),
    Case("cl-overflow", f"Content-Length: {2**64 + 5}\r\n", "hello", code="body_too_large"),
    Case("cl-space-before-colon", "Content-Length : LEN\r\n", SMUGGLED),
    Case("cl-underscore-name", "Content_Length: LEN\r\nContent-Length: 0\r\n", SMUGGLED),
    Case("cl-in-connection", "Connection: content-length\r\nContent-Length: LEN\r\n", SMUGGLED),
    Case("cl-folded", "Content-Length:\r\n 5\r\n", "hello"),
    # Chunks.
    Case("chunk-hex-prefix", CHUNKED, "0x5\r\nhello\r\n0\r\n\r\n", code=""),
    Case("chunk-plus", CHUNKED, "+5\r\nhello\r\n0\r\n\r\n", code=""),
    Case("chunk-minus", CHUNKED, "-5\r\nhello\r\n0\r\n\r\n", code=""),
    Case("chunk-empty-size", CHUNKED, "\r\nhello\r\n0\r\n\r\n", code=""),
    Case("chunk-space-first", CHUNKED, " 5\r\nhello\r\n0\r\n\r\n", code=""),
    Case("chunk-overflow", CHUNKED, "fffffffffffffffff\r\nhello\r\n0\r\n\r\n", code=""),
    Case("chunk-wrap", CHUNKED, "10000000000000005\r\nhello\r\n0\r\n\r\n", code=""),
    Case("chunk-too-short", CHUNKED, "4\r\nhello\r\n0\r\n\r\n", code=""),
    Case("chunk-no-end", CHUNKED, "5\r\nhello0\r\n\r\n", code=""),
    Case("chunk-bare-lf", CHUNKED, "5\nhello\n0\n\n", code=""),
    Case("chunk-bare-cr", CHUNKED, "5\rhello\r0\r\r", code=""),
    Case("chunk-unicode-digit", CHUNKED, "\u00b2\r\nhi\r\n0\r\n\r\n", code=""),
    Case("chunk-extension-with-lf", CHUNKED, "5;a=b\nx\r\nhello\r\n0\r\n\r\n", code=""),
    Case("chunk-unfinished", CHUNKED, "5\r\nhello\r\n", code=""),
    Case("trailers", CHUNKED, "5\r\nhello\r\n0\r\nX-A: b\r\n\r\n"),
    Case("trailers-named", CHUNKED + "Trailer: X-A\r\n", "0\r\nX-A: b\r\n\r\n"),
    Case("trailer-host", CHUNKED, "0\r\nHost: free.localhost\r\n\r\n"),
    Case("trailer-length", CHUNKED, "0\r\nContent-Length: 10\r\n\r\n"),
    # Heads.
    Case("fold", "X-A: b\r\n c\r\nContent-Length: 0\r\n"),
    Case("fold-tab", "X-A: b\r\n\tHost: x\r\nContent-Length: 0\r\n"),
    Case("fold-host", host="Host:\r\n HOST\r\n"),
    Case("space-first", host=" Host: HOST\r\nHost: HOST\r\n"),
    Case("bare-cr-in-value", "X-A: b\rX-B: c\r\nContent-Length: 0\r\n"),
    Case("bare-lf-in-value", "X-A: b\nX-B: c\r\nContent-Length: 0\r\n"),
    Case("bare-lf-lines", line="POST TARGET HTTP/1.1\nX-A: b", headers="Content-Length: 0\r\n"),
    Case("nul-in-value", "X-A: b\0c\r\nContent-Length: 0\r\n"),
    Case("nul-in-name", "X-\0A: b\r\nContent-Length: 0\r\n"),
    Case("control-in-value", "X-A: b\x01\r\nContent-Length: 0\r\n"),
    Case("delete-in-value", "X-A: b\x7f\r\nContent-Length: 0\r\n"),
    Case("latin-1-in-value", "X-A: caf\u00e9\r\nContent-Length: 0\r\n"),
    Case("next-line-in-value", "X-A: b\x85X-B: c\r\nContent-Length: 0\r\n"),
    Case("space-before-colon", "X-A : b\r\nContent-Length: 0\r\n"),
    Case("tab-before-colon", "X-A\t: b\r\nContent-Length: 0\r\n"),
    Case("no-colon", "X-A\r\nContent-Length: 0\r\n"),
    Case("empty-name", ": b\r\nContent-Length: 0\r\n"),
    Case("name-with-slash", "X/A: b\r\nContent-Length: 0\r\n"),
    Case("name-with-quote", 'X"A: b\r\nContent-Length: 0\r\n'),
    Case("name-non-ascii", "X-\u00c4: b\r\nContent-Length: 0\r\n"),
    # Request lines and versions.
    Case("http-0.9", line="GET TARGET2", host=""),
    Case("http-0.9-post", line="POST TARGET2", headers="Content-Length: 0\r\n"),
    Case("http-1.2", line="POST TARGET HTTP/1.2", headers="Content-Length: 0\r\n"),
    Case("http-2.0", line="POST TARGET HTTP/2.0", headers="Content-Length: 0\r\n"),
    Case("http-11", line="POST TARGET HTTP/11", headers="Content-Length: 0\r\n"),
    Case("http-lower", line="POST TARGET http/1.1", headers="Content-Length: 0\r\n"),
    Case("http-two-spaces", line="POST  TARGET HTTP/1.1", headers="Content-Length: 0\r\n"),
    Case("http-tab", line="POST\tTARGET\tHTTP/1.1", headers="Content-Length: 0\r\n"),
    Case("http-space-at-end", line="POST TARGET HTTP/1.1 ", headers="Content-Length: 0\r\n"),
    Case("http-four-words", line="POST TARGET TARGET2 HTTP/1.1", headers="Content-Length: 0\r\n"),
    Case("http-nul", line="POST TARGET\0 HTTP/1.1", headers="Content-Length: 0\r\n"),
    Case("http-1.0-without-host", line="GET TARGET HTTP/1.0", host=""),
    Case("http-1.1-without-host", line="GET TARGET HTTP/1.1", host=""),
    Case("garbage-before", line="\x00\x00POST TARGET HTTP/1.1", headers="Content-Length: 0\r\n"),
    # Expectations, upgrades, hop-by-hop names.
    Case("expect-other", "Expect: 200-ok\r\nContent-Length: LEN\r\n", "hello"),
    Case("expect-two", "Expect: 100-continue, x\r\nContent-Length: LEN\r\n", "hello"),
    Case("expect-twice", "Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 0\r\n"),
    Case("upgrade-h2c", "Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 0\r\n"),
    Case("upgrade-tls", "Upgrade: TLS/1.2\r\nConnection: upgrade\r\nContent-Length: 0\r\n"),
    Case(
        "upgrade-websocket-post",
        "Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 0\r\n",
    ),
    Case("upgrade-unconnected", "Upgrade: websocket\r\nContent-Length: 0\r\n"),
    Case("connection-authorization", "Connection: close, Authorization\r\nContent-Length: 0\r\n"),
    Case("connection-cookie", "Connection: Cookie\r\nCookie: a=b\r\nContent-Length: 0\r\n"),
    Case("connection-odd", "Connection: close;x\r\nContent-Length: 0\r\n"),
    # Lengths that never come true.
    Case("length-too-long", "Content-Length: 500\r\n", SMUGGLED, code=""),
    Case("expect-without-body", "Expect: 100-continue\r\nContent-Length: 5\r\n", code=""),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", BAD, ids=lambda c: c.name)
def test_framing(stage: Stage, case: Case, way: str) -> None:
    got = send(stage, spell(stage, case, way), way)
    stage.held(got, case.code or None)
    if not case.code:
        assert all(status in (100, 400) for status in got.statuses), got.data


@pytest.mark.parametrize("way", WAYS)
def test_chunk_extensions_do_not_arrive(stage: Stage, way: str) -> None:
    """They mean nothing, and are gone with the chunks."""
    case = Case("", CHUNKED, '5;a=b;c="d"\r\nhello\r\n0;x\r\n\r\n')
    assert 404 in send(stage, spell(stage, case, way), way).statuses
    (request,) = stage.arrived
    assert (request.body, request.values("transfer-encoding")) == (b"hello", [])


@pytest.mark.parametrize("way", WAYS)
def test_pipelined_requests_are_judged_one_by_one(stage: Stage, way: str) -> None:
    body = "Content-Length: 5\r\n"
    good = Case("", body, "hello")
    bad = Case("", "Content-Length: 0\r\n", line="POST TARGET2 HTTP/1.1")
    for order in ((good, bad), (bad, good)):
        stage.begin()
        got = send(stage, b"".join(spell(stage, case, way) for case in order), way, answers=2)
        assert got.statuses == [404 if case is good else 403 for case in order], got.data
        assert [r.path for r in stage.arrived] == ["/open/x"]


def test_behind_a_close_nothing_is_read(stage: Stage) -> None:
    case = Case("", "Connection: close\r\nContent-Length: 5\r\n", "hello" + SMUGGLED)
    got = send(stage, spell(stage, case, "tunnel"), "tunnel", answers=2)
    assert len(stage.arrived) == 1
    assert 200 not in got.statuses


def test_curl_smuggling_by_its_own_headers(stage: Stage) -> None:
    url = f"{stage.upstream.url}/open/x"
    for header in ("Transfer-Encoding: xchunked", "Content_Length: 3", "Connection: authorization"):
        reply = stage.kb.curl(stage.bot, url, "--http1.1", "--data", "hello", "--header", header)
        assert reply.code == ODD, reply
    assert stage.arrived == []


BASE = [(":method", "POST"), (":scheme", "https")]
HTTP2 = [
    ("connection", [("connection", "close")], b""),
    ("connection-authorization", [("connection", "authorization")], b""),
    ("transfer-encoding", [("transfer-encoding", "chunked")], b"0\r\n\r\n"),
    ("upgrade", [("upgrade", "websocket")], b""),
    ("cl-too-short", [("content-length", "0")], b"GET /open/private/smuggled HTTP/1.1\r\n\r\n"),
    ("cl-too-long", [("content-length", "50")], b"hello"),
    ("cl-twice", [("content-length", "5"), ("content-length", "0")], b"hello"),
    ("cl-plus", [("content-length", "+5")], b"hello"),
    ("cl-odd", [("content-length", "5\r\nX: y")], b"hello"),
    ("te-gzip", [("te", "gzip")], b""),
    ("upper-case-name", [("X-A", "b")], b""),
    ("name-with-line-break", [("x-a: b\r\nx-b", "c")], b""),
    ("name-with-colon", [("x-a:b", "c")], b""),
    ("name-with-space", [("x a", "b")], b""),
    ("name-empty", [("", "b")], b""),
    ("name-with-nul", [("x\0a", "b")], b""),
    ("value-with-line-break", [("x-a", "b\r\nx-b: c")], b""),
    ("value-with-request", [("x-a", "b\r\n\r\nGET /open/private/smuggled HTTP/1.1\r\n\r\n")], b""),
    ("value-with-lf", [("x-a", "b\nc")], b""),
    ("value-with-cr", [("x-a", "b\rc")], b""),
    ("value-with-nul", [("x-a", "b\0c")], b""),
    ("value-with-space-around", [("x-a", " b ")], b""),
]


def test_http2_control(stage: Stage) -> None:
    fields = [*BASE, (":authority", stage.at()), (":path", "/open/x"), ("content-length", "5")]
    cookies = [("cookie", "a=b"), ("cookie", "c=d")]
    assert stage.ask_h2([*fields, *cookies], b"hello").status == 404
    (request,) = stage.arrived
    assert (request.body, request.values("cookie")) == (b"hello", ["a=b; c=d"])


@pytest.mark.parametrize(("name", "extra", "body"), HTTP2, ids=[case[0] for case in HTTP2])
def test_http2_framing(stage: Stage, name: str, extra: list[tuple[str, str]], body: bytes) -> None:
    fields = [*BASE, (":authority", stage.at()), (":path", "/open/x"), *extra]
    got = stage.ask_h2(fields, body)
    if stage.arrived:
        # What only concerns the hop is taken out, white space around a value is none of it.
        assert name in {"te-gzip", "value-with-space-around"}, stage.arrived
        (request,) = stage.arrived
        assert request.header("x-a") in (None, "b")
        assert request.header("te") in (None, "trailers")
    else:
        stage.held(got)
        assert got.status == 0 or got.codes == [ODD], got.data


def test_http2_trailers(stage: Stage) -> None:
    fields = [*BASE, (":authority", stage.at()), (":path", "/open/x")]
    stage.held(stage.ask_h2(fields, b"hello", trailers=[("x-a", "b")]), ODD)
