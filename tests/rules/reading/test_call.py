"""A call taken apart: one reading or none, nothing hidden, any request."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.errors import Unreadable
from rules.places import parse_place
from rules.reading import call
from rules.reading.call import Reading
from rules.reading.forms import MAX_FIELDS
from rules.reading.json import MAX_PIECES
from rules.request import Request

FORM = ("content-type", "application/x-www-form-urlencoded")
JSON = ("content-type", "application/json")


def request(
    body: bytes = b"", *headers: tuple[str, str], query: str | None = None, path: str = "/v1/x"
) -> Request:
    return Request("POST", "https", "api.example.com", 443, path, query, headers, body)


def read(place: str, of: Request) -> str | None:
    return Reading(of).at(parse_place(place))


def test_form_values_are_decoded_and_all_shown() -> None:
    body = request(b"amount=10&note=a+b%26c&amount=99&empty=", FORM)
    assert read("form:note", body) == "a b&c"
    assert read("form:amount", body) == "10, 99"
    assert read("form:empty", body) == ""
    assert read("form:Amount", body) is None


def test_query_and_headers() -> None:
    of = request(b"", ("x-a", "1"), ("x-a", "2"), query="q=%C3%A9&q=2&flag")
    assert read("query:q", of) == "é, 2"
    assert read("query:flag", of) == ""
    assert read("query:none", of) is None
    assert read("header:X-A", of) == "1, 2"
    assert read("header:x-b", of) is None
    assert read("query:q", request()) is None


def test_json_pointers() -> None:
    body = (
        b'{"a": [1, {"b/c": 10.10, "~": null}], "t": true, "s": "x", "": {"": "deep"}, "n": 1e40}'
    )
    of = request(body, ("content-type", 'application/vnd.api+json; charset="UTF-8"'))
    assert read("json:/a/0", of) == "1"
    assert read("json:/a/1/b~1c", of) == "10.10"
    assert read("json:/a/1/~0", of) == "null"
    assert read("json:/t", of) == "true"
    assert read("json:/s", of) == "x"
    assert read("json:/", of) == '{"":"deep"}'
    assert read("json://", of) == "deep"
    assert read("json:/n", of) == "1e40"
    assert read("json:/a", of) == '[1,{"b/c":10.10,"~":null}]'
    for absent in ("/a/2", "/a/-", "/a/01", "/a/x", "/s/0", "/zz"):
        assert read(f"json:{absent}", of) is None


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"a": 1, "a": 2}', (JSON,)),
        (b'{"a": 1', (JSON,)),
        (b'{"a": NaN}', (JSON,)),
        (b'{"a": 1, "b": 1e400}', (JSON,)),
        (b'\xff{"a": 1}', (JSON,)),
        (b'\xef\xbb\xbf{"a": 1}', (JSON,)),
        (b"[" * 200_000, (JSON,)),
        (b'{"a": 1}', ()),
        (b'{"a": 1}', (FORM,)),
        (b'{"a": 1}', (JSON, ("content-encoding", "gzip"))),
        (b'{"a": 1}', (("content-type", "application/json; charset=utf-16"),)),
    ],
)
def test_a_body_without_one_reading_has_no_places(
    body: bytes, headers: tuple[tuple[str, str], ...]
) -> None:
    """What the upstream may read otherwise than we do is not shown as if it were known."""
    of = request(body, *headers)
    assert read("json:/a", of) is None
    with pytest.raises(Unreadable):
        _ = Reading(of).json


@pytest.mark.parametrize("body", [b"a=1;b=2", b"a=%zz", b"a=%ff", b"a=\xff"])
def test_a_form_without_one_reading_has_no_places(body: bytes) -> None:
    assert read("form:a", request(body, FORM)) is None


def test_a_body_of_too_many_pieces_is_not_taken_apart() -> None:
    """Ten megabytes of tiny ones would keep everybody waiting for seconds."""
    many = b"a=1" + b"&b" * (MAX_FIELDS - 1)
    assert read("form:a", request(many, FORM)) == "1"
    assert read("form:a", request(many + b"&b", FORM)) is None
    for filler in (b"1,", b"{},", b"[],"):
        text = b'{"a": 1, "b": [' + filler * (MAX_PIECES // 4) + b"1]}"
        assert read("json:/a", request(text, JSON)) == "1"
        text = b'{"a": 1, "b": [' + filler * MAX_PIECES + b"1]}"
        assert read("json:/a", request(text, JSON)) is None
    large = b'{"a": 1, "b": "%s"}' % (b"x" * 4_000_000)
    assert read("json:/a", request(large, JSON)) == "1"


@given(
    st.sampled_from(["json:/a", "json:/0/a", "form:a", "query:a", "header:a"]),
    st.binary(max_size=60) | st.sampled_from([b'{"a": [{}]}', b"a=1", b"[[1]]"]),
    st.sampled_from([(FORM,), (JSON,), (JSON, JSON), (("content-type", ";;=;"),), ()]),
    st.none() | st.text(max_size=20),
)
def test_reading_is_total(
    place: str, body: bytes, headers: tuple[tuple[str, str], ...], query: str | None
) -> None:
    value = read(place, request(body, *headers, query=query))
    assert value is None or isinstance(value, str)


UPLOAD = ("content-type", "multipart/form-data; boundary=b")


@pytest.mark.parametrize(
    ("of", "read", "reader"),
    [
        (request(b'{"query": "{a}"}', JSON), lambda c: c.graphql(wide=True), "read_graphql"),
        (request(b'{"query": 1}', JSON), lambda c: c.graphql(wide=False), "read_graphql"),
        (request(b'{"method": "a"}', JSON), lambda c: c.jsonrpc(wide=True), "read_jsonrpc"),
        (request(b'{"method": 1}', JSON), lambda c: c.mcp(wide=True), "read_mcp"),
        (request(b"no form", UPLOAD), lambda c: c.form_files, "read_multipart"),
        (request(b"a=1"), lambda c: c.form_pairs(wide=True), "guess_fields"),
    ],
)
def test_each_part_is_read_once_however_many_rules_look(
    of: Request,
    read: Callable[[Reading], object],
    reader: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also what cannot be read: an agent chooses what trying costs."""
    tries = []
    real = getattr(call, reader)

    def counted(*arguments: object) -> object:
        tries.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(call, reader, counted)
    reading = Reading(of)
    for _ in range(3):
        with suppress(Unreadable):
            read(reading)
    assert len(tries) == 1
