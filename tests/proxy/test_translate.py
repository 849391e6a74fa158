"""Messages become values and back; what cannot be said exactly is refused."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from mitmproxy import http
from mitmproxy.test import tflow

from proxy import translate
from proxy.exchange import Wire
from rules.errors import Ambiguous
from rules.request import Request
from tests.proxy.harness import FakeAnswer, FakeHead

H1 = Wire(b"GET", b"", b"", b"/", b"HTTP/1.1")
H2 = Wire(b"GET", b"https", b"a.example", b"/", b"HTTP/2.0")
CALL = Request("POST", "https", "a.example", 8443, "/p", "q=1", (("x-a", "1"),), b"body")


def received(version: bytes = b"HTTP/1.1", **headers: str) -> http.Request:
    fields = http.Headers([(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()])
    return http.Request("h", 1, b"GET", b"", b"", b"/", version, fields, b"", None, 1.0, 2.0)


def connect(authority: bytes, method: bytes = b"CONNECT", **headers: str) -> tuple[str, int]:
    wire = Wire(method, b"", authority, b"", b"HTTP/1.1")
    return translate.connect_target(received(**headers), wire)


def test_connect_target_is_canonical() -> None:
    assert connect(b"API.Example:443", host="api.example:443") == ("api.example", 443)
    assert connect(b"api.example:8443", host="api.example") == ("api.example", 8443)
    assert connect(b"[::1]:443", content_length="0") == ("::1", 443)


@pytest.mark.parametrize("authority", [b"a.example", b"a.example:", b"a@b:1", b"\xff:1", b":1"])
def test_connect_target_must_be_whole(authority: bytes) -> None:
    with pytest.raises(Ambiguous):
        connect(authority)


def test_connect_refuses_other_names_and_bodies() -> None:
    for headers in ({"host": "b.example:443"}, {"content_length": "1"}, {"host": "a.example:444"}):
        with pytest.raises(Ambiguous):
            connect(b"a.example:443", **headers)
    with pytest.raises(Ambiguous):
        connect(b"a.example:443", b"connect")


def test_the_claimed_scheme_must_be_how_it_came() -> None:
    flow = tflow.tflow()
    flow.client_conn.timestamp_tls_setup = None
    assert translate.raw_request(flow, H1, None, None).scheme == "http"
    with pytest.raises(Ambiguous, match="came by http"):
        translate.raw_request(flow, H2, None, None)
    flow.client_conn.timestamp_tls_setup = 1.0
    assert translate.raw_request(flow, H2, ("a.example", 443), None).scheme == "https"
    with pytest.raises(Ambiguous, match="http://"):
        translate.raw_request(flow, Wire(b"GET", b"http", b"a", b"/", b"HTTP/1.1"), None, None)


def test_raw_request_keeps_every_byte() -> None:
    flow = tflow.tflow()
    wire = Wire(b"g\xe9t", b"", b"A\xff:1", b"/\xc3\xa9?%2f", b"HTTP/2.0")
    raw = translate.raw_request(flow, wire, ("a", 1), "sni")
    assert raw.method.encode("latin-1") == wire.method
    assert raw.target.encode("latin-1") == wire.path
    assert (raw.authority or "").encode("latin-1") == wire.authority
    assert (raw.http_version, raw.sni, raw.connect) == ("HTTP/2", "sni", ("a", 1))
    assert raw.headers == flow.request.headers.fields


def test_upstream_request_for_http1() -> None:
    request = translate.upstream_request(CALL, received(x_mine="gone"))
    assert (request.host, request.port, request.scheme) == ("a.example", 8443, "https")
    assert (request.data.path, request.data.authority) == (b"/p?q=1", b"")
    assert request.headers.fields == (
        (b"host", b"a.example:8443"),
        (b"x-a", b"1"),
        (b"content-length", b"4"),
    )
    assert request.raw_content == b"body"


def test_upstream_request_for_an_http2_agent() -> None:
    request = translate.upstream_request(CALL, received(b"HTTP/2.0"))
    assert request.data.http_version == b"HTTP/2.0"
    assert request.data.authority == b"a.example:8443"
    assert "host" not in request.headers


def test_upstream_request_asks_to_switch_only_when_allowed() -> None:
    request = Request("GET", "http", "a.example", 80, "/", None, (), b"", upgrade="websocket")
    fields = translate.upstream_request(request, received()).headers
    assert (fields["connection"], fields["upgrade"]) == ("upgrade", "websocket")
    assert "content-length" not in fields


@pytest.mark.parametrize(
    "answer",
    [
        FakeAnswer(100),
        FakeAnswer(101),
        FakeAnswer(600),
        FakeAnswer(200, (("a b", "c"),)),
        FakeAnswer(200, (("a", "b\nc"),)),
    ],
)
def test_what_is_no_answer_raises(answer: FakeAnswer) -> None:
    with pytest.raises(ValueError):
        translate.answer_response(answer, H1)


def test_answers_are_framed_by_us() -> None:
    answer = FakeAnswer(200, (("Content-Length", "99"), ("Transfer-Encoding", "chunked")), b"abc")
    response = translate.answer_response(answer, H1, close=True)
    assert response.reason == HTTPStatus(answer.status).phrase
    assert response.headers.fields == ((b"content-length", b"3"), (b"connection", b"close"))
    head = Wire(b"HEAD", b"", b"", b"/", b"HTTP/2.0")
    response = translate.answer_response(answer, head, close=True)
    assert response.headers.fields == ((b"content-length", b"3"),)
    assert response.raw_content == b""
    assert "content-length" not in translate.answer_response(FakeAnswer(204), H1).headers


@pytest.mark.parametrize(
    ("status", "code"),
    [(202, "14"), (403, "7"), (409, "10"), (502, "14"), (503, "14"), (599, "13")],
)
def test_a_grpc_client_reads_every_answer_as_a_status_of_its_own(status: int, code: str) -> None:
    wire = Wire(b"POST", b"https", b"", b"/a.B/C", b"HTTP/2.0", grpc=True)
    kind = ("Content-Type", "application/problem+json")
    answer = FakeAnswer(
        status, (kind, ("Keybroker-Code", "c")), '{"detail": "50 % \u00fc"}'.encode()
    )
    response = translate.answer_response(answer, wire)
    assert (response.status_code, response.raw_content) == (200, b"")
    assert dict(response.headers.items()) == {
        "Keybroker-Code": "c",
        "content-type": "application/grpc",
        "grpc-status": code,
        "grpc-message": "50 %25 %C3%BC",
        "content-length": "0",
    }


def response(*fields: tuple[bytes, bytes], reason: bytes = b"OK") -> http.Response:
    return http.Response(b"HTTP/1.1", 200, reason, http.Headers(fields), None, None, 0.0, None)


def test_received_head_is_end_to_end() -> None:
    head = translate.received_head(
        response(
            (b"Connection", b"close, X-Hop"),
            (b"x-hop", b"1"),
            (b"Transfer-Encoding", b"chunked"),
            (b"X-Folded", b"a\r\n b"),
            (b"X-Bytes", b"\xff"),
        )
    )
    assert head == (200, "OK", (("X-Folded", "a b"), ("X-Bytes", "\xff")))


@pytest.mark.parametrize("field", [(b"a", b"b\rc"), (b"a", b"\x00"), (b"a b", b"c"), (b"", b"c")])
def test_received_head_refuses_control_bytes(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(translate.UnsafeHead):
        translate.received_head(response(field))


def delivered(
    head: FakeHead, wire: Wire = H1, method: bytes = b"GET", close: bool = False
) -> dict[str, str]:
    sent = received()
    sent.data.method = method
    made = translate.delivered_response(head, wire, sent.data.method, close=close)
    return {name.decode(): value.decode() for name, value in made.headers.fields}


@pytest.mark.parametrize(
    ("status", "headers", "wire", "method", "expected"),
    [
        (200, (("content-length", "3"),), H1, b"GET", {"content-length": "3"}),
        (200, (), H1, b"GET", {"transfer-encoding": "chunked"}),
        (200, (), H2, b"GET", {}),
        (200, (), Wire(b"GET", b"", b"", b"/", b"HTTP/1.0"), b"GET", {"connection": "close"}),
        (204, (), H1, b"GET", {}),
        (304, (("content-length", "3"),), H1, b"GET", {"content-length": "3"}),
        (200, (), Wire(b"HEAD", b"", b"", b"/", b"HTTP/1.1"), b"HEAD", {}),
        (200, (("Content-Length", "3"),), H1, b"HEAD", {"content-length": "0"}),
        (
            101,
            (("Sec-WebSocket-Accept", "for another key"),),
            Wire(b"GET", b"", b"", b"/", b"HTTP/1.1", websocket_key="dGhlIHNhbXBsZSBub25jZQ=="),
            b"GET",
            {
                "sec-websocket-accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
                "connection": "upgrade",
                "upgrade": "websocket",
            },
        ),
        (200, (("Connection", "x"), ("Upgrade", "h2c"), ("Content-Length", "0")), H1, b"GET",
         {"Content-Length": "0"}),
    ],
)  # fmt: skip
def test_delivered_framing(
    status: int,
    headers: tuple[tuple[str, str], ...],
    wire: Wire,
    method: bytes,
    expected: dict[str, str],
) -> None:
    assert delivered(FakeHead(status, "OK", headers), wire, method) == expected


def test_delivered_head_must_be_safe() -> None:
    for head in (
        FakeHead(199, "OK", ()),
        FakeHead(200, "a\r\nb: c", ()),
        FakeHead(200, "OK", (("a", "b\r\nc: d"),)),
    ):
        with pytest.raises(translate.UnsafeHead):
            delivered(head)
    assert delivered(FakeHead(200, "", (("content-length", "0"),)), close=True)["connection"]
