"""Loading: a policy, or every mistake at once with its line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.decide import Rulebook
from rules.errors import InvalidFile, Problem
from rules.load import FIELDS, agents_named, load_policy, people_named, starter_policy
from rules.matches import MATCH
from rules.model import (
    Credential,
    HostPattern,
    Injection,
    Match,
    Quorum,
    Rule,
    SecretRef,
    Subject,
    Tier,
)
from rules.request import Request
from rules.schema import CREDENTIAL, RULE, TIER

DESIGN = """\
version: 1
credentials:
  stripe: {secret: "kv/stripe#api_key", hosts: [api.stripe.com], inject: bearer}
  crm:    {secret: "kv/crm/eu#key",     hosts: ["*.crm.example:8443"], inject: {header: X-Api-Key, format: "k={secret}"}}
  old:    {secret: "kv/old#key",        hosts: old.example, inject: {basic: {username: bot}}}
approvers: {finance: [alice, bob], security: [dave]}
tiers:
  medium: {quorum: [{group: any, count: 1}], exclude: [owner], decide_within: 15m, execute_within: 5m, denials: 1, reason: optional, confirm: none,   passkey: optional, grants: allowed, escalate: []}
  high:   {quorum: [{group: any, count: 2}], exclude: [owner], decide_within: 15m, execute_within: 5m, denials: 1, reason: optional, confirm: retype, passkey: optional, grants: never,   escalate: []}
  money:  {quorum: [{group: finance, count: 2}, {group: any}], exclude: [owner, eve], decide_within: 1h, reason: required}
