"""Explanations: the very decision, and every rule that matched or nearly did."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rules.decide import Rulebook
from rules.explain import MAX_NEAR, explain
from rules.load import load_policy
from rules.model import Subject
from rules.request import Request

POLICY = """
version: 1
credentials: {shop: {secret: "kv/shop#key", hosts: [a.example], inject: bearer}}
rules:
  - id: small
    agents: [bot]
    match: {method: POST, host: a.example, path: /pay, json: {/amount: {lte: 50}}}
    except: {headers: {x-mode: live}}
    effect: allow
    use: [shop]
  - {id: big, agents: ["tag:ci"], match: {host: a.example, path: /pay}, effect: hold, risk: high}
  - {id: read, agents: [bot], match: {method: GET, host: ["a.example", "*.a.example"]}, effect: allow,
     limit: {calls: 5, per: 1m}}
  - {id: never, agents: [bot], match: {host: a.example, query: {force: "1"}}, effect: deny}
  - {id: raw, agents: [bot], match: {host: raw.example}, effect: tunnel}
"""  # noqa: E501
BOOK = Rulebook(load_policy(POLICY)[0])

requests = st.builds(
    Request,
    method=st.sampled_from(["GET", "POST", "PUT"]),
    scheme=st.sampled_from(["https", "http"]),
    host=st.sampled_from(["a.example", "b.a.example", "raw.example", "c.example"]),
    port=st.sampled_from([443, 80, 8443]),
    path=st.sampled_from(["/pay", "/Pay", "/pay/", "/"]),
    query=st.sampled_from([None, "force=1", "Force=1", "force=0;x", "%"]),
    headers=st.lists(
        st.sampled_from(
            [("content-type", "application/json"), ("x-mode", "live"), ("x-mode", "LIVE")]
        ),
        max_size=3,
    ).map(tuple),
    body=st.sampled_from(
        [b"", b'{"amount": 5}', b'{"amount": 51}', b'{"amount": "5"}', b"{", b'{"a":1,"a":2}']
    )
    | st.binary(max_size=20),
)
subjects = st.builds(
    Subject,
    st.sampled_from(["bot", "other", "tag:ci"]),
    st.sampled_from([frozenset(), frozenset({"ci"})]),
)


@given(subjects, requests)
def test_the_outcome_is_always_that_of_the_decision(subject: Subject, request: Request) -> None:
    decision = BOOK.decide(subject, request)
    explanation = explain(BOOK, subject, request)
    assert explanation.decision == decision
    told = explanation.to_json()
    assert (told["effect"], told["rules"]) == (decision.effect, list(decision.rules))
    assert told["sentence"] == decision.sentence
    matched = {rule["rule"] for rule in told["matched"]}
    near = {rule["rule"] for rule in told["near"]}
    assert not matched & near
    if decision.code == "policy_denied" and decision.effect != "deny":
        assert set(decision.rules) <= matched
    assert len(near) <= MAX_NEAR
    assert all(one["failed"] for one in told["near"])


def test_all_that_led_to_a_hold_is_told() -> None:
    json_type = (("content-type", "application/json"),)
    request = Request("POST", "https", "a.example", 443, "/pay", None, json_type, b'{"amount": 5}')
    told = explain(BOOK, Subject("bot", frozenset({"ci"})), request).to_json()
    assert (told["effect"], told["risk"], told["rules"]) == ("hold", "high", ["big"])
    assert [(rule["rule"], rule["decides"]) for rule in told["matched"]] == [
        ("small", False),
        ("big", True),
    ]
    assert told["credentials"] == ["shop"]
    (tier,) = told["tiers"]
    assert tier == {
        "name": "high",
        "people": "2 approvers, not the agent's owner",
        "decide_within": "15 minutes",
    }
    assert [near["rule"] for near in told["near"]][:2] == ["never", "read"]


def test_limits_are_told() -> None:
    request = Request("GET", "https", "a.example", 443, "/", None, (), b"")
    told = explain(BOOK, Subject("bot"), request).to_json()
    assert told["limits"] == [{"rule": "read", "sentence": "at most 5 calls in 1 minute"}]


def test_what_rules_in_shadow_would_do_is_told() -> None:
    tried = POLICY.replace("effect: deny}", "effect: deny, mode: shadow}")
    book = Rulebook(load_policy(tried)[0])
    request = Request("GET", "https", "a.example", 443, "/", "force=1", (), b"")
    told = explain(book, Subject("bot"), request).to_json()
    assert (told["effect"], told["rules"]) == ("allow", ["read"])
    assert told["shadow"] == {"effect": "deny", "rules": ["never"]}
    assert explain(BOOK, Subject("bot"), request).to_json()["shadow"] is None
