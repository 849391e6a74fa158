"""The policy in words; whatever an agent wrote is visible and bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.hosts import parse_pattern
from rules.load import load_policy
from rules.model import Match, Policy, Quorum, Rule, Tier, ValueTest
from rules.request import Request
from rules.visible import is_invisible, visible
from rules.words import (
    body_view,
    check_summary,
    describe_place,
    describe_rule,
    describe_tier,
    fill_summary,
    instruct,
)

FORM = ("content-type", "application/x-www-form-urlencoded")
JSON = ("content-type", "application/json")
HIGH = Tier("high", (Quorum("any", 2),), ("owner",), 900, 300, 1, "optional", "retype")
POLICY = Policy({}, {}, {"high": HIGH}, ())


def request(body: bytes = b"", *headers: tuple[str, str], query: str | None = None) -> Request:
    return Request("POST", "https", "api.example.com", 443, "/v1/x", query, headers, body)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("é ü 漢", "é ü 漢"),
        ("a\nb\x1b[0m\x00", r"a\nb\x1b[0m\x00"),
        ("pay \u202e100", r"pay \u202e100"),
        ("a\u200bb\u00a0c\u3164\u2066", r"a\u200bb\xa0c\u3164\u2066"),
        ("\U000e0041", r"\U000e0041"),
        ("\ud800", r"\ud800"),
        ("x" * 80, "x" * 80),
        ("x" * 81, "x" * 79 + "…"),
    ],
)
def test_nothing_is_hidden(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(max_size=200))
def test_what_is_shown_is_visible_and_bounded(text: str) -> None:
    shown = visible(text)
    assert len(shown) <= 80
    assert not any(is_invisible(character) for character in shown)


def test_summaries_are_filled_in() -> None:
    of = request(b"amount=10&charge=ch_1%0Aok", FORM, ("x-a", "h"), query="q=1")
    template = "{method} {host}{path}: {form:amount} on {form:charge}, {query:q} {header:X-A}"
    assert fill_summary(template, of) == r"POST api.example.com/v1/x: 10 on ch_1\nok, 1 h"
    assert fill_summary("{form:none} {json:/a}", of) == "(absent) (absent)"
    assert fill_summary("{json:/a/b}", request(b'{"a": {"b": 1.50}}', JSON)) == "1.50"
    assert fill_summary("{query:q}", request(query="q=" + "x" * 99)) == "x" * 79 + "…"
    assert fill_summary("plain", of) == "plain"
    assert fill_summary("{what}", of) == "{what}"


def test_a_value_is_not_filled_in_again() -> None:
    of = request(b"a=%7Bform%3Ab%7D&b=secret", FORM)
    assert fill_summary("{form:a}", of) == "{form:b}"


def test_summaries_are_checked() -> None:
    check_summary("Refund {form:amount} by {method} to {host}{path} {json:/a}")
    with pytest.raises(ValueError, match=r"\{amount\} cannot be filled in; use \{method\}"):
        check_summary("Refund {amount}")
    with pytest.raises(ValueError, match="a brace without its partner"):
        check_summary("Refund {form:amount")


def test_the_body_is_shown_by_field() -> None:
    assert body_view(request(b"a=1&b=%E2%80%AEx&a=2", FORM)) == [
        ("a", "1"),
        ("b", r"\u202ex"),
        ("a", "2"),
    ]
    nested = b'{"a": {"b/c": [1.0, {}], "d": null}, "e": [], "f": "x"}'
    assert body_view(request(nested, JSON)) == [
        ("/a/b~1c/0", "1.0"),
        ("/a/b~1c/1", "{}"),
        ("/a/d", "null"),
        ("/e", "[]"),
        ("/f", "x"),
    ]
    assert body_view(request(b"7", JSON)) == [("/", "7")]
    assert body_view(request(b"plain")) == []
    assert body_view(request(b'{"a": 1, "a": 2}', JSON)) == []


def test_the_body_view_is_bounded() -> None:
    view = body_view(request(b"&".join(b"a=1" for _ in range(500)), FORM))
    assert len(view) == 201
    assert view[-1] == ("…", "there is more in the raw body")
    deep = body_view(request(b"[" * 64 + b"1" + b"]" * 64, JSON))
    assert deep[0][1] == "1"


def rule(effect: str, match: Match, **more: object) -> Rule:
    return Rule("r", ("a",), (match,), effect, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("of", "sentence"),
    [
        (
            rule(
                "allow",
                Match(
                    methods=frozenset(("GET", "HEAD")),
                    hosts=(parse_pattern("api.example.com"),),
                    paths=("/v1/**",),
                ),
                use=("stripe",),
            ),
            "GET or HEAD https://api.example.com/v1/**: allowed; "
            "Keybroker adds the credential stripe, send none of your own.",
        ),
        (
            rule(
                "hold",
                Match(
                    methods=frozenset(("POST",)),
                    hosts=(parse_pattern("*.example.com:8443"),),
                    paths=("/a", "/b/*"),
                    query=(ValueTest("dry", equals="1"),),
                    headers=(ValueTest("x-a", exists=False), ValueTest("x-b", exists=True)),
                ),
                risk="high",
            ),
            "POST https://*.example.com:8443 with the path /a or /b/* with query dry = 1, "
            "header x-a absent and header x-b present: held until approved "
            "(high risk: 2 approvers, not the agent's owner).",
        ),
        (
            rule(
                "deny",
                Match(),
                excepts=(Match(methods=frozenset(("GET",)), paths=("/x",)),),
                use=("x",),
            ),
            "any method to any https host, except GET to any https host with the path /x: denied.",
        ),
        (
            rule("tunnel", Match(hosts=(parse_pattern("[2001:db8::1]"),))),
            "connections to [2001:db8::1]: passed on undecrypted.",
        ),
    ],
)
def test_rules_in_words(of: Rule, sentence: str) -> None:
    assert instruct(of, POLICY) == sentence
    # The advice on credentials is for agents; reviewers read the rest.
    assert (
        describe_rule(of, POLICY) == sentence.split("; Keybroker adds")[0].removesuffix(".") + "."
    )


def test_the_agent_is_told_which_variable_stands_for_a_credential() -> None:
    text = """
version: 1
credentials:
  pay: {secret: "kv/a#b", hosts: h.example, inject: bearer, env: PAY_KEY}
rules: [{id: r, agents: [a], match: {host: h.example}, effect: allow, use: [pay]}]
"""
    policy = load_policy(text)[0]
    assert instruct(policy.rules[0], policy).endswith(
        "send none of your own (PAY_KEY holds a placeholder for pay)."
    )


def test_tiers_in_words() -> None:
    tier = Tier(
        "t", (Quorum("any", 1), Quorum("finance", 2)), ("owner", "bob"), 1, 1, 1, "optional", "none"
    )
    assert describe_tier(tier) == "1 approver and 2 of finance, not the agent's owner or bob"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("path", "the path"),
        ("form:amount", 'the amount (form field "amount")'),
        ("json:/charge/amount", 'the amount (JSON value "/charge/amount")'),
        ("query:to", 'the to (query parameter "to")'),
        ("header:x-amount", 'the x-amount (header "x-amount")'),
        ("form:a\u202eb", 'the a\\u202eb (form field "a\\u202eb")'),
    ],
)
def test_places_in_words(place: str, words: str) -> None:
    assert describe_place(place) == words
