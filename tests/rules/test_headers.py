"""Header sections: what goes on, what is taken out, what is refused, and with which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.errors import Ambiguous
from rules.headers import (
    MAX_CLAIM,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    Fields,
    read_headers,
)


def read(*lines: str, version: str = "HTTP/1.1", body_length: int = 0) -> Fields:
    """Reads `Name: value` lines, latin-1, as they would come off the wire."""
    pairs = []
    for line in lines:
        name, _, value = line.partition(":")
        pairs.append((name.encode("latin-1"), value.encode("latin-1")))
    return read_headers(pairs, http_version=version, body_length=body_length)


def refusal(*lines: str, version: str = "HTTP/1.1", body_length: int = 0) -> str:
    with pytest.raises(Ambiguous) as caught:
        read(*lines, version=version, body_length=body_length)
    return caught.value.sentence


def test_headers_go_on_in_order_with_lower_case_names() -> None:
    fields = read("Host: a.example", "X-B: 2 \t", "Accept:*/*", "x-a:  a\tb ")
    assert fields.kept == (("x-b", "2"), ("accept", "*/*"), ("x-a", "a\tb"))
    assert fields.host == "a.example"


@pytest.mark.parametrize(
    "line",
    [
        "Proxy-Authorization: Basic x",
        "Proxy-Connection: keep-alive",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Trailer: X-A",
        "Forwarded: for=1.2.3.4",
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-Host: evil.example",
        "X-Real-IP: 1.2.3.4",
        "True-Client-IP: 1.2.3.4",
        "Via: 1.1 x",
        "Keybroker-Anything: x",
        "Connection: close",
        "Expect: 100-continue",
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
        "Prefer: respond-async",
    ],
)
def test_what_concerns_this_hop_is_taken_out(line: str) -> None:
    assert read("Host: a", line, "Accept: */*").kept == (("accept", "*/*"),)


def test_what_the_connection_header_names_is_taken_out() -> None:
    fields = read("Connection: close, X-Hop", "X-Hop: 1", "X-Kept: 2", "Connection: x-other")
    assert fields.kept == (("x-kept", "2"),)


@pytest.mark.parametrize(
    "name", ["authorization", "Host", "Content-Type", "cookie", "If-Match", "Accept", "X-Api-Key"]
)
def test_the_connection_header_may_not_name_what_belongs_to_the_upstream(name: str) -> None:
    assert "belongs to the upstream" in refusal(f"Connection: close, {name}", f"{name}: x")


def test_the_connection_header_is_a_list_of_names() -> None:
    assert "no list of header names" in refusal("Connection: a b")
    assert read("Connection: , close,").kept == ()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Transfer_Encoding: chunked", "`_`"),
        ("X.Forwarded.For: x", "letters, digits and hyphens"),
        ("X-A : x", "before the colon"),
        (" X-A: x", "white space"),
        (": x", "no name"),
        ("X-\xe9: x", "letters, digits and hyphens"),
        ("X\0: x", "letters, digits and hyphens"),
        ("-: x", "letters, digits and hyphens"),
        ("a" * 129 + ": x", "1 to 128"),
        ("X-A: a\r\n b", "line break"),
        ("X-A: a\rb", "line break"),
        ("X-A: a\nX-B: b", "line break"),
        ("X-A: a\n", "line break"),
        ("X-A: a\0b", "control byte"),
        ("X-A: a\x7f", "control byte"),
        ("X-A: \x0b", "control byte"),
        ("X-A: caf\xe9", "not ASCII"),
        ("X-Forwarded-For: a\0b", "control byte"),
        ("X-HTTP-Method-Override: DELETE", "method you mean"),
        ("X-Method-Override: DELETE", "method you mean"),
        ("X-HTTP-Method: DELETE", "method you mean"),
        ("X-Original-URL: /admin", "path you mean"),
        ("X-Rewrite-URL: /admin", "path you mean"),
        ("X-Host: evil.example", "host you mean"),
        ("Expect: 200-ok", "100-continue"),
        ("Transfer-Encoding: gzip, chunked", "exactly `chunked`"),
        ("Transfer-Encoding: Chunked", "exactly `chunked`"),
        ("Transfer-Encoding: identity", "exactly `chunked`"),
        ("Transfer-Encoding: \x0bchunked", "control byte"),
        ("Content-Length: +5", "decimal"),
        ("Content-Length: 05", "decimal"),
        ("Content-Length: 0x5", "decimal"),
        ("Content-Length: 5, 5", "decimal"),
        ("Content-Length: -1", "decimal"),
        ("Content-Length:", "decimal"),
        ("Content-Length: 9999999999999999999999", "decimal"),
        ("Content-Length: 6", "does not match"),
        ("Upgrade: websocket", "without `Connection: upgrade`"),
        ("Upgrade: h2c", "other than `websocket`"),
        ('Prefer: respond-async, x="a', "quote"),
    ],
)
def test_an_odd_line_is_refused_with_the_reason(line: str, reason: str) -> None:
    sentence = refusal("Host: a", line, body_length=5)
    assert reason in sentence
    assert sentence.isascii() and sentence.isprintable()


def test_a_pseudo_header_is_no_header() -> None:
    with pytest.raises(Ambiguous, match="':authority' is odd"):
        read_headers([(b":authority", b"x")], http_version="HTTP/2", body_length=0)


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Content-Type",
        "Authorization",
        "Cookie",
        "X-Api-Key",
        "Range",
        "Keybroker-Reason",
        "Upgrade",
        "Expect",
        "X-Whatever",
    ],
)
def test_a_header_that_is_no_list_stands_once(name: str) -> None:
    """Servers differ in which of two lines they take, even when the values are equal."""
    assert "twice" in refusal(f"{name}: 0", f"{name.lower()}: 0")


def test_a_list_may_have_several_lines() -> None:
    fields = read("Accept: a", "Accept: b", "Via: x", "Via: y")
    assert fields.kept == (("accept", "a"), ("accept", "b"))


def test_the_pieces_of_an_http2_cookie_are_one_header() -> None:
    fields = read("cookie: a=1", "x-a: 1", "cookie: b=2", "cookie:", version="HTTP/2")
    assert fields.kept == (("cookie", "a=1; b=2"), ("x-a", "1"))


def test_length_and_coding_exclude_each_other() -> None:
    both = ("Content-Length: 5", "Transfer-Encoding: chunked")
    assert "both" in refusal(*both, body_length=5)
    assert "both" in refusal(*reversed(both), body_length=5)


def test_framing_fits_the_version_and_the_body() -> None:
    assert read("Content-Length: 5", body_length=5).kept == ()
    assert read("Transfer-Encoding: chunked", body_length=5).kept == ()
    assert read(body_length=5, version="HTTP/2").kept == ()
    for version in ("HTTP/1.0", "HTTP/2"):
        assert "no place" in refusal("Transfer-Encoding: chunked", version=version)


def test_the_caps_on_headers() -> None:
    within = [f"X-{n}: v" for n in range(MAX_HEADERS)]
    assert len(read(*within).kept) == MAX_HEADERS
    assert "200" in refusal(*within, "X-More: v")
    assert "larger" in refusal("X-A: " + "v" * MAX_HEADER_BYTES)


def test_the_reason_becomes_a_bounded_claim() -> None:
    assert read("Keybroker-Reason: pay back order 7").claim == "pay back order 7"
    assert read("Keybroker-Reason:  ").claim is None
    assert read("Keybroker-Reason: " + "x" * 9999).claim == "x" * MAX_CLAIM
    assert read("Accept: x").claim is None


@pytest.mark.parametrize(
    ("lines", "kept", "asked"),
    [
        (["respond-async"], [], True),
        (["Respond-Async , wait=10"], ["wait=10"], True),
        (["wait=10", "respond-async"], ["wait=10"], True),
        (["return=minimal"], ["return=minimal"], False),
        (['x="a, respond-async"'], ['x="a, respond-async"'], False),
        (['x="a\\", respond-async, b"'], ['x="a\\", respond-async, b"'], False),
        (["respond-asynchronous"], ["respond-asynchronous"], False),
        (['respond-async, x="a,b", ,y'], ['x="a,b", y'], True),
    ],
)
def test_respond_async_is_read_and_other_preferences_stay(
    lines: list[str], kept: list[str], asked: bool
) -> None:
    fields = read(*(f"Prefer: {line}" for line in lines))
    assert fields.respond_async is asked
    assert [value for _, value in fields.kept] == kept


def test_a_websocket_upgrade_is_read_and_its_own_headers_stay() -> None:
    fields = read(
        "Connection: keep-alive, Upgrade",
        "Upgrade: WebSocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: abc",
    )
    assert fields.upgrade == "websocket"
    assert fields.kept == (("sec-websocket-version", "13"), ("sec-websocket-key", "abc"))


def test_no_sentence_shows_a_value() -> None:
    """It may be a secret."""
    secret = "s3cret"
    for line in (
        "X-A: {}\0",
        "Content-Length: {}",
        "Expect: {}",
        "Upgrade: {}",
        "Connection: {} b",
    ):
        assert secret not in refusal(line.format(secret))
    assert secret not in refusal(f"Authorization: {secret}", f"Authorization: {secret}")


NAMES = st.sampled_from(
    [b"Host", b"Cookie", b"Prefer", b"Connection", b"X-A", b"Upgrade", b"Content-Length", b"Accept"]
) | st.binary(max_size=6)
VALUES = st.sampled_from([b"upgrade, x-a", b"websocket", b"respond-async, a", b"0", b" "])


@given(
    st.lists(st.tuples(NAMES, VALUES | st.binary(max_size=8)), max_size=6),
    st.sampled_from(["HTTP/1.0", "HTTP/1.1", "HTTP/2"]),
)
def test_reading_is_total_and_what_is_kept_is_clean(
    lines: list[tuple[bytes, bytes]], version: str
) -> None:
    try:
        fields = read_headers(lines, http_version=version, body_length=0)
    except Ambiguous:
        return
    for name, value in fields.kept:
        assert name == name.lower() and name not in {"host", "connection", "content-length"}
        assert value == value.strip(" \t") and value.isascii()
    again = [(n.encode(), v.encode()) for n, v in fields.kept]
    assert read_headers(again, http_version=version, body_length=0).kept == fields.kept
