"""Responses: the same judgement as the full engine's on any bytes, wherever they are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.express.replies import ReplyReader, Unreadable
from proxy.http1 import MAX_INFORMATIONAL, MAX_RESPONSE_HEAD
from tests.proxy.express import layers
from tests.proxy.express.layers import Judgement

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def judge(method: str, pieces: list[bytes], *, eof: bool = False) -> Judgement:
    """As `layers.response`, by the reader of the express lane."""
    reader = ReplyReader()
    reader.begin(method.encode())
    head, body = None, b""

    def found(end: str, *, reusable: bool = False) -> Judgement:
        trailers = tuple(reader.trailers) if end == "whole" else ()
        return Judgement(head, body, trailers, end, reusable)

    try:
        for at, piece in enumerate(pieces):
            reader.take(piece)
            if head is None:
                response = reader.head()
                if response is None:
                    continue
                fields = response.headers.fields
                head = (response.status_code, response.data.reason, fields)
            while part := reader.body():
                body += part
            if part is not None:
                rest = b"".join(pieces[at + 1 :])
                reusable = reader.reusable and not (rest or eof or response.status_code == 101)
                return found("whole", reusable=reusable)
        if not eof:
            return found("waiting")
        while part := reader.eof():
            body += part
        return found("whole")
    except Unreadable:
        return found("broken")


_statuses = st.sampled_from(
    [b"200"] * 6 + [b"204", b"304", b"404", b"500", b"100", b"103", b"101", b"099", b"+200", b"2_0"]
)
_versions = st.sampled_from([b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/11", b"http/1.1"])
_lines = st.sampled_from(
    [b"Content-Length: %d" % size for size in (0, 1, 2, 3, 9)]
    + [b"Transfer-Encoding: " + coding for coding in (b"chunked", b"gzip", b"gzip,chunked", b"x")]
    + [b"Connection: " + option for option in (b"close", b"Close", b"keep-alive", b"x, close")]
    + [b"Content-Length: +2", b"Content-Length: 2, 2", b"content-length:2", b"Content-Length:"]
    + [b"X: y", b" folded", b"X", b": y", b"X(: y", b"X: a\rb", b"X: \xe9\x00", b"Set-Cookie: a"]
)
_bodies = st.sampled_from(
    [b"", b"ok", b"okk", b"2\r\nok\r\n0\r\n\r\n", b"2;a=b\r\nok\r\n0\r\nX: y\r\n\r\n"]
    + [
        b"0\r\n\r\n",
        b"0\r\n\r\nX",
        b"2\r\nokk\r\n",
        b"z\r\n",
        b"2\nok\n0\n\n",
        b"0\r\nX(: y\r\n\r\n",
    ]
    + [OK] * 2
)
_ends = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\n "])


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """Mostly a whole response in good form, with something odd here and there."""
    data = draw(st.sampled_from([b""] * 6 + [b"\r\n", b"\r\n\r\n", HINTS, HINTS * 2, b"\n"]))
    reason = draw(st.sampled_from([b" OK", b"", b" \xe9", b"  a b"]))
    data += draw(_versions) + b" " + draw(_statuses) + reason + draw(_ends)
    for line in draw(st.lists(_lines, max_size=3)):
        data += line + draw(_ends)
    return data + draw(_ends) + draw(_bodies)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[str, list[bytes], bool]:
    """The method that was asked by, the response in pieces, and whether nothing follows it."""
    data = draw(responses() | st.binary(max_size=40))
    if draw(st.integers(0, 9)) == 0 and data:
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(max_size=2)) + data[at + 1 :]
    cuts = sorted(draw(st.sets(st.integers(1, max(len(data) - 1, 1)), max_size=4)))
    bounds = [0, *(cut for cut in cuts if cut < len(data)), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(bounds) if b > a]
    return draw(st.sampled_from(["GET", "GET", "HEAD", "POST"])), pieces, draw(st.booleans())


@settings(max_examples=500, deadline=None)
@given(conversations())
@example(("GET", [OK], False))
@example(("HEAD", [OK], False))
@example(("GET", [CHUNKED + b"2;a=b\r\nok\r\n0\r\nX: y\r\n\r\n"], False))
@example(("GET", [b"HTTP/1.1 200 OK\r\n\r\nuntil the end"], True))
@example(("GET", [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"], True))
@example(("GET", [b"\n", OK], False))
@example(("GET", [HINTS * (MAX_INFORMATIONAL + 1) + OK], False))
@example(("GET", [HINTS * MAX_INFORMATIONAL + OK], False))
@example(("GET", [OK + OK], False))
@example(("GET", [OK, OK], False))
def test_the_same_judgement(conversation: tuple[str, list[bytes], bool]) -> None:
    method, pieces, eof = conversation
    assert judge(method, pieces, eof=eof) == layers.response(method, pieces, eof=eof)


@settings(max_examples=200, deadline=None)
@given(responses(), st.booleans())
def test_byte_by_byte_it_is_the_same(data: bytes, eof: bool) -> None:
    pieces = [data[at : at + 1] for at in range(len(data))]
    assert judge("GET", pieces, eof=eof) == layers.response("GET", pieces, eof=eof)


@pytest.mark.parametrize("step", [1000, 65536])
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nX: ",
        CHUNKED + b"1;",
        CHUNKED + b"0\r\nX: ",
        HINTS + b"HTTP/1.1 103 Early Hints\r\nX: ",
        b"",
    ],
)
def test_what_makes_no_sense_yet_has_an_end(head: bytes, step: int) -> None:
    filler = [b"a" * step] * (MAX_RESPONSE_HEAD // step + 2)
    found = judge("GET", [head, *filler])
    assert found.end == "broken"
    assert found == layers.response("GET", [head, *filler])


def test_a_body_has_none() -> None:
    pieces = [b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", *[b"a" * 65536] * 15]
    assert judge("GET", pieces).end == "waiting"
    assert len(judge("GET", [*pieces, b"a" * 16960]).body) == 1_000_000


def test_one_response_after_another() -> None:
    reader = ReplyReader()
    for method, data in (
        (b"GET", OK),
        (b"HEAD", OK[:-2]),
        (b"GET", CHUNKED + b"0\r\nA: b\r\n\r\n"),
    ):
        reader.begin(method)
        assert reader.trailers == []
        reader.take(data)
        assert reader.head() is not None
        while reader.body():
            pass
        assert reader.reusable
    assert reader.trailers == [(b"a", b"b")]


def test_a_response_before_its_request_is_none() -> None:
    reader = ReplyReader()
    reader.take(OK)
    with pytest.raises(Unreadable):
        reader.begin(b"GET")


def test_no_response_at_the_end_is_none() -> None:
    reader = ReplyReader()
    reader.begin(b"GET")
    assert not reader.reusable
    with pytest.raises(Unreadable):
        reader.eof()
