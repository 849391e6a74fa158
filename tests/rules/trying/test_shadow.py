"""What is in shadow says what it would do, and does nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rules.decide import Rulebook
from rules.errors import InvalidFile
from rules.load import load_policy
from rules.model import Policy, Shadow, Subject
from rules.reading.call import Reading
from rules.request import Request
from rules.trying.shadow import Overlay
from tests.support.policies import SUBJECTS, near, policies

BOT = Subject("bot", frozenset(), "alice")
ALLOW = "id: allow, agents: [bot], match: {host: a.example}, effect: allow"
DENY = "id: deny, agents: [bot], match: {host: a.example, path: /x}, effect: deny"
HOLD = "id: hold, agents: [bot], match: {host: a.example, path: /x}, effect: hold"
OTHER = "id: other, agents: [bot], match: {host: b.example}, effect: allow"
SHADOW = ", mode: shadow"


def policy(*rules: str, head: str = "") -> Policy:
    lines = "".join(f"  - {{{rule}}}\n" for rule in rules)
    return load_policy(f"version: 1\n{head}rules:\n{lines}")[0]


def request(path: str = "/x", method: str = "GET") -> Request:
    return Request(method, "https", "a.example", 443, path, None, (), b"")


def cast(tried: Policy, path: str = "/x") -> Shadow | None:
    overlay = Overlay.of_rules(tried)
    assert overlay is not None
    return overlay.cast(Reading(request(path), BOT), Rulebook(tried).decide(BOT, request(path)))


@pytest.mark.parametrize(
    ("rules", "decided", "would"),
    [
        ((ALLOW, DENY + SHADOW), "allow", "deny"),
        ((ALLOW, HOLD + SHADOW), "allow", "hold"),
        ((HOLD, DENY + SHADOW), "hold", "deny"),
        ((DENY, ALLOW + SHADOW), "deny", "deny"),
        ((HOLD, ALLOW + SHADOW), "hold", "hold"),
        ((ALLOW + SHADOW,), "deny", "allow"),
        ((ALLOW + SHADOW, HOLD + SHADOW), "deny", "hold"),
    ],
)
def test_a_rule_in_shadow_changes_nothing_and_is_told_of(
    rules: tuple[str, ...], decided: str, would: str
) -> None:
    tried = policy(*rules)
    assert Rulebook(tried).decide(BOT, request()).effect == decided
    shadow = cast(tried)
    assert shadow is not None
    assert (shadow.decided, shadow.effect, shadow.version) == (decided, would, None)
    assert [rule for rule, _ in shadow.rules] == [rule.id for rule in tried.shadows]


def test_a_decision_is_the_same_with_and_without_a_rule_in_shadow() -> None:
    with_it, without = policy(ALLOW, DENY + SHADOW), policy(ALLOW)
    assert Rulebook(with_it).decide(BOT, request()) == Rulebook(without).decide(BOT, request())


def test_nothing_is_told_of_other_calls() -> None:
    assert cast(policy(ALLOW, DENY + SHADOW), "/y") is None
    assert Overlay.of_rules(policy(ALLOW, DENY)) is None


def test_a_whole_file_says_what_it_would_decide() -> None:
    decision = Rulebook(policy(ALLOW)).decide(BOT, request())
    overlay = Overlay.of_file(policy(ALLOW, HOLD), 7)
    shadow = overlay.cast(Reading(request(), BOT), decision)
    rules = (("hold", "hold"), ("allow", "allow"))
    assert shadow == Shadow("allow", "hold", rules, 7)  # type: ignore[arg-type]
    nothing = Overlay.of_file(policy(), 8).cast(Reading(request(), BOT), decision)
    assert nothing == Shadow("allow", "deny", (), 8)


def test_whatever_fails_in_it_is_nothing() -> None:
    overlay = Overlay.of_file(policy(ALLOW), 1)
    overlay._effects.clear()
    decision = Rulebook(policy(ALLOW)).decide(BOT, request())
    assert overlay.cast(Reading(request(), BOT), decision) is None


def test_credentials_of_a_rule_in_shadow_go_nowhere() -> None:
    head = "credentials:\n  k: {secret: 'kv/a#b', hosts: [a.example], inject: bearer}\n"
    tried = policy(ALLOW, HOLD.replace("{host", "{host") + ", use: [k]" + SHADOW, head=head)
    assert Rulebook(tried).decide(BOT, request()).credentials == ()


def test_the_file_says_what_is_not_in_force() -> None:
    _, warnings = load_policy(f"version: 1\nrules:\n  - {{{ALLOW}}}\n  - {{{DENY}{SHADOW}}}\n")
    assert [(w.code, w.rule) for w in warnings] == [("shadow", "deny")]
    whole, warnings = load_policy(f"version: 1\nmode: shadow\nrules:\n  - {{{ALLOW}}}\n")
    assert whole.shadow
    assert any("nothing in this file is in force" in warning.message for warning in warnings)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "rules:\n  - {" + ALLOW.replace("effect: allow", "effect: tunnel") + SHADOW + "}",
            "a tunnel cannot be tried",
        ),
        ("rules:\n  - {" + ALLOW + ", mode: shade}", "enforce or shadow"),
        ("mode: off\nrules: []", "enforce or shadow"),
    ],
)
def test_other_modes_are_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidFile, match=says):
        load_policy("version: 1\n" + text + "\n")


RULES = st.lists(
    st.tuples(
        st.sampled_from(["allow", "hold", "deny"]),
        st.sampled_from(["/x", "/y", "/**"]),
        st.booleans(),
    ),
    max_size=5,
)


@given(RULES, st.sampled_from(["/x", "/y", "/z"]))
def test_no_rule_in_shadow_ever_decides(rules: list[tuple[str, str, bool]], path: str) -> None:
    lines = [
        (
            f"id: r{number}, agents: [bot], match: {{host: a.example, path: {place}}},"
            f" effect: {effect}" + (", limit: {calls: 5, per: 1m}" if effect != "deny" else ""),
            shadow,
        )
        for number, (effect, place, shadow) in enumerate(rules)
    ]
    mixed = policy(OTHER, *(line + SHADOW * shadow for line, shadow in lines))
    plain = policy(OTHER, *(line for line, shadow in lines if not shadow))
    one, other = (Rulebook(each).decide(BOT, request(path)) for each in (mixed, plain))
    assert one == other
    in_force = {f"r{number}" for number, (_, _, shadow) in enumerate(rules) if not shadow}
    assert {demand.rule for demand in one.limits} <= in_force


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_a_file_in_shadow_says_what_it_would_decide_if_it_were_live(data: st.DataObject) -> None:
    """And of what is decided it changes nothing, not even in part."""
    live, tried = data.draw(policies()), data.draw(policies())
    rule = data.draw(st.sampled_from((*live.rules, *tried.rules)))
    subject = data.draw(st.sampled_from(SUBJECTS))
    asked = data.draw(near(data.draw(st.sampled_from(rule.matches)), subject))
    decision = Rulebook(live).decide(subject, asked)
    shadow = Overlay.of_file(replace(tried, shadow=True), 7).cast(Reading(asked, subject), decision)
    would = Rulebook(tried).decide(subject, asked)
    assert shadow is not None
    assert (shadow.decided, shadow.effect, shadow.version) == (decision.effect, would.effect, 7)
    assert [id for id, _ in shadow.rules] == [*would.rules, *would.allowed_by]
    effects = {rule.id: rule.effect for rule in tried.rules}
    assert all(effect == effects[id] for id, effect in shadow.rules)


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_rules_in_shadow_say_what_would_be_decided_if_they_were_live(data: st.DataObject) -> None:
    whole: Policy = data.draw(policies())
    tried = frozenset(data.draw(st.sets(st.sampled_from(whole.rules))))
    mixed = replace(
        whole,
        rules=tuple(rule for rule in whole.rules if rule not in tried),
        shadows=tuple(replace(rule, shadow=True) for rule in whole.rules if rule in tried),
    )
    rule = data.draw(st.sampled_from(whole.rules))
    subject = data.draw(st.sampled_from(SUBJECTS))
    asked = data.draw(near(data.draw(st.sampled_from(rule.matches)), subject))
    book = Rulebook(mixed)
    decision = book.decide(subject, asked)
    assert decision == Rulebook(replace(mixed, shadows=())).decide(subject, asked)
    overlay = Overlay.of_rules(mixed)
    shadow = overlay.cast(Reading(asked, subject), decision) if overlay is not None else None
    live = Rulebook(whole)
    matching = [rule.id for rule in live.matching(Reading(asked, subject)) if rule in tried]
    if not matching:
        assert shadow is None
        # None of them is about the call: with them it would be decided alike.
        assert live.decide(subject, asked).effect == decision.effect
        return
    assert shadow is not None
    assert shadow.decided == decision.effect
    assert shadow.effect == live.decide(subject, asked).effect
    assert [id for id, _ in shadow.rules] == matching
