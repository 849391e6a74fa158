"""The policy in words; whatever an agent wrote is visible and bounded."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.hosts import parse_pattern
from rules.limits import UNREADABLE, Demand, Limit, Over
from rules.load import load_policy
from rules.model import Match, Policy, Quorum, Rule, Tier, ValueTest
from rules.request import Request
from rules.visible import is_invisible, visible
from rules.words import (
    body_view,
    check_summary,
    describe_over,
    describe_place,
    describe_rule,
    describe_span,
    describe_tier,
    files_view,
    fill_summary,
    instruct,
    reads_body,
    text_of_moment,
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


UPLOAD = ("content-type", "multipart/form-data; boundary=b")
PARTS = b"""\
--b\r
Content-Disposition: form-data; name="note"\r
Content-Type: text/plain\r
\r
hi\r
--b\r
Content-Disposition: form-data; name="doc"; filename="\xe2\x80\xaea.txt"\r
Content-Type: text/plain\r
\r
xyz\r
--b\r
Content-Disposition: form-data; name="blob"\r
Content-Type: application/octet-stream\r
\r
\xff\r
--b--\r
"""


def test_files_are_shown_beside_the_fields() -> None:
    upload = request(PARTS, UPLOAD)
    assert body_view(upload) == [("note", "hi")]
    doc, blob = files_view(upload)
    assert doc == {
        "name": "doc",
        "filename": r"\u202ea.txt",
        "type": "text/plain",
        "size": 3,
        "sha256": hashlib.sha256(b"xyz").hexdigest(),
    }
    assert (blob["name"], blob["filename"], blob["size"]) == ("blob", "", 1)
    assert files_view(request(PARTS[:-6], UPLOAD)) == []
    assert files_view(request(b"a=1", FORM)) == []
    many = PARTS.split(b"--b--")[0].replace(b"xyz", b"") * 300 + b"--b--"
    assert len(files_view(request(many, UPLOAD))) == 200


def test_a_summary_names_files() -> None:
    upload = request(PARTS, UPLOAD)
    assert fill_summary("{form:doc}, {form:note}", upload) == r"\u202ea.txt (3 bytes), hi"
    assert fill_summary("{form:blob}, {form:x}", upload) == "(no name) (1 bytes), (absent)"


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
            rule(
                "deny",
                Match(),
                excepts=(
                    Match(form=(ValueTest("amount"),)),
                    Match(scheme="http", form=(ValueTest("amount"),)),
                    Match(paths=("/x",), form=(ValueTest("amount"),)),
                ),
            ),
            "any method to any https host, except any call with form amount absent; or any method"
            " to any http host with form amount absent; or any call with the path /x and form"
            " amount absent: denied.",
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


MINUTE = Limit(Decimal(30), 60)
MONEY = Limit(Decimal("12.5"), 86400, "json:/order/total")


@pytest.mark.parametrize(
    ("effect", "limits", "words"),
    [
        ("allow", "{calls: 30, per: 1m}", "allowed, at most 30 calls in 1 minute."),
        ("allow", "{calls: 1, per: 90s}", "allowed, at most 1 call in 90 seconds."),
        (
            "allow",
            "[{calls: 5, per: 7d}, {sum: json:/order/total, max: 12.50, per: 1d, over: hold}]",
            "allowed, at most 5 calls in 7 days and at most 12.5 in sum of the total (JSON value"
            ' "/order/total") in 1 day (beyond that held until approved (medium risk: 1 approver,'
            " not the agent's owner)).",
        ),
        (
            "hold",
            "{sum: form:n, max: 3, per: 2h, over: hold}",
            "held until approved (medium risk: 1 approver, not the agent's owner), at most 3 in"
            ' sum of the n (form field "n") in 2 hours (beyond that held all the same).',
        ),
    ],
)
def test_a_rules_limits_are_said(effect: str, limits: str, words: str) -> None:
    text = "version: 1\nrules: [{id: r, agents: [a], match: {}, effect: %s, limit: %s}]"
    policy, _ = load_policy(text % (effect, limits))
    for sentence in (describe_rule(policy.rules[0], policy), instruct(policy.rules[0], policy)):
        assert sentence == f"any method to any https host: {words}"


NOW = datetime(2026, 11, 22, 9, 0, 0, 500, tzinfo=UTC)


def over(limit: Limit, used: str, amount: str = "1", wait: float | None = None) -> str:
    frees_at = None if wait is None else NOW + timedelta(seconds=wait)
    return describe_over(Over(Demand("pay", limit, Decimal(amount)), Decimal(used), NOW, frees_at))


def test_what_goes_beyond_a_limit_is_told_what_is_used_and_when_there_is_room() -> None:
    assert over(MINUTE, "30", wait=41.5) == (
        'Rule "pay" takes at most 30 calls in 1 minute, and 30 are used. There is room from'
        " 2026-11-22T09:00:42Z on, in 42 seconds."
    )
    assert over(MONEY, "12", "0.75", wait=86400 * 3) == (
        'Rule "pay" takes at most 12.5 in sum of the total (JSON value "/order/total") in 1 day,'
        " and 12 are used; this call asks for 0.75, which is 0.25 too much. There is room from"
        " 2026-11-25T09:00:01Z on, in 3 days."
    )
    assert over(MINUTE, "30").endswith(
        "and 30 are used. There is room once calls that wait for people have been decided."
    )
    assert over(MONEY, "1", "13").endswith(
        "1 is used; this call asks for 13, which is 1.5 too much."
        " By itself it is over the limit, so waiting does not help."
    )
    assert over(MONEY, "1", str(UNREADABLE)).endswith(
        "in 1 day, and that of this call cannot be read as one plain number."
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "1 second"), (59, "59 seconds"), (60, "1 minute"), (90, "90 seconds"),
        (3600, "1 hour"), (5400, "90 minutes"), (86400, "1 day"), (90000, "25 hours"),
    ],
)  # fmt: skip
def test_a_stretch_of_time(seconds: int, words: str) -> None:
    assert describe_span(seconds) == words


@pytest.mark.parametrize(
    ("wait", "words"),
    [
        (0.1, "1 second"), (119, "119 seconds"), (121, "3 minutes"), (7300, "3 hours"),
        (172801, "3 days"),
    ],
)  # fmt: skip
def test_a_wait_is_never_said_too_short(wait: float, words: str) -> None:
    assert over(MINUTE, "30", wait=wait).endswith(f", in {words}.")


def test_a_moment_is_never_said_too_early() -> None:
    assert text_of_moment(datetime(2026, 1, 1, 0, 0, 59, 1, tzinfo=UTC)) == "2026-01-01T00:01:00Z"
    assert text_of_moment(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00Z"


def test_of_several_places_in_one_placeholder_all_are_shown_that_are_there() -> None:
    template = "Say {json:/text|form:text|query:text}"
    check_summary(template)
    form = request(b"text=hi", FORM, query="text=more")
    assert fill_summary(template, form) == "Say hi, more"
    assert fill_summary(template, request()) == "Say (absent)"
    with pytest.raises(ValueError, match="cannot be filled in"):
        check_summary("{json:/text|text}")
    assert reads_body(Rule("r", ("a",), (), "hold", summary="{query:x|form:x}"))
