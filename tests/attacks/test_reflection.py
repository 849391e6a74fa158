"""Reflection: an upstream that says the credential back, in every way it knows, is not heard.

What no scrubber can hold (a secret turned round, or asked for half at a time) is here too, as weak
points: path rules and approval are the control there, not masking.
"""

from __future__ import annotations

import base64
import bz2
import codecs
import gzip
import html
import lzma
import zlib
from collections.abc import Callable, Iterator
from urllib.parse import quote

import brotli
import pytest
from backports import zstd

from tests.attacks.stage import CANARIES, Got, Stage, leak
from tests.support.upstream import Received, Reply, Reset
from tests.support.upstream_routes import REFLECTIONS, token_of

pytestmark = pytest.mark.e2e

REFUSED = {"gzip-undeclared": 200}
"""Forms that cannot be read: nothing of the body is delivered. Some show only in the body."""
HOSTS = [("localhost", ""), ("basic.localhost", ""), ("keyed.localhost", "&from=x-api-key")]
TEXT = (("Content-Type", "text/plain"),)
BINARY = (("Content-Type", "application/octet-stream"),)


def fetch(stage: Stage, path: str, host: str = "localhost", *headers: str) -> Got:
    lines = [f"GET {path} HTTP/1.1", f"Host: {stage.at(host)}", *headers, "", ""]
    return stage.ask("\r\n".join(lines).encode(), authority=stage.at(host))


@pytest.mark.parametrize(
    ("host", "from_"), HOSTS, ids=[host.partition(".")[0] for host, _ in HOSTS]
)
@pytest.mark.parametrize("form", REFLECTIONS)
def test_forms(stage: Stage, form: str, host: str, from_: str) -> None:
    got = fetch(stage, f"/reflect?as={form}{from_}", host)
    assert leak(got.data) is None, f"{leak(got.data)}: {got.data!r}"
    assert len(stage.arrived) == 1
    if form in REFUSED:
        assert got.status == REFUSED[form], got.data
        assert got.codes == ["response_refused"] or got.body == b"", got.data
    elif form not in {"gzip-cut", "header-name"}:  # cut off there, or no header's name at all
        assert got.status in (200, 302), got.data
        assert got.codes == []


@pytest.mark.parametrize("form", REFLECTIONS)
def test_forms_in_http2(stage: Stage, form: str) -> None:
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", stage.at())]
    got = stage.ask_h2([*fields, (":path", f"/reflect?as={form}")])
    assert leak(got.data) is None, f"{leak(got.data)}: {got.data!r}"
    assert len(stage.arrived) == 1


def test_control(stage: Stage) -> None:
    """The detector finds what the upstream says when nobody masks it."""
    for form in REFLECTIONS.values():
        reply = form(CANARIES["api_key"])
        body = reply.body if isinstance(reply.body, bytes) else b"".join(reply.body)
        said = f"{reply.reason} {list(reply.headers)}\r\n\r\n".encode("latin-1") + body
        if not {("Content-Encoding", "br"), ("Content-Encoding", "zstd")} & set(reply.headers):
            assert leak(said) is not None, reply
    assert leak(b"nothing to see") is None


# --- forms that the upstream does not know by itself ------------------------------------------


def text(form: Callable[[str], str]) -> Callable[[str], Reply]:
    return lambda token: Reply(headers=TEXT, body=f"<{form(token)}>".encode())


def header(name: str, form: Callable[[str], str] = str) -> Callable[[str], Reply]:
    return lambda token: Reply(headers=((name, form(token)), *TEXT), body=b"in the head\n")


def coded(coding: str, *pack: Callable[[bytes], bytes]) -> Callable[[str], Reply]:
    def reply(token: str) -> Reply:
        body = f"you said {token}".encode()
        for step in pack:
            body = step(body)
        return Reply(headers=(*TEXT, ("Content-Encoding", coding)), body=body)

    return reply


def raw(data: str) -> Callable[[str], Reply]:
    return lambda token: Reply(raw=data.replace("TOKEN", token).encode("latin-1"))


