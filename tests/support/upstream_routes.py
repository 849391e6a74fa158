"""What the test upstream answers by itself, by path (`Upstream.answer` adds to it).

/echo                       method, target, headers and body as JSON
/status/N                   that status, with a short body
/reflect?as=FORM            the caller's credential in the spelling FORM, see `REFLECTIONS`
/sse?n=3&interval=0.05      n server-sent events, `interval` seconds apart (&token=1: with token)
/download?mb=N              N MiB (&chunked=1: without a length; &text=1: text, not zeros)
/upload                     the body's size and SHA-256 as JSON
/slow?s=1                   answers after s seconds
/reset                      breaks the connection in mid response
/early                      103 Early Hints, then 200
/trailers                   a chunked body and trailers, one of which holds the token
/ws                         a WebSocket that echoes every frame's payload
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

from tests.support.upstream import Conversation, Received, Reply, Reset

JSON_TYPE = (("Content-Type", "application/json"),)
TEXT_TYPE = (("Content-Type", "text/plain"),)
BLOCK = 1 << 16


def token_of(request: Received) -> str:
    """The credential in the request: Bearer token, Basic password, or the header `?from=` names."""
    value = request.header(request.query.get("from", "authorization")) or ""
    scheme, _, rest = value.partition(" ")
    if scheme.lower() == "basic":
        return base64.b64decode(rest).decode().partition(":")[2]
    return rest if scheme.lower() == "bearer" else value


def built_in(request: Received) -> Reply:
    """The answer to `request`; 404 for paths that are not in the list above."""
    first = "/" + request.path.split("/")[1]
    route = _ROUTES.get(first)
    return route(request) if route else Reply(404, "Not Found", TEXT_TYPE, b"no such path\n")


def _echo(request: Received) -> Reply:
    shown = {
        "method": request.method,
        "target": request.target,
        "version": request.version,
        "headers": [list(pair) for pair in request.headers],
        "body": request.body.decode("latin-1"),
    }
    return Reply(headers=JSON_TYPE, body=json.dumps(shown).encode())


def _status(request: Received) -> Reply:
    status = int(request.path.rsplit("/", 1)[1])
    return Reply(status, "Made Up", TEXT_TYPE, f"status {status}\n".encode())


def _text(form: Callable[[str], str]) -> Callable[[str], Reply]:
    return lambda token: Reply(
        headers=TEXT_TYPE, body=f"you said <{form(token)}>, and I agree\n".encode()
    )


def _encoded(encoding: str, pack: Callable[[bytes], bytes]) -> Callable[[str], Reply]:
    headers = (*TEXT_TYPE, ("Content-Encoding", encoding)) if encoding else TEXT_TYPE
    return lambda token: Reply(headers=headers, body=pack(f"you said {token} just now\n".encode()))


def _base64(token: str, before: str = "", url: bool = False, pad: bool = True) -> str:
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    text = encode((before + token).encode()).decode()
    return text if pad else text.rstrip("=")


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def _brotli(data: bytes) -> bytes:
    import brotli  # type: ignore[import-untyped]

    packed: bytes = brotli.compress(data)
    return packed


def _zstd(data: bytes) -> bytes:
    from backports import zstd

    return zstd.compress(data)


def _split(token: str) -> Iterator[bytes]:
    for letter in f"you said {token} letter by letter\n":
        yield letter.encode()
        time.sleep(0.001)


REFLECTIONS: dict[str, Callable[[str], Reply]] = {
    "raw": _text(lambda t: t),
    "base64": _text(_base64),
    "base64-1": _text(lambda t: _base64(t, "u")),
    "base64-2": _text(lambda t: _base64(t, "us")),
    "base64-unpadded": _text(lambda t: _base64(t, pad=False)),
    "base64url": _text(lambda t: _base64(t, url=True)),
    "base64url-1": _text(lambda t: _base64(t, "u", url=True, pad=False)),
    "basic": _text(lambda t: "Basic " + _base64(t, "user:")),
    "url": _text(lambda t: quote(t, safe="")),
    "url-plus": _text(quote_plus),
    "url-full": _text(lambda t: "".join(f"%{b:02X}" for b in t.encode())),
    "url-full-lower": _text(lambda t: "".join(f"%{b:02x}" for b in t.encode())),
    "hex": _text(lambda t: t.encode().hex()),
    "hex-upper": _text(lambda t: t.encode().hex().upper()),
    "json": _text(lambda t: "".join(f"\\u{ord(c):04x}" for c in t)),
    "json-upper": _text(lambda t: "".join(f"\\u{ord(c):04X}" for c in t)),
    "json-plain": _text(lambda t: json.dumps(t).replace("/", "\\/")),
    "html": _text(html.escape),
    "html-hex": _text(lambda t: "".join(f"&#x{ord(c):x};" for c in t)),
    "html-decimal": _text(lambda t: "".join(f"&#{ord(c)};" for c in t)),
    "utf-16": lambda t: Reply(headers=TEXT_TYPE, body=f"you said {t}".encode("utf-16-le")),
    "gzip": _encoded("gzip", gzip.compress),
    "gzip-members": _encoded("gzip", lambda d: gzip.compress(d[:12]) + gzip.compress(d[12:])),
    "gzip-undeclared": _encoded("", gzip.compress),
    "gzip-cut": _encoded("gzip", lambda d: gzip.compress(d)[:-6]),
    "deflate": _encoded("deflate", zlib.compress),
    "deflate-raw": _encoded("deflate", _raw_deflate),
    "br": _encoded("br", _brotli),
    "zstd": _encoded("zstd", _zstd),
    "header": lambda t: Reply(headers=(("X-Reflected", t), *TEXT_TYPE), body=b"see the headers\n"),
    "header-name": lambda t: Reply(headers=((f"X-{t}", "1"), *TEXT_TYPE), body=b"see the names\n"),
    "location": lambda t: Reply(302, "Found", (("Location", f"/next?token={quote(t, safe='')}"),)),
    "cookie": lambda t: Reply(headers=(("Set-Cookie", f"session={t}; Path=/"),), body=b"cookie\n"),
    "reason": lambda t: Reply(200, f"OK {t}", TEXT_TYPE, b"see the reason\n"),
    "split": lambda t: Reply(headers=TEXT_TYPE, body=_split(t)),
}


def _reflect(request: Received) -> Reply:
    form = REFLECTIONS.get(request.query.get("as", "raw"))
    if form is None:
        return Reply(400, "Bad Request", TEXT_TYPE, b"unknown form\n")
    return form(token_of(request))


def _sse(request: Received) -> Reply:
    count, interval = int(request.query.get("n", "3")), float(request.query.get("interval", "0.05"))
    said = f" {token_of(request)}" if "token" in request.query else ""

    def events() -> Iterator[bytes]:
        for number in range(count):
            if number:
                time.sleep(interval)
            yield f"id: {number}\ndata: event {number}{said}\n\n".encode()

    return Reply(headers=(("Content-Type", "text/event-stream"),), body=events())


def _download(request: Received) -> Reply:
    size = int(float(request.query.get("mb", "1")) * (1 << 20))
    line = b"The quick brown fox jumps over the lazy dog, 0123456789.\n"
    block = (line * (BLOCK // len(line) + 1))[:BLOCK] if "text" in request.query else bytes(BLOCK)

    def blocks() -> Iterator[bytes]:
        for start in range(0, size, BLOCK):
            yield block[: min(BLOCK, size - start)]

    length = () if "chunked" in request.query else (("Content-Length", str(size)),)
    return Reply(headers=(("Content-Type", "application/octet-stream"), *length), body=blocks())


def _upload(request: Received) -> Reply:
    digest = hashlib.sha256(request.body).hexdigest()
    shown = {"size": len(request.body), "sha256": digest}
    return Reply(headers=JSON_TYPE, body=json.dumps(shown).encode())


def _slow(request: Received) -> Reply:
    time.sleep(float(request.query.get("s", "1")))
    return Reply(headers=TEXT_TYPE, body=b"at last\n")


def _reset(request: Received) -> Reply:
    def broken() -> Iterator[bytes]:
        yield b"so far so good, "
        time.sleep(0.05)
        raise Reset

    return Reply(headers=(*TEXT_TYPE, ("Content-Length", "1000")), body=broken())


def _early(request: Received) -> Reply:
    hints = (("Link", f"</style.css?t={token_of(request)}>; rel=preload"),)
    return Reply(headers=TEXT_TYPE, body=b"after the hints\n", early=hints)


def _trailers(request: Received) -> Reply:
    trailers = (("X-Checksum", "0"), ("X-Token", token_of(request)))
    headers = (*TEXT_TYPE, ("Trailer", "X-Checksum, X-Token"))
    return Reply(headers=headers, body=iter([b"before ", b"the trailers\n"]), trailers=trailers)


def _websocket(request: Received) -> Reply:
    key = (request.header("sec-websocket-key") or "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    headers = (
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept),
    )
    return Reply(101, "Switching Protocols", headers, takeover=_echo_frames)


def _echo_frames(conversation: Conversation) -> None:
    """RFC 6455 frames from the client are unmasked and sent back; extended lengths up to 64 KiB."""
    pending = b""

    def take(size: int) -> bytes:
        nonlocal pending
        while len(pending) < size:
            more = conversation.read(BLOCK)
            if not more:
                raise EOFError
            pending += more
        taken, pending = pending[:size], pending[size:]
        return taken

    while True:
        first, second = take(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", take(2))
        mask = take(4)
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(take(size)))
        length = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size)
        conversation.write(bytes([first]) + length + payload)
        if first & 0x0F == 8:
            return


_ROUTES: dict[str, Callable[[Received], Reply]] = {
    "/echo": _echo,
    "/status": _status,
    "/reflect": _reflect,
    "/sse": _sse,
    "/download": _download,
    "/upload": _upload,
    "/slow": _slow,
    "/reset": _reset,
    "/early": _early,
    "/trailers": _trailers,
    "/ws": _websocket,
}