rules:
  - id: stripe-read
    agents: [billing-bot]
    match: {method: GET, host: api.stripe.com, path: /v1/**}
    effect: allow
    use: [stripe]
  - id: stripe-refund
    agents: [billing-bot, "tag:finance"]
    match: {method: [POST, PUT], host: api.stripe.com, path: /v1/refunds, query: {dry: 1}, headers: {X-Mode: {exists: false}}}
    except: {path: /v1/refunds/test}
    effect: hold
    risk: high
    summary: "Refund {form:amount} on charge {form:charge}"
    confirm: form:amount
    impact: Money leaves the account and cannot be called back.
    use: [stripe]
"""  # noqa: E501


def refused(text: str) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        load_policy(text, "p")
    return [str(problem) for problem in caught.value.problems]


def test_a_whole_policy() -> None:
    policy, warnings = load_policy(DESIGN)
    assert warnings == ()
    assert policy.text == DESIGN
    assert policy.credentials == {
        "stripe": Credential(
            "stripe",
            SecretRef("kv", "stripe", "api_key"),
            (HostPattern("api.stripe.com", False, None),),
            Injection("authorization", "Bearer {secret}"),
            3,
        ),
        "crm": Credential(
            "crm",
            SecretRef("kv", "crm/eu", "key"),
            (HostPattern("crm.example", True, 8443),),
            Injection("x-api-key", "k={secret}"),
            4,
        ),
        "old": Credential(
            "old",
            SecretRef("kv", "old", "key"),
            (HostPattern("old.example", False, None),),
            Injection("authorization", "Basic {secret}", "bot"),
            5,
        ),
    }
    assert policy.approvers == {"finance": ("alice", "bob"), "security": ("dave",)}
    assert list(policy.tiers) == ["medium", "high", "money"]
    assert policy.tiers["money"] == Tier(
        "money",
        (Quorum("finance", 2), Quorum("any", 1)),
        ("owner", "eve"),
        3600,
        300,
        1,
        "required",
        "none",
    )
    read, refund = policy.rules
    assert read == Rule(
        "stripe-read",
        ("billing-bot",),
        (Match(frozenset({"GET"}), (HostPattern("api.stripe.com", False, None),), ("/v1/**",)),),
        "allow",
        use=("stripe",),
        line=12,
    )
    assert refund.agents == ("billing-bot", "tag:finance")
    assert refund.risk == "high"
    assert refund.confirm == "form:amount"
    assert refund.excepts == (Match(paths=("/v1/refunds/test",)),)
    assert [(test.name, test.equals) for test in refund.matches[0].query] == [("dry", "1")]
    assert [(test.name, test.exists) for test in refund.matches[0].headers] == [("x-mode", False)]


def test_the_built_in_tiers() -> None:
    policy = load_policy("version: 1")[0]
    assert policy.tiers == {
        "medium": Tier("medium", (Quorum("any", 1),), ("owner",), 900, 300, 1, "optional", "none"),
        "high": Tier("high", (Quorum("any", 2),), ("owner",), 900, 300, 1, "optional", "retype"),
    }
    assert policy.rules == ()


def test_a_changed_tier_keeps_the_rest_and_a_new_one_starts_from_medium() -> None:
    tiers = load_policy("version: 1\ntiers: {high: {denials: 2}, mine: {confirm: retype}}")[0].tiers
    assert (tiers["high"].quorum, tiers["high"].denials) == ((Quorum("any", 2),), 2)
    assert (tiers["mine"].quorum, tiers["mine"].confirm) == ((Quorum("any", 1),), "retype")


def test_a_hold_without_risk_is_medium() -> None:
    rule = "{id: r, agents: [a], match: {host: h.example}, effect: hold}"
    assert load_policy(f"version: 1\nrules: [{rule}]")[0].rules[0].risk == "medium"


def test_credentials_in_a_deny_are_ignored() -> None:
    rule = "{id: r, agents: [a], match: {}, effect: deny, use: [nothing]}"
    assert load_policy(f"version: 1\nrules: [{rule}]")[0].rules[0].use == ()


def test_everything_wrong_is_said_at_once() -> None:
    text = """\
version: 2
credentails: {}
credentials:
  stripe: {secret: kv/stripe, hosts: [api.stripe.com], inject: bearer, hots: x}
approvers: {finance: [alice], any: [bob]}
tiers:
  low: {denials: 3}
  high: {quorum: [{group: finance, count: 2}], passkey: required}
rules:
  - id: one
    agnets: [bot]
    match: {method: get, host: api.stripe.com, path: v1}
    effect: alow
  - id: one
    agents: []
    match: {host: "*.*.com"}
    effect: hold
    risk: hihg
  - id: two
    agents: [bot]
    match: {host: a.example}
    effect: hold
    risk: hihg
    use: [strpe]
"""
    assert refused(text) == [
        "p:1: error: this Keybroker reads version: 1 only",
        'p:2: error: unknown field "credentails" (did you mean "credentials"?)',
        'p:4: error: credential "stripe": secret: "kv/stripe" names no secret; '
        "write MOUNT/PATH#FIELD: kv/stripe#key",
        'p:4: error: credential "stripe": unknown field "hots" (did you mean "hosts"?)',
        'p:5: error: group "any": "any" has a meaning of its own; give the group another name',
        'p:7: error: tier "low": low never holds, so there is nothing to set',
        'p:8: error: tier "high": passkeys are not there yet, so none can be required; '
        "use optional",
        'p:8: error: tier "high": the quorum cannot be met: too few different people who are not '
        "excluded in finance (2)",
        'p:10: error: rule "one": "agents" is missing',
        'p:11: error: rule "one": unknown field "agnets" (did you mean "agents"?)',
        'p:12: error: rule "one": method: "get" is not a method; write capitals, such as GET',
        "p:12: error: rule \"one\": path: the path 'v1' must begin with `/`",
        'p:13: error: rule "one": effect must be allow or hold or deny or tunnel '
        '(did you mean "allow"?)',
        'p:14: error: rule id "one" is taken by line 10',
        'p:15: error: rule "one": agents is empty; leave the field out or fill it in',
        "p:16: error: rule \"one\": host: '*.*.com': a wildcard stands only at the front, as in "
        "`*.example.com`",
        'p:23: error: rule "two": unknown tier "hihg" (did you mean "high"?)',
        'p:24: error: rule "two": unknown credential "strpe" (did you mean "stripe"?)',
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", 'p:1: error: "version" is missing; this Keybroker reads version: 1'),
        ("version: true", "reads version: 1 only"),
        ("- a", "p:1: error: the file must be a mapping, not a list"),
        ("version: 1\nrules: {}", "p:2: error: rules must be a list"),
        ("version: 1\nrules: [x]", 'rule 1: rules must be a mapping, not the word "x"'),
        ("version: 1\ntiers: [x]", "tiers must be a mapping, not a list"),
        ("version: 1\na: *b", "alias *b"),
    ],
)
def test_the_frame_is_checked(text: str, sentence: str) -> None:
    assert any(sentence in line for line in refused(text)), refused(text)


def test_warnings_are_returned() -> None:
    rule = "{id: r, agents: [a], match: {host: h.example}, effect: hold, confirm: query:a}"
    assert load_policy(f"version: 1\nrules: [{rule}]", "p")[1] == (
        Problem(
            "p",
            2,
            'rule "r": the tier medium does not ask for retyping, so confirm has no effect',
            "warning",
            "no-effect",
            "r",
        ),
    )


def test_who_is_named() -> None:
    policy = load_policy(DESIGN)[0]
    assert agents_named(policy) == {"billing-bot"}
    assert people_named(policy) == {"alice", "bob", "dave", "eve"}


@pytest.mark.parametrize("solo", [True, False])
def test_the_starter_loads_and_denies(solo: bool) -> None:
    policy, warnings = load_policy(starter_policy(solo))
    assert warnings == ()
    call = Request("GET", "https", "api.stripe.com", 443, "/v1/x", None, (), b"")
    assert Rulebook(policy).decide(Subject("billing-bot"), call).effect == "deny"
    assert [(tier.quorum, tier.exclude, tier.confirm) for tier in policy.tiers.values()] == (
        [((Quorum("any", 1),), (), "none"), ((Quorum("any", 1),), (), "retype")]
        if solo
        else [
            ((Quorum("any", 1),), ("owner",), "none"),
            ((Quorum("any", 2),), ("owner",), "retype"),
        ]
    )


@pytest.mark.parametrize("solo", [True, False])
def test_the_starters_example_holds_when_uncommented(solo: bool) -> None:
    lines = starter_policy(solo).splitlines()
    policy, warnings = load_policy("\n".join(line.removeprefix("# ") for line in lines))
    assert warnings == ()
    assert [rule.effect for rule in policy.rules] == ["allow", "hold", "tunnel"]


def test_many_rules_load() -> None:
    text = "version: 1\nrules:\n" + "".join(
        f"  - {{id: r{i}, agents: [b], match: {{host: h{i % 50}.example}}, effect: deny}}\n"
        for i in range(1000)
    )
    assert len(load_policy(text)[0].rules) == 1000


PIECES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.text(max_size=5)
    | st.sampled_from(["hold", "any", "GET", "a.example", "/x", "bearer", "kv/a#b", "15m"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *FIELDS,
                    *RULE,
                    *MATCH,
                    *CREDENTIAL,
                    *TIER,
                    "group",
                    "count",
                    "basic",
                    "exists",
                    "a",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(st.fixed_dictionaries({"version": st.just(1)}, optional=dict.fromkeys(
    ("credentials", "approvers", "tiers", "rules"), PIECES)))  # fmt: skip
def test_any_shape_is_loaded_or_refused(value: dict[str, object]) -> None:
    try:
        policy, _ = load_policy(json.dumps(value))
    except InvalidFile as error:
        problems = error.problems
    else:
        problems = ()
        Rulebook(policy)
    assert all(problem.line >= 1 for problem in problems)
