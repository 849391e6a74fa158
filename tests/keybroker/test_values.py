"""Values of settings: each is read whole, or refused with a sentence that says what to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from keybroker.values import (
    Bundle,
    CollectorUrl,
    Listen,
    Namespace,
    OwnUrl,
    PathIn,
    Seconds,
    Size,
    VaultUrl,
    WebUrl,
    Workers,
    bracketed,
    in_clear_text,
    parse_listen,
)

BASE = {"base": Path("/ws")}


def read(kind: Any, written: object) -> Any:
    return TypeAdapter(kind).validate_python(written, strict=True, context=BASE)


@given(st.text(max_size=40))
def test_listen_is_parsed_or_refused_and_round_trips(text: str) -> None:
    try:
        listen = parse_listen(text)
    except ValueError:
        return
    assert parse_listen(str(listen)) == listen


@pytest.mark.parametrize(
    ("text", "reach", "wildcard", "loopback"),
    [
        ("127.0.0.1:1", "127.0.0.1", False, True),
        ("127.8.0.1:1", "127.8.0.1", False, True),
        ("localhost:1", "localhost", False, True),
        ("[::1]:1", "::1", False, True),
        ("0.0.0.0:1", "127.0.0.1", True, False),
        ("[::]:1", "::1", True, False),
        ("10.0.0.1:1", "10.0.0.1", False, False),
    ],
)
def test_a_place_knows_who_reaches_it(
    text: str, reach: str, wildcard: bool, loopback: bool
) -> None:
    place = parse_listen(text)
    assert (place.reach, place.wildcard, place.loopback) == (reach, wildcard, loopback)
    assert str(place) == text


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert (bracketed("::1"), bracketed("a.example")) == ("[::1]", "a.example")


@pytest.mark.parametrize(
    ("kind", "written", "value"),
    [
        (PathIn, "a/b.pem", Path("/ws/a/b.pem")),
        (PathIn, "/a/b.pem", Path("/a/b.pem")),
        (Bundle, "system", None),
        (Bundle, "up.pem", Path("/ws/up.pem")),
        (Workers, "auto", None),
        (Workers, 3, 3),
        (Seconds, "2m", 120),
        (Size, "1MiB", 1 << 20),
        (WebUrl, "https://a.example/", "https://a.example"),
        (WebUrl, "HTTPS://Corp.Example:3128", "https://corp.example:3128"),
        (WebUrl, "https://[::1]:1/", "https://[::1]:1"),
        (CollectorUrl, "HTTPS://A.example/Own", "https://a.example/Own"),
        (VaultUrl, "http://127.0.0.1:8200", "http://127.0.0.1:8200"),
        (VaultUrl, "http://[::1]:8200", "http://[::1]:8200"),
        (CollectorUrl, "https://a.example", "https://a.example/v1/traces"),
    ],
)
def test_what_is_written_becomes_a_value(kind: Any, written: object, value: object) -> None:
    assert read(kind, written) == value


@pytest.mark.parametrize(
    ("kind", "written", "because"),
    [
        (PathIn, "", "write the path of a file"),
        (Workers, True, "write `auto`"),
        (Workers, 257, "less than or equal to 256"),
        (WebUrl, "http://x/path", "no URL of the form"),
        (WebUrl, "https://x:0", "no URL of the form"),
        (WebUrl, "https://[::1", "no URL of the form"),
        (VaultUrl, "http://vault.example", "in the clear"),
        # None means that nothing is written: who writes nothing behind the colon forgot it.
        (Bundle, None, "write the path of a file"),
        (OwnUrl, None, "write a URL"),
        (Namespace, None, "write a namespace"),
    ],
)
def test_what_is_odd_is_refused_with_what_to_write(
    kind: Any, written: object, because: str
) -> None:
    with pytest.raises(ValidationError, match=because):
        read(kind, written)


@pytest.mark.parametrize(
    ("url", "clear"),
    [
        ("http://a.example", True),
        ("http://10.0.0.1:1", True),
        ("http://localhost:1", False),
        ("http://[::1]", False),
        ("https://a.example", False),
    ],
)
def test_what_stays_on_this_machine_is_not_in_clear_text(url: str, clear: bool) -> None:
    assert in_clear_text(url) is clear


def test_the_default_of_the_place_is_written_the_same_way() -> None:
    assert parse_listen(Listen("127.0.0.1", 8080)) == Listen("127.0.0.1", 8080)


@pytest.mark.parametrize("kind", [WebUrl, OwnUrl, VaultUrl, CollectorUrl])
@pytest.mark.parametrize("url", ["https://me:s3cret@a.example", "https://a.example/?key=s3cret"])
def test_a_refused_url_is_not_quoted_where_it_may_hold_a_secret(kind: Any, url: str) -> None:
    """What cannot start says why on stderr, which ends up in logs."""
    with pytest.raises(ValidationError) as refused:
        read(kind, url)
    [problem] = refused.value.errors(include_input=False, include_url=False)
    assert "out of the URL" in problem["msg"]
    assert "s3cret" not in problem["msg"]
