"""Hosts have one spelling; patterns cover what they say and nothing beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rules.errors import Ambiguous
from rules.hosts import (
    is_address,
    parse_authority,
    parse_host,
    parse_pattern,
    pattern_matches,
    shown,
)

VECTORS: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "vectors" / "hosts.yaml").read_text()
)
NEAR_HOSTS = st.text(alphabet="abAZ09.-_:[]%@*x\0 é/", max_size=30)


@pytest.mark.parametrize(("text", "host"), VECTORS["hosts"]["accepted"])
def test_a_host_has_one_form(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(("text", "reason"), VECTORS["hosts"]["refused"])
def test_an_odd_host_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(Ambiguous) as caught:
        parse_host(text)
    assert reason in caught.value.sentence
    assert caught.value.sentence.isascii() and caught.value.sentence.isprintable()


def test_lengths_have_limits() -> None:
    label = "a" * 63
    longest = ".".join([label, label, label, "a" * 61])
    assert len(longest) == 253
    assert parse_host(longest) == longest
    for text, reason in (
        (longest + "a", "253"),
        ("a" * 64 + ".example", "63"),
        ("a." * 9999, "253"),
    ):
        with pytest.raises(Ambiguous, match=reason):
            parse_host(text)


@given(st.one_of(NEAR_HOSTS, st.text(max_size=300)))
def test_parsing_is_total_and_idempotent(text: str) -> None:
    try:
        host = parse_host(text)
    except Ambiguous:
        return
    assert parse_host(host) == host
    assert parse_host(f"[{host}]" if ":" in host else host.upper()) == host


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("api.stripe.com", ("api.stripe.com", 443)),
        ("api.stripe.com:8443", ("api.stripe.com", 8443)),
        ("API.stripe.com:443", ("api.stripe.com", 443)),
        ("[::1]", ("::1", 443)),
        ("[::1]:65535", ("::1", 65535)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
    ],
)
def test_an_authority_is_host_and_port(text: str, place: tuple[str, int]) -> None:
    assert parse_authority(text, 443) == place


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("user@api.stripe.com", "user information"),
        ("api.stripe.com:443@evil.example", "user information"),
        ("api.stripe.com:", "port"),
        ("api.stripe.com:0", "port"),
        ("api.stripe.com:0443", "port"),
        ("api.stripe.com:+443", "port"),
        ("api.stripe.com: 443", "port"),
        ("api.stripe.com:65536", "port"),
        ("api.stripe.com:443x", "port"),
        ("api.stripe.com:\uff14\uff14\uff13", "port"),
        ("api.stripe.com:443:443", "several colons"),
        ("::1", "several colons"),
        ("[::1]443", "odd"),
        ("[[::1]]:443", "odd"),
        (":443", "empty"),
        ("", "empty"),
    ],
)
def test_an_odd_authority_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Ambiguous) as caught:
        parse_authority(text, 443)
    assert reason in caught.value.sentence


@given(st.one_of(NEAR_HOSTS, st.text(max_size=60)))
def test_an_authority_parses_or_is_ambiguous(text: str) -> None:
    try:
        host, port = parse_authority(text, 443)
    except Ambiguous:
        return
    assert parse_host(host) == host and 1 <= port <= 65535


def test_an_exact_pattern_means_one_host_and_the_default_port() -> None:
    pattern = parse_pattern("API.stripe.com")
    assert pattern_matches(pattern, "api.stripe.com", 443, 443)
    assert pattern_matches(pattern, "api.stripe.com", 80, 80)
    assert not pattern_matches(pattern, "api.stripe.com", 8443, 443)
    assert not pattern_matches(pattern, "xapi.stripe.com", 443, 443)
    assert not pattern_matches(pattern, "x.api.stripe.com", 443, 443)


def test_a_wildcard_means_one_label_or_more_and_never_the_suffix() -> None:
    pattern = parse_pattern("*.crm.example:8443")
    assert pattern_matches(pattern, "a.crm.example", 8443, 443)
    assert pattern_matches(pattern, "a.b.crm.example", 8443, 443)
    assert not pattern_matches(pattern, "crm.example", 8443, 443)
    assert not pattern_matches(pattern, "evilcrm.example", 8443, 443)
    assert not pattern_matches(pattern, "a.crm.example.evil.test", 8443, 443)
    assert not pattern_matches(pattern, "a.crm.example", 443, 443)


def test_an_address_matches_only_itself() -> None:
    assert pattern_matches(parse_pattern("127.0.0.1:81"), "127.0.0.1", 81, 443)
    assert pattern_matches(parse_pattern("[::1]"), "::1", 443, 443)
    assert is_address("::1") and is_address("1.2.3.4") and not is_address("a.example")
    assert not pattern_matches(parse_pattern("*.example"), "::1", 443, 443)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("*", "at the front"),
        ("a.*.com", "at the front"),
        ("*.*.com", "at the front"),
        ("api*.com", "at the front"),
        ("*.", "empty"),
        ("*.1.2.3.4", "before an IP address"),
        ("*.[::1]", "before an IP address"),
        ("*.3.4", "IPv4"),
        ("https://api.stripe.com", "leave out the scheme"),
        ("api.stripe.com/v1", "and the path"),
        ("api.stripe.com:0", "port"),
        ("", "empty"),
    ],
)
def test_an_odd_pattern_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_pattern(text)


def test_what_is_shown_is_bounded_printable_ascii() -> None:
    assert shown("a\x1b[31m\N{RIGHT-TO-LEFT OVERRIDE}") == r"'a\x1b[31m\u202e'"
    assert len(shown("a" * 10_000)) < 100
