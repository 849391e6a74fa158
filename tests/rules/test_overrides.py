"""The method that was matched is the method: nothing else in a request replaces it."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.errors import Ambiguous
from rules.media import NO_TYPE, MediaType
from rules.overrides import (
    MAX_FIELDS,
    MAX_PART_HEADER,
    MAX_PARTS,
    MAX_SEARCHED,
    check_body,
    check_query,
    is_searched,
)

FORM = MediaType("application/x-www-form-urlencoded")
MULTIPART = MediaType("multipart/form-data")
JSON = MediaType("application/json")
TEXT = MediaType("text/plain")
OVERRIDE = "would override the request"


def check(media: MediaType, body: bytes, coding: str = "", method: str = "POST") -> None:
    check_body(media, coding, method, body)


def refusal(media: MediaType, body: bytes, coding: str = "") -> str:
    with pytest.raises(Ambiguous) as caught:
        check(media, body, coding)
    sentence = caught.value.sentence
    assert sentence.isascii() and sentence.isprintable() and sentence.endswith(".")
    return sentence


# -- fields


@pytest.mark.parametrize(
    "query",
    [
        "_method=DELETE",
        "a=b&_method=DELETE",
        "a=b;_method=DELETE",
        "_METHOD=DELETE",
        "_method",
        "%5Fmethod=DELETE",
        "%5f%6D%45%74%48%6f%64=DELETE",
        "_%6dethod=DELETE",
        ".method=DELETE",
        "+_method=DELETE",
        "+" * 300 + "%20.method=DELETE",
        "_method[]=DELETE",
        "_method%5B=DELETE",
        "X-HTTP-Method-Override=DELETE",
        "%24httpMethod=DELETE",
        "$httpHeaders=a",
        "$%68ttpHeade%72s=a",
        "_HttpMethod=PATCH",
        "x-tunneled-method=DELETE",
    ],
)
def test_a_field_may_not_replace_the_method(query: str) -> None:
    with pytest.raises(Ambiguous, match=OVERRIDE):
        check_query(query)
    assert OVERRIDE in refusal(FORM, query.encode())


@pytest.mark.parametrize(
    "query",
    ["method=card", "payment_method=pm_1", "a=_method", "_methods=1", "q=%6Dethod&&=", "a=%"],
)
def test_other_fields_are_nobodys_business(query: str) -> None:
    check_query(query)
    check(FORM, query.encode())


@pytest.mark.parametrize("body", [b"_method%00" + b"a" * 500 + b"=DELETE", b"_method\0x=DELETE"])
def test_a_nul_hides_no_override(body: bytes) -> None:
    assert OVERRIDE in refusal(FORM, body)


def test_very_many_fields_are_refused_only_where_they_must_be_read() -> None:
    many = b"a=b&" * (MAX_FIELDS + 1)
    check(FORM, many)
    for one in (b"method=x", b"a=%6d"):
        assert "parameters" in refusal(FORM, many + one)
        assert "parameters" in refusal(FORM, many.replace(b"&", b";") + one)


def test_a_large_form_is_read_to_its_end() -> None:
    large = b"a=" + bytes(range(1, 256)) * 20_000
    check(FORM, large + b"&method=%C3%A9%20%2F&a=%6dethod")
    assert OVERRIDE in refusal(FORM, large + b"&_method=x")
    assert OVERRIDE in refusal(FORM, large + b"&_%6dethod")


def test_a_form_that_is_json_is_read_as_json_too() -> None:
    """curl says form of whatever it sends, and some servers look at the body instead."""
    for blanks in (b"", b" \r\n", b"\xef\xbb\xbf"):
        assert OVERRIDE in refusal(FORM, blanks + b'{"_method": "DELETE"}')
    check(FORM, b'{"amount": 1}')


# -- bodies that do not say what they are


def test_a_post_without_a_type_may_be_a_form() -> None:
    for body in (b"a=b&_method=DELETE", b'{"_method": 1}', b"&x=%6d" + b"&" * MAX_FIELDS):
        assert "send its Content-Type" in refusal(NO_TYPE, body)
    check(NO_TYPE, b"a=b")
    check(NO_TYPE, b"\x1f\x8b", "gzip")
    check(NO_TYPE, b"_method=DELETE", method="PUT")


@pytest.mark.parametrize(
    ("media", "method", "searched"),
    [
        (FORM, "GET", True),
        (MULTIPART, "PUT", True),
        (JSON, "PATCH", True),
        (TEXT, "POST", False),
        (NO_TYPE, "POST", True),
        (NO_TYPE, "PUT", False),
    ],
)
def test_what_is_searched(media: MediaType, method: str, searched: bool) -> None:
    assert is_searched(media, method) is searched


def test_other_bodies_may_be_anything() -> None:
    for body in (b"_method=DELETE", b'{"_method": 1}', b"\xff\0"):
        check(TEXT, body, "gzip")


# -- parts


def part(disposition: bytes) -> bytes:
    return b"--b\r\n" + disposition + b"\r\n\r\nDELETE\r\n--b--\r\n"


@pytest.mark.parametrize(
    "disposition",
    [
        b'Content-Disposition: form-data; name="_method"',
        b"content-disposition:form-data; name=_method",
        b'Content-Disposition : form-data; name="_method"',
        b'Content-Disposition: form-data; filename="a"; NAME = "_Method"',
        b'Content-Disposition: form-data;\r\n name="_method"',
        b'Content-Disposition: form-data;\n\tname="_method"',
        b"Content-Disposition: form-data; name*=utf-8''_method",
        b"Content-Disposition: form-data; name*=utf-8'en'%5Fmethod",
        b"Content-Disposition: form-data; name='_method'",
        b'Content-Disposition: form-data; name="_\\method"',
        b'Content-Type: text/plain\r\nContent-Disposition: form-data; name="_method"',
        b'X: y\rContent-Disposition: form-data; name="_method"',
    ],
)
@pytest.mark.parametrize("media", [MULTIPART, MediaType("multipart/related")])
def test_a_part_may_not_replace_the_method(disposition: bytes, media: MediaType) -> None:
    assert OVERRIDE in refusal(media, part(disposition))


def test_the_first_line_may_be_a_header() -> None:
    assert OVERRIDE in refusal(MULTIPART, b'Content-Disposition: form-data; name="_method"')


def test_a_part_has_its_name_in_one_piece() -> None:
    disposition = b'Content-Disposition: form-data; name*0="_met"; name*1="hod"'
    assert "in pieces" in refusal(MULTIPART, part(disposition))


@pytest.mark.parametrize(
    "body",
    [
        part(
            b'Content-Disposition: form-data; name="file"; filename="a.html"\r\n\r\n'
            b'<input type="hidden" name="_method" value="delete">'
        ),
        part(b'X-Content-Disposition: form-data; name="_method"'),
        part(b'Content-Disposition: form-data; name="payment_method"'),
        part(b'Content-Disposition: form-data; name="a"') + b"\xff\0",
    ],
)
def test_other_parts_are_nobodys_business(body: bytes) -> None:
    check(MULTIPART, body)


def test_parts_have_bounds() -> None:
    line = b'Content-Disposition: form-data; name="a"\r\n'
    check(MULTIPART, line * MAX_PARTS)
    assert "parts; send fewer" in refusal(MULTIPART, line * (MAX_PARTS + 1))
    for filler in (b"x", b"\r\n ", b"; name=a"):
        header = b"Content-Disposition: " + filler * MAX_PART_HEADER
        assert "shorter" in refusal(MULTIPART, header)


# -- JSON


@pytest.mark.parametrize(
    "body",
    [
        b'{"_method": "DELETE"}',
        b'{"_METHOD"\n\t :1}',
        b'{"a": 1, "\\u005fMetho\\u0064": 1}',
        b'{"a": 1, "\\u005F\\u004d\\u0065\\u0054\\u0048\\u006f\\u0044": 1}',
        b'{"_method": 1, "a": {}}',
        b'{"_method": 1, "_method": 2}',
        b'\xef\xbb\xbf{"_method": 1}',
        b'{"a": "' + b"x" * 900_000 + b'", "_method": 1}',
    ],
)
def test_a_member_may_not_replace_the_method(body: bytes) -> None:
    for name in ("application/json", "application/vnd.api+json", "text/json"):
        assert OVERRIDE in refusal(MediaType(name), body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": {"_method": 1}}',
        b'["_method"]',
        b'[{"_method": 1}]',
        b'{"method": "_method"}',
        b'{"a": "\\"_method\\": 1"}',
        b'{"\\\\u005fmethod": 1}',
        b'"_method": 1'[:9],
        b'{"a": "\\u006d"}',
        b"no JSON at all",
        b'{"a": "\xff"}',
        b'{"_methods": 1}',
        b'{"a": "' + b"x" * MAX_SEARCHED + b'", "b": ["_method"], "c": "\\u00e9"}',
    ],
)
def test_a_body_may_speak_of_overrides(body: bytes) -> None:
    check(JSON, body)


@pytest.mark.parametrize("body", [b'{"_method": ', b'{"_method": 1}}', b"{'a': 1, \"_method\": 1}"])
def test_what_speaks_of_overrides_can_be_read(body: bytes) -> None:
    assert "cannot be read" in refusal(JSON, body)


def test_what_is_too_large_to_be_taken_apart_speaks_of_no_override() -> None:
    large = b"x" * MAX_SEARCHED
    assert "has a member `_method`" in refusal(JSON, b'{"a": {"_method": 1}, "b": "%s"}' % large)
    assert "plain letters" in refusal(JSON, b'{"a": "\\u006d", "b": "%s"}' % large)
    assert "cannot be read" in refusal(JSON, b"[" * 100_000 + b'"_method":')


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_json_is_in_utf8(encoding: str) -> None:
    assert "UTF-8" in refusal(JSON, '{"_method": 1}'.encode(encoding))


# -- encodings


@pytest.mark.parametrize("media", [FORM, MULTIPART, JSON])
def test_what_is_searched_is_readable(media: MediaType) -> None:
    assert "compressed" in refusal(media, b"\x1f\x8b", "gzip")
    assert "compressed" in refusal(media, b"{}", "identity, br")
    check(media, b"{}", "Identity")
    check(media, b"", "gzip")
    for charset in ("utf-16", "utf-7", "ibm037"):
        assert "UTF-8" in refusal(MediaType(media.name, charset), b"{}")


@given(
    st.sampled_from([FORM, MULTIPART, JSON, NO_TYPE, TEXT]),
    st.binary(max_size=40)
    | st.text(alphabet='_method{}":;&=%6d\\u0 \r\n', max_size=40).map(str.encode),
)
def test_checking_is_total(media: MediaType, body: bytes) -> None:
    with contextlib.suppress(Ambiguous):
        check(media, body)


@given(st.dictionaries(st.sampled_from(["_method", "_Method", "a", "é", "_methods"]), st.text()))
def test_every_object_with_such_a_member_is_refused(document: dict[str, str]) -> None:
    body = json.dumps(document).encode()
    if any(name.lower() == "_method" for name in document):
        assert OVERRIDE in refusal(JSON, body)
    else:
        check(JSON, body)
