"""Narrow for what permits, wide for what restricts; narrow is always within wide."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.hosts import parse_pattern
from rules.matching import Matcher, is_wide
from rules.model import Match, Rule, ValueTest
from rules.reading.call import Reading
from rules.request import Request


def call(
    path: str = "/v1/x", query: str | None = None, *headers: tuple[str, str], method: str = "GET"
) -> Reading:
    return Reading(Request(method, "https", "api.example.com", 443, path, query, headers, b""))


def both(match: Match, of: Reading) -> tuple[bool, bool]:
    matcher = Matcher.of(match)
    return matcher.holds(of, wide=False), matcher.holds(of, wide=True)


YES, NO, DOUBT = (True, True), (False, False), (False, True)


def test_methods_and_scheme() -> None:
    assert both(Match(methods=frozenset(("GET",))), call()) == YES
    assert both(Match(methods=frozenset(("POST",))), call()) == NO
    assert both(Match(scheme="http"), call()) == NO
    assert both(Match(), call()) == YES


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/v1/refunds", YES), ("/V1/Refunds", DOUBT), ("/v1/refunds/", DOUBT), ("/v1/refund", NO)],
)
def test_paths(path: str, expected: tuple[bool, bool]) -> None:
    assert both(Match(paths=("/other", "/v1/refunds")), call(path)) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("mode=test", YES),
        ("a=1&mode=test&mode=test", YES),
        ("m%6Fde=te%73t", YES),
        ("mode=test&mode=live", DOUBT),
        ("mode=Test", DOUBT),
        ("Mode=test", DOUBT),
        ("mode=test&MODE=live", DOUBT),
        ("mode=test;x=1", DOUBT),
        ("a=%f", DOUBT),
        ("mode=live", NO),
        ("mode", NO),
        (None, NO),
    ],
)
def test_query_values(query: str | None, expected: tuple[bool, bool]) -> None:
    match = Match(query=(ValueTest("mode", equals="test"),))
    assert both(match, call("/v1/x", query)) == expected


@pytest.mark.parametrize(
    ("query", "present", "absent"),
    [
        ("admin=1", YES, NO),
        ("admin", YES, DOUBT),
        ("ADMIN=1", DOUBT, DOUBT),
        ("a=1;admin=1", DOUBT, DOUBT),
        ("a=1", NO, YES),
        (None, NO, YES),
    ],
)
def test_query_presence(
    query: str | None, present: tuple[bool, bool], absent: tuple[bool, bool]
) -> None:
    of = call("/v1/x", query)
    assert both(Match(query=(ValueTest("admin", exists=True),)), of) == present
    assert both(Match(query=(ValueTest("admin", exists=False),)), of) == absent


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["text/xml"], YES),
        (["text/xml", "text/xml"], YES),
        (["Text/XML"], DOUBT),
        (["text/xml; charset=utf-8"], DOUBT),
        (["application/json, text/xml"], DOUBT),
        (["text/xml", "application/json"], DOUBT),
        (['"text/xml"'], DOUBT),
        (["application/json"], NO),
        ([], NO),
    ],
)
def test_header_values(values: list[str], expected: tuple[bool, bool]) -> None:
    of = call("/v1/x", None, *(("content-type", value) for value in values))
    assert both(Match(headers=(ValueTest("content-type", equals="text/xml"),)), of) == expected


@pytest.mark.parametrize(
    ("values", "present", "absent"),
    [(["1"], YES, NO), ([""], DOUBT, DOUBT), ([], NO, YES)],
)
def test_header_presence(
    values: list[str], present: tuple[bool, bool], absent: tuple[bool, bool]
) -> None:
    of = call("/v1/x", None, *(("x-a", value) for value in values))
    assert both(Match(headers=(ValueTest("x-a", exists=True),)), of) == present
    assert both(Match(headers=(ValueTest("x-a", exists=False),)), of) == absent


def test_the_host_counts_where_it_is_asked_for() -> None:
    here = Matcher.of(Match(hosts=(parse_pattern("*.example.com"),)))
    there = Matcher.of(Match(hosts=(parse_pattern("api.example.com:8443"),)))
    assert here.holds_at_host(call(), wide=False)
    assert not there.holds_at_host(call(), wide=True)
    assert Matcher.of(Match()).holds_at_host(call(), wide=False)


def test_restricting_rules_read_widely() -> None:
    rules = {e: Rule("r", ("a",), (Match(),), e) for e in ("allow", "hold", "deny", "tunnel")}
    assert [e for e, rule in rules.items() if is_wide(rule)] == ["hold", "deny"]


WORDS = st.sampled_from(["a", "A", "b", "", " a", "a;b", "a,b", '"a"', "%61", "%"])
TESTS = st.builds(
    ValueTest, st.sampled_from(["a", "b"]), st.none() | st.booleans(), st.none() | WORDS
)


@given(
    st.lists(TESTS, max_size=2),
    st.lists(TESTS, max_size=2),
    st.lists(st.tuples(st.sampled_from(["a", "A", "b"]), WORDS), max_size=3),
    st.lists(st.tuples(st.sampled_from(["a", "b"]), WORDS), max_size=3),
    st.sampled_from(["/a/b", "/A/b", "/a/b/", "/a", "/"]),
)
def test_narrow_is_within_wide(
    query: list[ValueTest],
    headers: list[ValueTest],
    pairs: list[tuple[str, str]],
    lines: list[tuple[str, str]],
    path: str,
) -> None:
    match = Match(paths=("/a/*",), query=tuple(query), headers=tuple(headers))
    of = call(path, "&".join(f"{n}={v}" for n, v in pairs), *lines)
    narrow, wide = both(match, of)
    assert wide or not narrow


def test_only_conditions_on_the_head_do_without_the_body() -> None:
    assert not Matcher.of(Match(methods=frozenset({"GET"}), paths=("/a",))).needs_body
    assert Matcher.of(Match(json=(ValueTest("/a", exists=True),))).needs_body


def test_what_holds_in_no_reading_is_not_in_doubt() -> None:
    form = (("content-type", "application/x-www-form-urlencoded"),)
    matcher = Matcher.of(Match(form=(ValueTest("mode", equals="test"),)))

    def doubt(query: str) -> str | None:
        request = Request("POST", "https", "a.example", 443, "/", query, form, b"mode=live")
        return matcher.doubt(Reading(request))

    assert doubt("mode=test") is not None
    assert doubt("mode=other") is None
