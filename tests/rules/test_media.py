"""One media type or none: what servers cut at different places is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.errors import Ambiguous
from rules.media import NO_TYPE, MediaType, read_media_type


@pytest.mark.parametrize(
    ("text", "media"),
    [
        ("", NO_TYPE),
        ("application/json", MediaType("application/json")),
        ("Application/JSON;charset=UTF-8", MediaType("application/json", "utf-8")),
        ('text/plain ; Charset="utf\\-8"\t', MediaType("text/plain", "utf-8")),
        ("application/json;", MediaType("application/json")),
        ("application/json; ; charset=", MediaType("application/json")),
        ("application/json;odata=verbose;IEEE754Compatible=true", MediaType("application/json")),
        ("text/html; charset", MediaType("text/html")),
        ('multipart/mixed; boundary="a, b; c=\\"d"', MediaType("multipart/mixed")),
        ("multipart/form-data; boundary=----=_Part/1:2?", MediaType("multipart/form-data")),
        ('application/vnd.api+json; ext="https://a.b/x"', MediaType("application/vnd.api+json")),
    ],
)
def test_what_a_body_says_it_is(text: str, media: MediaType) -> None:
    assert read_media_type(text) == media


@pytest.mark.parametrize(
    "text",
    [
        "json",
        "application/",
        "/json",
        "application / json",
        "application/json, text/plain",
        "application/x-www-form-urlencoded, text/plain",
        "application/x-www-form-urlencoded text/plain",
        "application/x-www-form-urlencoded\ttext/plain",
        "text/plain; a=b, application/json",
        "text/plain; charset = utf-8",
        'text/plain; charset="utf-8',
        'text/plain; charset=u"tf-8"',
        "text/plain; =utf-8",
        "text/plain; charset=utf 8",
        '"application/json"',
        "application/json charset=utf-8",
        "a/b/c",
        "a/b" + " " * 60_000 + "x",
        "a/b" + ";" * 60_000 + ",",
        'a/b; a="' + "\\" * 60_000,
    ],
)
def test_what_is_no_media_type(text: str) -> None:
    with pytest.raises(Ambiguous, match="one media type"):
        read_media_type(text)


@pytest.mark.parametrize(
    "text",
    [
        "text/plain; charset=utf-8; charset=utf-16",
        "text/plain; charset=utf-8; Charset=utf-8",
        'multipart/form-data; boundary=a; boundary="a"',
        "text/plain; x; x",
    ],
)
def test_a_parameter_stands_once(text: str) -> None:
    with pytest.raises(Ambiguous, match="twice"):
        read_media_type(text)


@pytest.mark.parametrize(
    ("name", "is_a"),
    [
        ("application/x-www-form-urlencoded", "form"),
        ("multipart/form-data", "multipart"),
        ("multipart/related", "multipart"),
        ("multipart/mixed", "multipart"),
        ("multipart/byteranges", ""),
        ("application/json", "json"),
        ("application/problem+json", "json"),
        ("application/json-patch+json", "json"),
        ("text/json", "json"),
        ("text/plain", ""),
        ("application/grpc", ""),
    ],
)
def test_kinds(name: str, is_a: str) -> None:
    media = MediaType(name)
    assert [media.is_form, media.is_multipart, media.is_json] == [
        is_a == "form",
        is_a == "multipart",
        is_a == "json",
    ]


@pytest.mark.parametrize(
    ("charset", "kept"),
    [("", True), ("utf-8", True), ("us-ascii", True), ("utf-16", False), ("ibm037", False)],
)
def test_charsets_that_keep_ascii(charset: str, kept: bool) -> None:
    assert MediaType("a/b", charset).keeps_ascii is kept


@given(st.text(alphabet='aB/;=", \t\\-+', max_size=30) | st.text(max_size=10))
def test_reading_is_total(text: str) -> None:
    try:
        media = read_media_type(text)
    except Ambiguous:
        return
    assert media.name == media.name.lower()
