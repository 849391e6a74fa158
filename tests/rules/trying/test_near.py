"""Near misses of past calls: what failed, and what only the call itself could tell."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rules.explain import MAX_NEAR
from rules.load import load_policy
from rules.model import Subject
from rules.trying.glimpse import Glimpse
from rules.trying.near import NOT_KEPT, near_then

BOT = Subject("bot")
POLICY, _ = load_policy("""
version: 1
rules:
  - {id: read, agents: [bot], match: {method: GET, host: a.example, path: /x}, effect: allow}
  - {id: small, agents: [bot], match: {host: a.example, path: /x, json: {/n: {lt: 5}}}, effect: allow}
  - {id: hole, agents: [bot], match: {host: a.example, path: /x}, except: {query: {q: "1"}},
     effect: allow}
  - {id: other, agents: [bot], match: {host: a.example, path: /y}, effect: allow}
  - {id: raw, agents: [bot], match: {host: raw.example}, effect: tunnel}
""")  # noqa: E501


def test_what_failed_and_what_was_not_kept() -> None:
    near = near_then(POLICY, BOT, Glimpse("POST", "https", "a.example", 443, "/x", size=9), ())
    assert [(one.rule.id, [(w.wanted, w.found) for w in one.reasons]) for one in near] == [
        ("small", [("if JSON /n < 5", NOT_KEPT)]),
        ("hole", [("if it is none of its exceptions", NOT_KEPT)]),
        ("read", [("with GET", "it is POST")]),
    ]


def test_what_the_call_fell_under_is_no_miss() -> None:
    glimpse = Glimpse("GET", "https", "a.example", 443, "/x")
    near = near_then(POLICY, BOT, glimpse, ("read", "hole"))
    assert [one.rule.id for one in near] == ["small"]


def test_without_a_rule_for_the_place_others_of_the_host_are_told() -> None:
    near = near_then(POLICY, BOT, Glimpse("GET", "https", "a.example", 443, "/z", size=0), ())
    assert "other" in [one.rule.id for one in near]
    assert len(near) <= MAX_NEAR
    assert near_then(POLICY, BOT, Glimpse("GET", "https", "c.example", 443, "/z"), ()) == ()


@given(
    st.sampled_from(["GET", "POST"]),
    st.sampled_from(["a.example", "raw.example"]),
    st.sampled_from(["/x", "/X", "/", "/y/"]),
    st.none() | st.integers(0, 10),
    st.sets(st.sampled_from(["read", "small", "hole"])),
)
def test_every_miss_has_a_reason(
    method: str, host: str, path: str, size: int | None, matched: set[str]
) -> None:
    near = near_then(POLICY, BOT, Glimpse(method, "https", host, 443, path, size=size), matched)
    assert all(one.reasons for one in near)
    assert not matched.intersection(one.rule.id for one in near)
