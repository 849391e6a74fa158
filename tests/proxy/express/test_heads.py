"""Heads: what is plain is read as the full engine reads it; everything else is left to that one."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mitmproxy.http import Headers
from mitmproxy.http import Request as Message
from mitmproxy.net.http import http1

from proxy import http1 as agents
from proxy.express.heads import MAX_HEAD, MOST_BODY, plain_head, request_head
from proxy.translate import upstream_request
from rules.request import Request
from tests.proxy.express import layers

GET = b"GET /a?b=c HTTP/1.1\r\nHost: localhost\r\n\r\n"

# -- from the agent

_ODD_NAMES = (b"", b" X", b"X A")
_names = st.sampled_from(_ODD_NAMES) | st.sampled_from(
    b"""Host X-A content-length Content-Length CONNECTION Connection Accept Expect Transfer-Encoding
    Upgrade TE Trailer Content-Type Cookie Proxy-Authorization Content_Length X-\xc4 X"A
    !#$%&'*+-.^_`|~""".split()
)
_values = st.one_of(
    st.sampled_from(
        [b"0", b"1", b"3", b"03", b"+3", b"3, 3", b"-1", b"close", b"Close", b"x, close"]
    )
    | st.sampled_from(
        [b"keep-alive", b"chunked", b"100-continue", b"trailers", b"application/grpc"]
    )
    | st.sampled_from([b"", b"localhost", b"\x0bchunked", b"a\x0c", b"\xa0", b"a\rb", b"a\nb"]),
    st.binary(max_size=8),
)
_spaces = st.sampled_from([b"", b" ", b"  ", b"\t", b" \t "])
_lines = st.tuples(
    _names, st.sampled_from([b":", b":", b":", b" :", b""]), _spaces, _values, _spaces
)
_ends = st.sampled_from([b"\r\n"] * 9 + [b"\n", b"\r", b"\r\n ", b"\r\r\n"])
_methods = st.sampled_from(
    [b"GET", b"POST", b"HEAD", b"get", b"CONNECT", b"Connect", b"M-1", b"(", b""]
)
_targets = st.one_of(
    st.sampled_from(
        [b"/", b"/a?b", b"*", b"//x", b"/a b", b"/\x7f", b"/\xe9", b"http://a/", b"a:1"]
    ),
    st.binary(max_size=6).map(lambda rest: b"/" + rest),
)
_versions = st.sampled_from(
    [b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 "]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Mostly a whole request in good form, with something odd here and there."""
    space = draw(st.sampled_from([b" "] * 9 + [b"\t", b"  ", b"\x0b"]))
    data = space.join((draw(_methods), draw(_targets), draw(_versions))) + draw(_ends)
    for line in draw(st.lists(_lines, max_size=4)):
        data += b"".join(line) + draw(_ends)
    return data + draw(_ends) + draw(st.binary(max_size=5))


@settings(max_examples=400, deadline=None)
@given(requests() | st.binary(max_size=60))
@example(GET)
@example(b"POST / HTTP/1.1\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabcGET")
@example(b"GET / HTTP/1.1\r\nX: \x0b a \x0c\r\n\r\n")
@example(b"GET /\x85\xa0 HTTP/1.1\r\nX:\r\n\r\n")
def test_what_is_plain_is_the_same_to_the_full_engine(data: bytes) -> None:
    head = plain_head(data)
    if head is None:
        return
    whole = data[: head.size] + (data[head.size :] + b"abc")[: head.length]
    if len(whole) < head.size + head.length:
        whole = whole.ljust(head.size + head.length, b"z")
    read = layers.request(whole)
    assert read == layers.ReadRequest(head.method, head.target, head.fields, whole[head.size :])
    assert agents._STRICT_HEAD.fullmatch(data, 0, head.size)
    assert head.close == agents.connection_close("HTTP/1.1", Headers(head.fields))
    names = {name.lower() for name, _ in head.fields}
    assert not names & {b"expect", b"upgrade", b"te", b"trailer", b"transfer-encoding"}
    # Only the whole head is one, and what follows it does not count.
    assert all(plain_head(data[:cut]) is None for cut in range(head.size))
    assert plain_head(data[: head.size]) == plain_head(data[: head.size] + b"\r\n\r\nGET") == head


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GET[:-1],
        GET[:-2],
        b"\r\n" + GET,
        b" " + GET,
        GET.replace(b"1.1", b"1.0"),
        GET.replace(b"/a?b=c", b"*"),
        GET.replace(b"/a?b=c", b"https://localhost/"),
        GET.replace(b"\r\n", b"\n"),
        GET.replace(b"Host:", b"Host :"),
        GET.replace(b"Host: ", b"Host:\r\n "),
        GET.replace(b"localhost", b"local\x00host"),
        GET.replace(b"localhost", b"local\rhost"),
        GET.replace(b"GET", b"CONNECT"),
        GET.replace(b"GET", b"connect"),
        *(
            GET.replace(b"Host: localhost", line)
            for line in (
                b"Expect: 100-continue",
                b"expect:",
                b"Upgrade: websocket",
                b"HTTP2-Settings: AA",
                b"TE: trailers",
                b"Trailer: X",
                b"Transfer-Encoding: chunked",
                b"transfer-encoding: identity",
                b"Proxy-Authorization: Basic x",
                b"Connection: upgrade",
                b"Connection: close, x-a",
                b"Connection:",
                b"Content-Length: 1\r\nContent-Length: 1",
                b"Content-Length: 01",
                b"Content-Length:",
                b"Content-Length: 1,1",
                b"Content-Length: %d" % (MOST_BODY + 1),
                b"Content-Type: application/grpc",
                b"content-type: Application/gRPC+proto",
                b"X: " + b"a" * MAX_HEAD,
            )
        ),
    ],
    ids=lambda data: repr(data[:60]),
)
def test_what_is_not_plain(data: bytes) -> None:
    assert plain_head(data) is None