def pieces(size: int, before: int = 0) -> Callable[[str], Reply]:
    def reply(token: str) -> Reply:
        whole = b"x" * before + token.encode() * 3 + b"y"
        return Reply(
            headers=TEXT, body=(whole[at : at + size] for at in range(0, len(whole), size))
        )

    return reply


def broken(token: str) -> Reply:
    def body() -> Iterator[bytes]:
        yield f"you said {token[:-2]}".encode()
        raise Reset

    return Reply(headers=(*TEXT, ("Content-Length", "1000")), body=body())


def each(form: str) -> Callable[[str], str]:
    return lambda token: "".join(form.format(ord(c)) for c in token)


def every_other(form: Callable[[str], str]) -> Callable[[str], str]:
    return lambda token: "".join(form(c) if at % 2 else c for at, c in enumerate(token))


OK = "HTTP/1.1 200 OK\r\n"
MADE: list[tuple[str, Callable[[str], Reply]]] = [
    # Places in the head.
    ("header-x", header("X-Said")),
    ("header-www-authenticate", header("WWW-Authenticate", lambda t: f'Bearer error="{t}"')),
    ("header-link", header("Link", lambda t: f"<https://x/{quote(t, safe='')}>; rel=next")),
    ("header-refresh", header("Refresh", lambda t: f"0; url=/?{t}")),
    ("header-content-type", lambda t: Reply(headers=(("Content-Type", f'text/plain; x="{t}"'),))),
    ("header-disposition", header("Content-Disposition", lambda t: f'attachment; filename="{t}"')),
    ("header-etag", header("ETag", lambda t: f'"{t}"')),
    ("header-server", header("Server")),
    ("header-keybroker", header("Keybroker-Reason")),
    ("header-base64", header("X-Said", lambda t: base64.b64encode(t.encode()).decode())),
    ("header-hex", header("X-Said", lambda t: t.encode().hex())),
    ("header-percent", header("X-Said", each("%{:02x}"))),
    ("header-twice", lambda t: Reply(headers=(("X-A", t), ("X-A", t)))),
    ("header-basic", header("X-Said", lambda t: base64.b64encode(f"svc:{t}".encode()).decode())),
    ("header-cookie-attributes", header("Set-Cookie", lambda t: f"a=b; Path=/{t}; Domain={t}")),
    ("header-folded", raw(OK + "X-A: a\r\n TOKEN\r\nContent-Length: 0\r\n\r\n")),
    ("header-trailer-name", raw(OK + "Trailer: TOKEN\r\nContent-Length: 0\r\n\r\n")),
    ("header-connection", raw(OK + "Connection: TOKEN\r\nContent-Length: 0\r\n\r\n")),
    ("header-proxy", raw(OK + "Proxy-Authenticate: TOKEN\r\nContent-Length: 0\r\n\r\n")),
    ("status-304", lambda t: Reply(304, "Not Modified", (("ETag", f'"{t}"'),))),
    ("status-204", lambda t: Reply(204, f"No {t}", (("X-A", t),))),
    ("status-401", lambda t: Reply(401, "Unauthorized", TEXT, f"bad token {t}".encode())),
    ("status-500", lambda t: Reply(500, "Oops", TEXT, f"Traceback: {t}".encode())),
    ("status-407", lambda t: Reply(407, "Proxy", (("Proxy-Authenticate", f'Basic realm="{t}"'),))),
    (
        "redirect-other-host",
        lambda t: Reply(302, "Found", (("Location", f"https://evil.example/{t}"),)),
    ),
    (
        "redirect-userinfo",
        lambda t: Reply(307, "Temp", (("Location", f"https://{t}@evil.example/"),)),
    ),
    # Framing.
    (
        "chunk-extension",
        raw(OK + "Transfer-Encoding: chunked\r\n\r\n5;TOKEN\r\nhello\r\n0;a=TOKEN\r\n\r\n"),
    ),
    (
        "trailer",
        raw(OK + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-A: TOKEN\r\n\r\n"),
    ),
    (
        "early-hints",
        raw("HTTP/1.1 103 TOKEN\r\nLink: TOKEN\r\n\r\n" + OK + "Content-Length: 2\r\n\r\nok"),
    ),
    (
        "continue-with-headers",
        raw("HTTP/1.1 100 Go\r\nX-A: TOKEN\r\n\r\n" + OK + "Content-Length: 2\r\n\r\nok"),
    ),
    ("processing", raw("HTTP/1.1 102 TOKEN\r\n\r\n" + OK + "Content-Length: 2\r\n\r\nok")),
    ("behind-the-body", raw(OK + "Content-Length: 2\r\n\r\nokTOKEN" + OK + "X-A: TOKEN\r\n\r\n")),
    ("until-close", raw(OK + "\r\nyou said TOKEN")),
    ("http-1.0", raw("HTTP/1.0 200 TOKEN\r\n\r\nyou said TOKEN")),
    ("not-http", raw("TOKEN TOKEN TOKEN\r\n\r\nTOKEN")),
    ("not-http-either", raw("HTTP/1.1 TOKEN\r\n\r\n")),
    ("http-9", raw("HTTP/9.9 200 TOKEN\r\n\r\nTOKEN")),
    ("bad-header-line", raw(OK + "TOKEN\r\nContent-Length: 2\r\n\r\nok")),
    ("bad-header-name", raw(OK + "X TOKEN: a\r\nContent-Length: 2\r\n\r\nok")),
    ("bare-cr", raw(OK + "X-A: a\rX-B: TOKEN\r\nContent-Length: 2\r\n\r\nok")),
    ("nul", raw(OK + "X-A: \0TOKEN\r\nContent-Length: 2\r\n\r\nok")),
    ("two-lengths", raw(OK + "Content-Length: 2\r\nContent-Length: 99\r\n\r\nokTOKEN")),
    (
        "length-and-chunks",
        raw(OK + "Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nTOKEN"),
    ),
    ("odd-coding", raw(OK + "Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nTOKEN\r\n0\r\n\r\n")),
    ("bad-chunk", raw(OK + "Transfer-Encoding: chunked\r\n\r\nTOKEN\r\nTOKEN\r\n")),
    ("switch", raw("HTTP/1.1 101 TOKEN\r\nUpgrade: TOKEN\r\nConnection: upgrade\r\n\r\nTOKEN")),
    ("broken-off", broken),
    # Cut into pieces.
    ("pieces-of-2", pieces(2)),
    ("pieces-of-3", pieces(3, before=1)),
    ("pieces-of-7", pieces(7, before=5)),
    ("pieces-across-64k", pieces(1 << 16, before=(1 << 16) - 9)),
    ("pieces-across-16k", pieces(1 << 14, before=(1 << 14) - 20)),
    # Spellings.
    ("overlapping", text(lambda t: t[:9] + t + t[-9:] + t[:7] + t)),
    ("repeated", text(lambda t: t * 500)),
    ("percent-of-some", text(every_other(lambda c: f"%{ord(c):02X}"))),
    ("json-of-some", text(every_other(lambda c: f"\\u{ord(c):04x}"))),
    ("html-of-some", text(every_other(lambda c: f"&#{ord(c)};"))),
    ("html-zeros", text(each("&#x{:06X};"))),
    (
        "mixed-escapes",
        text(
            lambda t: "".join(
                (c, f"%{ord(c):02x}", f"\\u{ord(c):04X}", f"&#{ord(c)};")[at % 4]
                for at, c in enumerate(t)
            )
        ),
    ),
    ("base64-long-before", text(lambda t: base64.b64encode(f"{'x' * 100}{t}yy".encode()).decode())),
    ("base64url-between", text(lambda t: base64.urlsafe_b64encode(f"ab{t}cd".encode()).decode())),
    ("base64-percent", text(lambda t: quote(base64.b64encode(t.encode()).decode(), safe=""))),
    ("base64-in-json", text(lambda t: base64.b64encode(t.encode()).decode().replace("/", "\\/"))),
    ("utf-16-be", lambda t: Reply(headers=TEXT, body=f"you said {t}".encode("utf-16-be"))),
    ("utf-16-bom", lambda t: Reply(headers=TEXT, body=f"you said {t}".encode("utf-16"))),
    ("utf-32", lambda t: Reply(headers=TEXT, body=f"you said {t}".encode("utf-32"))),
    # Content codings.
    ("x-gzip", coded("x-gzip", gzip.compress)),
    ("gzip-upper", coded("GZIP", gzip.compress)),
    ("gzip-twice", coded("gzip, gzip", gzip.compress, gzip.compress)),
    ("deflate-in-gzip", coded("deflate, gzip", zlib.compress, gzip.compress)),
    ("gzip-thrice", coded("gzip, gzip, gzip", gzip.compress, gzip.compress, gzip.compress)),
    ("gzip-said-of-plain", coded("gzip")),
    ("gzip-with-tail", coded("gzip", lambda d: gzip.compress(d) + d)),
    ("gzip-in-name", coded("gzip", lambda d: _named(gzip.compress(b"x"), d))),
    ("identity-said-of-gzip", coded("identity", gzip.compress)),
    ("zstd", coded("zstd", lambda d: b"\x28\xb5\x2f\xfd" + d)),
    ("zstd-undeclared", coded("", lambda d: b"\x28\xb5\x2f\xfd" + d)),
    ("zstd-frames", coded("zstd", lambda d: zstd.compress(d[:14]) + zstd.compress(d[14:]))),
    ("zstd-skipped", coded("zstd", lambda d: _skipped(d) + zstd.compress(b"x"))),
    ("zstd-cut", coded("zstd", lambda d: zstd.compress(d)[:-3])),
    ("zstd-undeclared-whole", coded("", zstd.compress)),
    ("zstd-skipped-undeclared", coded("", lambda d: _skipped(d) + d)),
    ("br-in-zstd", coded("br, zstd", brotli.compress, zstd.compress)),
    ("br-cut", coded("br", lambda d: brotli.compress(d)[:-1])),
    ("br-with-tail", coded("br", lambda d: brotli.compress(b"x") + d)),
    ("br-said-of-plain", coded("br")),
    ("bzip2-undeclared", coded("", bz2.compress)),
    ("xz-undeclared", coded("", lzma.compress)),
    ("zlib-undeclared", coded("", zlib.compress)),
    ("br-and-identity", coded("identity, br")),
    ("compress", coded("compress")),
    ("unheard-of", coded("rot13", lambda d: codecs.encode(d.decode(), "rot13").encode())),
    ("aes128gcm", coded("aes128gcm")),
    (
        "coding-that-is-the-secret",
        lambda t: Reply(headers=(*TEXT, ("Content-Encoding", t)), body=b"x"),
    ),
]


def _skipped(data: bytes) -> bytes:
    """A zstd frame that decoders pass over (RFC 8878 3.1.2)."""
    return b"\x50\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def _named(packed: bytes, name: bytes) -> bytes:
    """A gzip member whose header holds a file name (RFC 1952 2.3.1)."""
    return packed[:3] + b"\x08" + packed[4:10] + name + b"\0" + packed[10:]


@pytest.mark.parametrize(("name", "form"), MADE, ids=[name for name, _ in MADE])
def test_made(stage: Stage, name: str, form: Callable[[str], Reply]) -> None:
    stage.upstream.answer("/made/x", lambda request: form(token_of(request)))
    got = fetch(stage, "/made/x")
    assert leak(got.data) is None, f"{leak(got.data)}: {got.data!r}"
    assert len(stage.arrived) == 1
    assert got.status or name in {"broken-off"}, "no answer at all"


@pytest.mark.parametrize("path", ["/early", "/trailers", "/sse?token=1&n=3&interval=0.01", "/echo"])
@pytest.mark.parametrize("version", ["1", "2"])
def test_built_in(stage: Stage, path: str, version: str) -> None:
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", stage.at()), (":path", path)]
    got = fetch(stage, path) if version == "1" else stage.ask_h2(fields)
    assert got.status == 200
    assert leak(got.data) is None, got.data


def test_head(stage: Stage) -> None:
    stage.upstream.answer("/open/head", lambda r: Reply(headers=(("X-A", token_of(r)),)))
    got = stage.ask(stage.get("/open/head", method="HEAD"), patience=0.5)
    assert got.status == 200
    assert leak(got.data) is None


def test_the_agents_wish_for_a_coding_is_not_passed_on(stage: Stage) -> None:
    fetch(stage, "/echo", "localhost", "Accept-Encoding: br;q=1, zstd")
    assert stage.arrived[0].values("accept-encoding") == ["identity"]


def test_a_redirect_is_not_followed(stage: Stage) -> None:
    port = stage.upstream.port
    stage.upstream.answer(
        "/made/x", Reply(302, "Found", (("Location", f"https://free.localhost:{port}/echo"),))
    )
    assert fetch(stage, "/made/x").status == 302
    assert len(stage.arrived) == 1


# --- what masking cannot hold ------------------------------------------------------------------


def turned(request: Received) -> Reply:
    return Reply(headers=TEXT, body=token_of(request)[::-1].encode())


def half(request: Received) -> Reply:
    token = token_of(request)
    first, _, last = (request.header("range") or "bytes=0-").removeprefix("bytes=").partition("-")
    return Reply(206, "Part", TEXT, token[int(first) : int(last or 999) + 1].encode())


def archived(request: Received) -> Reply:
    return Reply(headers=BINARY, body=gzip.compress(token_of(request).encode()))


def twice(encode: Callable[[bytes], bytes]) -> Callable[[Received], Reply]:
    return lambda r: Reply(headers=TEXT, body=encode(encode(token_of(r).encode())))


BEYOND: list[tuple[str, Callable[[Received], Reply], Callable[[bytes], str], str]] = [
    ("reversed", turned, lambda d: d.decode()[::-1], "a secret turned round is not recognised"),
    (
        "rot13",
        lambda r: Reply(headers=TEXT, body=codecs.encode(token_of(r), "rot13").encode()),
        lambda d: codecs.decode(d.decode(), "rot13"),
        "a cipher is not recognised",
    ),
    (
        "upper-case",
        lambda r: Reply(headers=TEXT, body=token_of(r).upper().encode()),
        lambda d: d.decode().swapcase().swapcase(),
        "a secret in other letter case is not recognised",
    ),
    ("half", half, lambda d: d.decode(), "a part of the secret by itself is not recognised"),
    (
        "hex-with-colons",
        lambda r: Reply(headers=TEXT, body=token_of(r).encode().hex(":").encode()),
        lambda d: bytes.fromhex(d.decode().replace(":", "")).decode(),
        "hex with separators",
    ),
    (
        "base64-of-base64",
        twice(base64.b64encode),
        lambda d: base64.b64decode(base64.b64decode(d)).decode(),
        "an encoding inside an encoding",
    ),
    (
        "html-names",
        lambda r: Reply(headers=TEXT, body=token_of(r).replace("/", "&sol;").encode()),
        lambda d: html.unescape(d.decode()),
        "of HTML's names for characters only the common five are read",
    ),
    (
        "base32",
        lambda r: Reply(headers=TEXT, body=base64.b32encode(token_of(r).encode())),
        lambda d: base64.b32decode(d).decode(),
        "an encoding that the list does not have",
    ),
    (
        "archive",
        archived,
        lambda d: gzip.decompress(d).decode(),
        "a compressed file in a binary response is not opened",
    ),
]


@pytest.mark.parametrize(
    ("name", "route", "read", "reason"), BEYOND, ids=[row[0] for row in BEYOND]
)
def test_beyond_masking(
    stage: Stage,
    weak: Callable[[str], None],
    name: str,
    route: Callable[[Received], Reply],
    read: Callable[[bytes], str],
    reason: str,
) -> None:
    """These are known: the upstream must cooperate, and each such call is in the ledger."""
    stage.upstream.answer("/made/x", route)
    got = fetch(stage, "/made/x", "localhost", *(["Range: bytes=0-19"] if name == "half" else []))
    try:
        said = read(got.content)
    except (ValueError, OSError, EOFError):
        return  # masked, or refused
    if CANARIES["api_key"][:20].lower() in said.lower():
        weak(reason)
