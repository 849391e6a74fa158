"""Answers are read whole and in one way, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.secrets.http1 import MAX_BODY, MAX_HEAD, Garbled, Reader, Response, TooLong, head

OK = b"HTTP/1.1 200 OK\r\n"


def read(data: bytes, *, step: int | None = None) -> Response | None:
    reader = Reader()
    step = step or len(data)
    found = None
    for start in range(0, len(data), step):
        assert found is None
        found = reader.feed(data[start : start + step])
    return found


WHOLE = [
    (OK + b"Content-Length: 2\r\n\r\nhi", 200, b"hi"),
    (OK + b"content-length:2  \r\nX: \r\n\r\nhi", 200, b"hi"),
    (b"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", 404, b""),
    (b"HTTP/1.1 204 No Content\r\nDate: now\r\n\r\n", 204, b""),
    (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx", 200, b"x"),
    (
        OK + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n01\r\n!\r\n0\r\nT: x\r\n\r\n",
        200,
        b"hello!",
    ),
]


@pytest.mark.parametrize(("data", "status", "body"), WHOLE)
@pytest.mark.parametrize("step", [None, 1, 7])
def test_a_whole_answer_is_the_same_however_it_is_cut(
    data: bytes, status: int, body: bytes, step: int | None
) -> None:
    found = read(data, step=step)
    assert found is not None
    assert (found.status, found.body, found.keep) == (status, body, True)


@pytest.mark.parametrize("data", [data for data, _, _ in WHOLE])
def test_no_part_of_an_answer_passes_for_one(data: bytes) -> None:
    for end in range(len(data)):
        assert read(data[:end], step=3) is None


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        OK + b"\r\nno length",
        OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 0x1\r\n\r\nx",
        OK + b"Content-Length: \xb2\r\n\r\nx",
        OK + b"Content-Length: 1, 1\r\n\r\nx",
        OK + b"Content-Length: 1\r\n folded: yes\r\n\r\nx",
        OK + b"Content-Length : 1\r\n\r\nx",
        OK + b"no colon\r\n\r\n",
        OK + b"X: a\rb\r\nContent-Length: 0\r\n\r\n",
        OK + b"Content-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxyz",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nmore",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 9,
    ],
)
def test_what_could_be_read_in_two_ways_is_not_read(data: bytes) -> None:
    with pytest.raises(Garbled):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        OK + b"X: " + b"x" * MAX_HEAD,
        OK + b"Content-Length: 9999999\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * (MAX_HEAD + 1),
        OK
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + (b"80000\r\n" + b"x" * 0x80000 + b"\r\n") * (MAX_BODY // 0x80000 + 1),
    ],
)
def test_an_answer_without_end_is_cut_early(data: bytes) -> None:
    with pytest.raises(TooLong):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_connection_is_kept_only_where_the_server_keeps_it(data: bytes) -> None:
    found = read(data)
    assert found is not None
    assert not found.keep


@given(st.binary(max_size=300), st.integers(1, 50))
def test_no_bytes_do_worse_than_garbled(data: bytes, step: int) -> None:
    reader, whole = Reader(), OK + data
    try:
        for start in range(0, len(whole), step):
            if (found := reader.feed(whole[start : start + step])) is not None:
                assert found.status == 200
                return
    except Garbled:
        return


@given(
    st.lists(
        st.sampled_from(
            [OK, b"Content-Length: 3", b"Transfer-Encoding: chunked", b"\r\n", b"\r\n\r\n", b"3",
             b"abc", b"0", b":", b" ", b"\n", b"HTTP/1.1 100\r\n\r\n"]
        ),
        max_size=12,
    )
)  # fmt: skip
def test_how_the_bytes_are_cut_changes_nothing(pieces: list[bytes]) -> None:
    def outcome(step: int) -> object:
        reader, data = Reader(), b"".join(pieces)
        try:
            for start in range(0, len(data), step):
                if (found := reader.feed(data[start : start + step])) is not None:
                    # What follows an answer shows at once, or on the connection before its next.
                    return found.status, found.body
        except Garbled:
            return "garbled"
        return None

    whole = outcome(1000)
    for step in (1, 2, 5):
        assert outcome(step) == whole or whole == "garbled"


def test_an_answer_shows_neither_fields_nor_body() -> None:
    found = read(OK + b"X-Canary: c4nary\r\nContent-Length: 6\r\n\r\nc4nary")
    assert "c4nary" not in repr(found)


def test_a_head_is_written_as_given() -> None:
    assert head("GET", "/v1/x", {"Host": "h:1"}) == b"GET /v1/x HTTP/1.1\r\nHost: h:1\r\n"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/v1/a b", "v"),
        ("/v1/a\r\nX: y", "v"),
        ("", "v"),
        ("/v1/\u00e4", "v"),
        ("/v1/x", "a\r\nX-Vault-Token: mine"),
        ("/v1/x", "a\n"),
        ("/v1/x", "two words"),
        ("/v1/x", ""),
    ],
)
def test_nothing_can_be_smuggled_into_a_head(path: str, value: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII"):
        head("GET", path, {"X-Vault-Namespace": value})