@pytest.mark.parametrize(
    ("lines", "close"),
    [
        (b"Connection: close", True),
        (b"Connection: CLOSE", True),
        (b"Connection: keep-alive", False),
        (b"Connection: close\r\nConnection: keep-alive", True),
        (b"X-Connection: close", False),
    ],
)
def test_an_agent_says_that_it_will_not_come_again(lines: bytes, close: bool) -> None:
    head = plain_head(GET.replace(b"Host: localhost", lines))
    assert head is not None
    assert head.close is close


def test_the_bounds_of_what_is_plain() -> None:
    filler = MAX_HEAD - len(GET) - len(b"X: \r\n")
    widest = GET[:-2] + b"X: " + b"a" * filler + b"\r\n\r\n"
    assert len(widest) == MAX_HEAD
    assert plain_head(widest) is not None
    assert plain_head(widest.replace(b"X: ", b"X: a")) is None
    largest = GET[:-2] + b"Content-Length: %d\r\n\r\n" % MOST_BODY
    head = plain_head(largest)
    assert head is not None
    assert head.length == MOST_BODY


def test_a_head_does_not_show_its_headers() -> None:
    head = plain_head(GET.replace(b"Host: localhost", b"Authorization: s3cret"))
    assert "s3cret" not in repr(head)


# -- to the upstream


def call(**changes: object) -> Request:
    made = Request("GET", "https", "localhost", 8443, "/a", "b=c", (("x-a", "1"),), b"")
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


_texts = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=8)
_bodies = st.binary(max_size=5)


@settings(max_examples=200, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]),
    host=st.sampled_from(["localhost", "127.0.0.1", "::1"]),
    port=st.sampled_from([443, 80, 8443]),
    scheme=st.sampled_from(["http", "https"]),
    query=st.sampled_from([None, "", "a=b&c"]),
    headers=st.lists(st.tuples(st.sampled_from(["x-a", "accept", "cookie"]), _texts)),
    body=_bodies,
    length=st.none() | st.integers(0, 9),
)
def test_a_request_goes_out_as_from_the_full_engine(
    length: int | None, headers: list[tuple[str, str]], **made: object
) -> None:
    request = call(headers=tuple(headers), **made)
    if length is not None:
        request = dataclasses.replace(request, body=b"", unread=True, length=length)
    sent = upstream_request(request, Message.make("GET", "http://x/"))
    expected: bytes = http1.assemble_request_head(sent)  # type: ignore[no-untyped-call]
    assert request_head(request) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/é"},
        {"path": "/€"},
        {"query": "a=\u2028"},
        {"path": "/ HTTP/1.1\r\nX: y"},
        {"path": "/\n"},
        {"path": "/\r"},
        {"method": "GÉT"},
        {"method": "GET / HTTP/1.1\r\nX: y\r\n\r\nGET"},
        {"host": "é"},
        {"host": "a\r\nX: y"},
        {"headers": (("x-a", "€"),)},
        {"headers": (("x-a", "b\r\nx-b: c"),)},
        {"headers": (("x-a", "b\nc"),)},
        {"headers": (("x-a", "b\rc"),)},
        {"headers": (("x-a: b\r\nx-b", "c"),)},
        {"unread": True},
    ],
    ids=repr,
)
def test_what_would_not_be_one_head_is_not_sent(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        request_head(call(**changes))


def test_one_length_and_one_host() -> None:
    head = request_head(call(method="POST", body=b"abc"))
    assert re.findall(rb"(?im)^(?:host|content-length): .*$", head) == [
        b"host: localhost:8443\r",
        b"content-length: 3\r",
    ]
