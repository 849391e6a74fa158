"""Streams: bodies, trailers and sockets that are passed on before they are whole.

What was decided is the head. Nothing that follows it may become another request, take the place of
a header, or bring a credential back.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Callable

import pytest

from tests.attacks.stage import CANARIES, Got, Stage, leak, wait_for
from tests.support.upstream import Conversation, Received, Reply
from tests.support.upstream_routes import built_in, token_of

pytestmark = pytest.mark.e2e

CHUNKED = "Transfer-Encoding: chunked"
SMUGGLED = "GET /open/private/x HTTP/1.1\r\nHost: h\r\n\r\n"
TOKEN = CANARIES["api_key"].encode()


def head(stage: Stage, path: str, *headers: str, method: str = "PUT") -> bytes:
    return stage.get(path, *headers, method=method)


def h2_head(stage: Stage, path: str, *extra: tuple[str, str]) -> list[tuple[str, str]]:
    return [(":method", "PUT"), (":scheme", "https"), (":authority", stage.at()), (":path", path),
            *extra]  # fmt: skip


# --- one request stays one ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "body", "arrived"),
    [
        ([CHUNKED, "Content-Length: 5"], b"5\r\nhello\r\n0\r\n\r\n", 0),
        ([CHUNKED, CHUNKED], b"0\r\n\r\n", 0),
        (["Transfer-Encoding: gzip, chunked"], b"0\r\n\r\n", 0),
        (["Transfer-Encoding: xchunked"], b"0\r\n\r\n", 0),
        (["Content-Length: 5", "Content-Length: 6"], b"hello", 0),
        (["Content-Length: +5"], b"hello", 0),
        (["Content-Length: 0x5"], b"hello", 0),
        ([CHUNKED], b"zz\r\nhello\r\n0\r\n\r\n", 0),
        ([CHUNKED], b"-5\r\nhello\r\n0\r\n\r\n", 0),
        ([CHUNKED], b"5\r\nhelloX\r\n0\r\n\r\n", 0),
        ([CHUNKED], b"5\nhello\n0\n\n", 0),
        ([CHUNKED], b"ffffffffffffffff1\r\nhello", 0),
        ([CHUNKED], b"5;a=b\r\nhello\r\n0\r\n\r\n" + SMUGGLED.encode(), 1),
        (["Content-Length: 5"], b"hello" + SMUGGLED.encode(), 1),
        ([CHUNKED], b"%x\r\n0\r\n\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED) + 5, SMUGGLED.encode()), 1),
    ],
)  # fmt: skip
def test_a_body_does_not_become_a_request(
    stage: Stage, headers: list[str], body: bytes, arrived: int
) -> None:
    got = stage.ask(head(stage, "/stream/upload", *headers) + body, answers=2, patience=2)
    assert leak(got.data) is None
    assert len(stage.arrived) == arrived, stage.arrived
    assert all(request.path == "/stream/upload" for request in stage.arrived)


@pytest.mark.parametrize("length", ["4", "6", "05", "5, 5"])
def test_http2_lengths_that_lie(stage: Stage, length: str) -> None:
    got = stage.ask_h2(h2_head(stage, "/stream/upload", ("content-length", length)), b"hello")
    assert got.status in (0, 400, 413), got.data
    assert stage.arrived == []


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/stream/held/x", []),
        ("/stream/HELD/x", []),
        ("/stream/private/x", []),
        ("/stream/Private/x", []),
        ("/stream/../open/private/x", []),
        ("/stream/%2e%2e/open/private", []),
        ("/stream//private/x", []),
        ("/stream/x;/../private", []),
        ("/stream/x?_method=DELETE", []),
        ("/stream/x", ["X-HTTP-Method-Override: DELETE"]),
        ("/stream/x", ["X-Original-URL: /open/private"]),
        ("/stream/x", ["Upgrade: h2c", "Connection: upgrade"]),
        ("/stream/x", ["Upgrade: websocket", "Connection: upgrade"]),
    ],
)
@pytest.mark.parametrize("framing", ["Content-Length: 9", CHUNKED])
def test_what_does_not_stream_is_read_first(
    stage: Stage, path: str, headers: list[str], framing: str
) -> None:
    body = b"hello, it" if framing != CHUNKED else b"9\r\nhello, it\r\n0\r\n\r\n"
    got = stage.ask(head(stage, path, framing, "Prefer: respond-async", *headers) + body)
    stage.held(got)
    assert got.status in (202, 400, 403)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", b"a=1&_method=DELETE"),
        ("Application/JSON", b'{"_method": "DELETE"}'),
        ("multipart/form-data; boundary=b",
         b'--b\r\nContent-Disposition: form-data; name="_method"\r\n\r\nDELETE\r\n--b--\r\n'),
    ],
)  # fmt: skip
def test_a_form_is_read_even_where_bodies_stream(stage: Stage, kind: str, body: bytes) -> None:
    headers = (f"Content-Length: {len(body)}", f"Content-Type: {kind}")
    got = stage.ask(head(stage, "/stream/upload", *headers) + body)
    stage.held(got, "request_ambiguous")


def test_a_body_above_the_rules_limit_never_arrives_whole(stage: Stage) -> None:
    data = (
        head(stage, "/stream/upload", CHUNKED) + b"100001\r\n" + bytes(0x100001) + b"\r\n0\r\n\r\n"
    )
    got = stage.ask(data)
    assert got.codes == ["body_too_large"]
    assert stage.arrived == []


def test_an_answer_before_the_end_of_the_body_is_masked_too(stage: Stage) -> None:
    def early(request: Received, conversation: Conversation) -> None:
        said = f"early {token_of(request)}".encode()
        conversation.write(b"HTTP/1.1 403 No\r\nX-T: %s\r\n" % token_of(request).encode())
        conversation.write(b"Content-Length: %d\r\n\r\n%s" % (len(said), said))

    stage.upstream.heads["/stream/early"] = early
    try:
        got = stage.ask(head(stage, "/stream/early", "Content-Length: 100000") + b"x" * 100)
    finally:
        del stage.upstream.heads["/stream/early"]
    assert leak(got.data) is None and b"[keybroker:masked]" in got.data
    assert got.status == 403


def test_a_revoked_agents_upload_is_broken_off(stage: Stage) -> None:
    key = stage.kb.agent("leaver", "--tag", "streamer")
    with stage.tls(agent=key) as sock:
        sock.sendall(head(stage, "/stream/upload", "Content-Length: 1000") + b"x" * 100)
        wait_for(lambda: _sent(stage, "leaver"), "the call is sent")
        stage.kb.cli("agent", "revoke", "leaver")
        sock.settimeout(10)
        with contextlib.suppress(OSError):
            assert sock.recv(100) == b""
    assert stage.arrived == []


def _sent(stage: Stage, agent: str) -> bool:
    return bool(stage.kb.records(type="call.sent", agent=agent))


# --- trailers ------------------------------------------------------------------------------------

NAMES = ["Host", "Content-Length", "Transfer-Encoding", "Authorization", "Cookie", "X-Api-Key",
         "Proxy-Authorization", "X-HTTP-Method-Override", "X-Forwarded-For", "Connection", "TE",
         "Accept-Encoding", "Content-Type", "Keybroker-Reason", "X_Y", "x y"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_trailer_takes_no_headers_place(stage: Stage, name: str) -> None:
    body = f"5\r\nhello\r\n0\r\n{name}: localhost\r\n\r\n".encode()
    got = stage.ask(head(stage, "/stream/upload", CHUNKED) + body)
    assert got.status in (0, 400), got.data
    assert stage.arrived == []


@pytest.mark.parametrize("name", ["host", "content-length", "authorization", ":path", "x-api-key"])
def test_a_trailer_of_http2_takes_no_headers_place(stage: Stage, name: str) -> None:
    got = stage.ask_h2(h2_head(stage, "/stream/upload"), b"hello", trailers=[(name, "1")])
    assert got.status in (0, 400), got.data
    assert stage.arrived == []


@pytest.mark.parametrize("path", ["/open/upload", "/ask/x"])
def test_a_body_that_is_read_has_no_trailers(stage: Stage, path: str) -> None:
    body = b"5\r\nhello\r\n0\r\nX-A: b\r\n\r\n"
    stage.held(stage.ask(head(stage, path, CHUNKED) + body), "request_ambiguous")


def test_a_plain_trailer_arrives(stage: Stage) -> None:
    body = b"5\r\nhello\r\n0\r\nX-Sum: b\r\n\r\n"
    got = stage.ask(head(stage, "/stream/upload", CHUNKED) + body)
    assert got.codes == []
    assert stage.arrived[0].trailers == (("x-sum", "b"),)


def test_trailers_of_a_response_are_masked(stage: Stage) -> None:
    got = stage.ask(stage.get("/trailers", "TE: trailers", "Connection: TE"))
    assert leak(got.data) is None and b"x-token: [keybroker:masked]" in got.data.lower()
    got = stage.ask_h2([(":method", "GET"), (":scheme", "https"), (":authority", stage.at()),
                        (":path", "/trailers")])  # fmt: skip
    assert leak(got.data) is None and b"[keybroker:masked]" in got.data


def test_a_trailer_of_a_response_cannot_set_a_cookie_or_frame(stage: Stage) -> None:
    trailers = (("Set-Cookie", "a=b"), ("Content-Length", "0"), ("Keybroker-Code", "ok"),
                (f"X-{CANARIES['header_key'][:3]}x", "1"), ("X-Fine", "1"))  # fmt: skip
    stage.upstream.answer("/made/t", Reply(body=iter([b"body"]), trailers=trailers))
    got = stage.ask(stage.get("/made/t", "TE: trailers", "Connection: TE"))
    tail = got.data.rpartition(b"\r\n0\r\n")[2].lower()
    assert b"x-fine: 1" in tail
    for name in (b"set-cookie", b"content-length", b"keybroker-code"):
        assert name not in tail


# --- sockets -------------------------------------------------------------------------------------

UPGRADE = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip


def masked(payload: bytes, first: int = 0x81) -> bytes:
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + struct.pack(">H", size)
    return bytes((first,)) + length + bytes(4) + payload


def plain(payload: bytes, first: int = 0x81) -> bytes:
    size = len(payload)
    length = bytes((size,)) if size < 126 else b"\x7e" + struct.pack(">H", size)
    return bytes((first,)) + length + payload


def talks(stage: Stage, path: str, say_it: Callable[[bytes], list[bytes]]) -> None:
    """The upstream opens a WebSocket at `path` and sends what `say_it` makes of the credential."""

    def route(request: Received) -> Reply:
        def take(conversation: Conversation) -> None:
            for piece in say_it(token_of(request).encode()):
                conversation.write(piece)
            with contextlib.suppress(OSError):
                conversation.read(100)

        asked = Received(request.method, "/ws", request.version, request.headers, b"")
        reply = built_in(asked)
        reply.takeover = take
        return reply

    stage.upstream.answer(path, route)


def heard(stage: Stage, path: str, data: bytes = b"", patience: float = 1.0) -> Got:
    with stage.tls() as sock:
        sock.settimeout(10)
        sock.sendall(stage.get(path, *UPGRADE))
        got = b""
        while b"\r\n\r\n" not in got:
            got += sock.recv(65536)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
            sock.sendall(data)
        return Got(got + _rest(sock, patience))


def _rest(sock: socket.socket, patience: float) -> bytes:
    got = b""
    sock.settimeout(patience)
    with contextlib.suppress(OSError):
        while chunk := sock.recv(65536):
            got += chunk
    return got


SAID: dict[str, Callable[[bytes], list[bytes]]] = {
    "text": lambda t: [plain(b"you are " + t)],
    "binary": lambda t: [plain(b"\0" + t + b"\1", 0x82)],
    "fragments": lambda t: [plain(t[:9], 0x01), plain(t[9:15], 0x00), plain(t[15:], 0x80)],
    "letters": lambda t: [plain(t[:1], 0x01), *(plain(t[i : i + 1], 0) for i in range(1, len(t))),
                          plain(b"", 0x80)],
    "fragments-with-ping": lambda t: [plain(t[:9], 0x01), plain(b"p", 0x89), plain(t[9:], 0x80)],
    "ping": lambda t: [plain(t, 0x89)],
    "pong": lambda t: [plain(t, 0x8A)],
    "close": lambda t: [plain(b"\x03\xe8" + t, 0x88)],
    "bytes-apart": lambda t: [bytes((byte,)) for byte in plain(b"<" + t + b">")],
    "across-64k": lambda t: [plain(b"x" * 65_530 + t[:3], 0x01), plain(t[3:], 0x80)],
    "long-frame": lambda t: [b"\x81\x7f" + (140_000 + len(t)).to_bytes(8, "big") + b"x" * 65_530
                             + t + b"x" * 74_470],
    "json-escapes": lambda t: [plain(b"".join(b"\\u%04x" % byte for byte in t))],
    "hex": lambda t: [plain(t.hex().encode())],
    "http-inside": lambda t: [b"HTTP/1.1 200 OK\r\nX: " + t + b"\r\n\r\n"],
    "masked-by-the-server": lambda t: [masked(t)],
    "compressed-bit": lambda t: [plain(t, 0xC1)],
    "reserved-opcode": lambda t: [plain(t, 0x83)],
    "long-ping": lambda t: [plain(t * 5, 0x89)],
    "continuation-of-nothing": lambda t: [plain(t, 0x80)],
    "behind-the-close": lambda t: [plain(b"\x03\xe8", 0x88), plain(t)],
    "odd-length": lambda t: [b"\x81\x7e\x00" + bytes((len(t),)) + t],
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_a_socket_does_not_say_the_credential(stage: Stage, name: str) -> None:
    talks(stage, "/made/socket", SAID[name])
    got = heard(stage, "/made/socket")
    assert got.status == 101
    assert leak(got.data) is None, f"{leak(got.data)}: {got.data[:500]!r}"
    assert len(stage.arrived) == 1


def test_a_credential_split_over_messages(stage: Stage, weak: Callable[[str], None]) -> None:
    talks(stage, "/made/socket", lambda t: [plain(t[:9]), plain(t[9:18]), plain(t[18:])])
    got = heard(stage, "/made/socket")
    assert TOKEN not in got.data
    if plain(TOKEN[:9]) + plain(TOKEN[9:18]) in got.data:
        weak("a secret in several messages of a WebSocket is not seen: path rules are the control")


@pytest.mark.parametrize(
    "data",
    [
        SMUGGLED.encode(),
        b"\x81\x05hello",
        masked(b"x", 0xC1),
        masked(b"x", 0x83),
        masked(b"x" * 126, 0x89),
        masked(b"", 0x88) + SMUGGLED.encode(),
    ],
)
def test_what_is_no_frame_of_an_agents_ends_the_socket(stage: Stage, data: bytes) -> None:
    got = heard(stage, "/ws", data)
    assert got.status == 101
    assert got.data.endswith(b"\x88\x02\x03\xea") or b"\x88" in got.data.partition(b"\r\n\r\n")[2]
    assert [request.path for request in stage.arrived] == ["/ws"]


@pytest.mark.parametrize("path", ["/ask/socket", "/open/held/socket", "/open/private/socket"])
def test_frames_before_the_decision_go_nowhere(stage: Stage, path: str) -> None:
    data = stage.get(path, "Prefer: respond-async", *UPGRADE) + masked(b"early") * 3
    stage.held(stage.ask(data, patience=2))


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA="],
        ["Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
         "Sec-WebSocket-Extensions: permessage-deflate"],
    ],
)  # fmt: skip
def test_an_upstream_that_does_not_open_it_properly_is_refused(
    stage: Stage, lines: list[str]
) -> None:
    answer = ["HTTP/1.1 101 Yes", "Upgrade: websocket", "Connection: upgrade", *lines, "", ""]
    raw = "\r\n".join(answer).encode() + TOKEN
    stage.upstream.answer("/made/socket", Reply(raw=raw))
    got = stage.ask(stage.get("/made/socket", *UPGRADE))
    assert got.codes == ["response_refused"]
    assert leak(got.data) is None


@pytest.mark.parametrize(
    "headers",
    [
        ["Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"],
        ["Upgrade: TLS/1.0", "Connection: Upgrade"],
        ["Upgrade: websocket, h2c", "Connection: Upgrade"],
        ["Upgrade: websocket", "Connection: Upgrade"],
        [*UPGRADE[:2], "Sec-WebSocket-Version: 8", UPGRADE[3]],
        [*UPGRADE[:3], "Sec-WebSocket-Key: short"],
        [UPGRADE[0], "Connection: close", *UPGRADE[2:]],
    ],
)
def test_no_other_protocol_is_switched_to(stage: Stage, headers: list[str]) -> None:
    stage.held(stage.ask(stage.get("/ws", *headers)), "request_ambiguous")


def test_a_socket_over_http2_is_not_opened(stage: Stage) -> None:
    got = stage.ask_h2([(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"),
                        (":authority", stage.at()), (":path", "/ws")])  # fmt: skip
    assert b"[goaway]" in got.data
    assert stage.arrived == []
