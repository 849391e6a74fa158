"""What is told of a glimpse is never wrong: whatever the whole request was, its outcome is among
those that were called possible."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.decide import Rulebook
from rules.load import load_policy
from rules.model import Subject
from rules.request import Request
from rules.trying.glimpse import Glimpse
from rules.trying.guess import Guesser

BOT = Subject("bot", frozenset({"finance"}), "alice")
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
HEAD = """\
version: 1
credentials:
  key: {secret: "kv/a#k", hosts: [api.example.com], inject: bearer}
  other: {secret: "kv/b#k", hosts: [api.example.com], inject: bearer}
rules:
"""


def guesser(*rules: str) -> Guesser:
    lines = "".join(f"  - {{id: r{i}, agents: [bot], {rule}}}\n" for i, rule in enumerate(rules))
    return Guesser(load_policy(HEAD + lines)[0])


def glimpse(method: str = "POST", path: str = "/a", **known: object) -> Glimpse:
    given: dict[str, object] = {"size": 5, "moment": NOON, **known}
    return Glimpse(method, "https", "api.example.com", 443, path, **given)  # type: ignore[arg-type]


AT = "host: api.example.com"


@pytest.mark.parametrize(
    ("rules", "effects"),
    [
        ([], {"deny"}),
        ([f"match: {{{AT}}}, effect: allow"], {"allow"}),
        ([f"match: {{{AT}, path: /b}}, effect: allow"], {"deny"}),
        ([f"match: {{{AT}, json: {{/n: 1}}}}, effect: allow"], {"allow", "deny"}),
        ([f"match: {{{AT}, query: {{a: b}}}}, effect: hold"], {"hold", "deny"}),
        (
            [f"match: {{{AT}}}, effect: allow", f"match: {{{AT}, form: {{a: b}}}}, effect: hold"],
            {"allow", "hold"},
        ),
        (
            [f"match: {{{AT}}}, effect: hold", f"match: {{{AT}, form: {{a: b}}}}, effect: allow"],
            {"hold"},
        ),
        (
            [f"match: {{{AT}}}, effect: deny", f"match: {{{AT}, form: {{a: b}}}}, effect: allow"],
            {"deny"},
        ),
        (
            [f"match: {{{AT}}}, except: {{headers: {{a: b}}}}, effect: allow"],
            {"allow", "deny"},
        ),
        (
            [f"match: {{{AT}}}, except: {{{AT}, path: /a}}, effect: allow"],
            {"deny"},
        ),
        ([f"match: {{{AT}, body: {{size: {{lte: 5}}}}}}, effect: allow"], {"allow"}),
        ([f"match: {{{AT}, body: {{size: {{gt: 5}}}}}}, effect: allow"], {"deny"}),
        (
            [f"match: {{{AT}}}, effect: allow, limit: {{sum: 'form:n', max: 5, per: 1d}}"],
            {"allow", "deny"},
        ),
        (
            [f'match: {{{AT}, time: {{from: "11:00", to: "13:00", zone: UTC}}}}, effect: allow'],
            {"allow"},
        ),
        (
            [f'match: {{{AT}, time: {{from: "13:00", to: "14:00", zone: UTC}}}}, effect: allow'],
            {"deny"},
        ),
        ([f"match: {{{AT}, source: {{run: true}}}}, effect: allow"], {"deny"}),
        ([f"match: {{{AT}, source: {{run: false}}}}, effect: allow"], {"allow"}),
        ([f"match: {{{AT}, source: {{via: gateway}}}}, effect: allow"], {"deny"}),
    ],
)
def test_what_may_become_of_a_call(rules: list[str], effects: set[str]) -> None:
    assert guesser(*rules).guess(BOT, glimpse()).effects == effects


def test_an_empty_body_hides_nothing() -> None:
    asks = guesser(f"match: {{{AT}, json: {{/n: 1}}}}, effect: allow")
    assert asks.guess(BOT, glimpse(size=0)).effects == {"deny"}
    assert asks.guess(BOT, glimpse(size=None)).effects == {"allow", "deny"}


@pytest.mark.parametrize("asked", ["json: {/n: 1}", "form: {n: 1}"])
def test_a_value_of_a_body_may_stand_in_the_query(asked: str) -> None:
    asks = guesser(f"match: {{{AT}, {asked}}}, effect: hold", f"match: {{{AT}}}, effect: allow")
    assert asks.guess(BOT, glimpse("GET", size=0)).effects == {"hold", "allow"}


@pytest.mark.parametrize("asked", ["mcp: {tool: x}", "jsonrpc: {method: x}"])
def test_calls_of_a_tool_need_no_body(asked: str) -> None:
    """A WebSocket opens without one."""
    asks = guesser(f"match: {{{AT}, {asked}}}, effect: allow")
    assert asks.guess(BOT, glimpse(size=0)).effects == {"deny"}
    spared = guesser(f"match: {{{AT}}}, except: {{{AT}, {asked}}}, effect: allow")
    assert spared.guess(BOT, glimpse("GET", size=0)).effects == {"allow", "deny"}


def test_what_is_known_of_a_rule_counts_more_than_the_glimpse() -> None:
    asks = guesser(f"match: {{{AT}, json: {{/n: 1}}}}, effect: allow")
    assert asks.guess(BOT, glimpse(), {"r0": True}).rules == ("r0",)
    assert asks.guess(BOT, glimpse(), {"r0": False}).effects == {"deny"}


def test_two_credentials_for_one_header_deny() -> None:
    both = guesser(
        f"match: {{{AT}, path: /a}}, effect: allow, use: [key]",
        f"match: {{{AT}, headers: {{a: b}}}}, effect: allow, use: [other]",
    )
    assert both.guess(BOT, glimpse(), {"r1": True}).effects == {"deny"}
    assert both.guess(BOT, glimpse(), {"r1": False}).credentials == ("key",)
    assert both.guess(BOT, glimpse()).effects == {"allow", "deny"}


def test_the_doubt_is_told_in_words() -> None:
    asks = guesser(f"match: {{{AT}, json: {{/n: 1}}}}, effect: allow")
    ((rule, why),) = asks.guess(BOT, glimpse()).doubts
    assert (rule, "JSON /n = 1" in why) == ("r0", True)


MATCHES = st.sampled_from(
    [
        "{host: api.example.com}",
        "{host: '*.example.com', path: '/a/{x}'}",
        "{host: api.example.com, path: '/a/{+x}'}",
        "{path: /a/**, method: [GET, POST]}",
        "{host: api.example.com, query: {a: b}}",
        "{host: api.example.com, query: {a: {exists: false}}}",
        "{host: api.example.com, headers: {x-a: b}}",
        "{host: api.example.com, form: {a: b}}",
        "{host: api.example.com, form: {a: {exists: false}}}",
        "{host: api.example.com, json: {/a: b}}",
        "{host: api.example.com, json: {/a: {exists: false}}}",
        "{host: api.example.com, body: {type: application/json}}",
        "{host: api.example.com, body: {size: {lte: 10}}}",
        "{host: api.example.com, graphql: {kind: mutation}}",
        "{host: api.example.com, mcp: {tool: x}}",
        "{host: api.example.com, jsonrpc: {method: x}}",
        "{host: api.example.com, grpc: {service: a, method: b}}",
        "{host: api.example.com, upgrade: websocket}",
        "{host: api.example.com, source: {run: false}}",
        "{host: api.example.com, source: {run: true}}",
    ]
)
RULES = st.tuples(MATCHES, st.none() | MATCHES, st.sampled_from(["allow", "hold", "deny"]))
BODIES = st.sampled_from(
    [
        b"",
        b"a=b",
        b"a=c",
        b'{"a": "b"}',
        b'{"a": ',
        b'{"query": "mutation { x }"}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x"}}',
        b"x" * 20,
    ]
)
REQUESTS = st.builds(
    Request,
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    scheme=st.just("https"),
    host=st.sampled_from(["api.example.com", "www.example.com", "example.com"]),
    port=st.just(443),
    path=st.sampled_from(["/a", "/a/b", "/A/b", "/a/b/c", "/a/b%2Fc", "/a%2Fb"]),
    query=st.sampled_from(
        [None, "", "a=b", "A=b", "a=c&a=b", "method=x", "query=mutation%20%7Bx%7D"]
    ),
    headers=st.lists(
        st.sampled_from(
            [
                ("content-type", "application/json"),
                ("content-type", "application/x-www-form-urlencoded"),
                ("content-type", "application/grpc"),
                ("x-a", "b"),
            ]
        ),
        max_size=2,
    ).map(tuple),
    body=BODIES,
    upgrade=st.sampled_from([None, "websocket"]),
    run=st.sampled_from([None, "t-1"]),
    moment=st.just(NOON),
)


@given(st.lists(RULES, max_size=4), REQUESTS)
def test_the_truth_is_always_among_what_was_possible(
    rules: list[tuple[str, str | None, str]], request: Request
) -> None:
    asked = guesser(
        *(
            f"match: {match}, " + (f"except: {hole}, " if hole else "") + f"effect: {effect}"
            for match, hole, effect in rules
        )
    )
    seen = Glimpse(
        request.method,
        "https",
        request.host,
        request.port,
        request.path,
        moment=NOON,
        run=request.run,
        size=len(request.body),
    )
    guess = asked.guess(BOT, seen)
    decision = Rulebook(asked.policy).decide(BOT, request)
    assert decision.effect in guess.effects
    if guess.effect == "hold":
        assert guess.tiers <= set(decision.tiers)
    assert set(decision.tiers) <= guess.tiers | guess.further
    if guess.effect in ("allow", "hold"):
        assert set(guess.rules) <= set(decision.rules)
