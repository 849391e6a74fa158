"""Files of cases: what is expected, what differs, and what is no case at all."""

from __future__ import annotations

from typing import Any

import pytest

from rules.decide import Rulebook
from rules.errors import InvalidFile
from rules.load import load_policy
from rules.model import Subject
from rules.trial.cases import CASE, EXPECT, Tried, read_cases, try_case

POLICY = """
version: 1
rules:
  - {id: one, agents: [bot], match: {method: PUT, host: a.example}, effect: hold, risk: high}
  - {id: two, agents: [bot], match: {host: a.example, path: /x}, effect: hold}
  - id: office
    agents: [bot]
    match: {method: GET, host: b.example, time: {days: [mon], zone: UTC}}
    effect: allow
"""
BOOK = Rulebook(load_policy(POLICY)[0])
PUT = 'as: bot, request: {method: PUT, url: "https://a.example/x"}'


def tried(text: str) -> Tried:
    (case,) = read_cases(text, "cases.yaml")
    return try_case(case, BOOK, Subject)


@pytest.mark.parametrize(
    ("expect", "differs"),
    [
        ("{effect: hold}", []),
        ("{effect: hold, risk: high, rule: two, rules: [two, one], code: approval_pending}", []),
        ("{sentence: UNTIL PEOPLE APPROVE}", []),
        ("{effect: deny}", ["the effect is hold, not deny"]),
        ("{risk: medium}", ["the risk is high, not medium"]),
        ("{risk: null}", ["the risk is high, not none"]),
        ("{rules: [one]}", ["the deciding rules are one, two, not one"]),
        ("{rules: []}", ["the deciding rules are one, two, not none"]),
        ("{rule: null}", ["the deciding rules are one, two, not none"]),
        ("{code: null}", ["the code is approval_pending, not none"]),
        ("{code: policy_denied}", ["the code is approval_pending, not policy_denied"]),
        ("{sentence: nobody}", ['the sentence does not have "nobody"']),
        (
            "{rule: tow}",
            [
                "the deciding rules are one, two, not tow"
                ' (the policy has no rule "tow" (did you mean "two"?))'
            ],
        ),
    ],
)
def test_only_what_is_given_counts(expect: str, differs: list[str]) -> None:
    found = tried(f"- {{name: n, {PUT}, expect: {expect}}}")
    assert list(found.differences) == differs
    assert found.passed == (not differs)


def test_a_denied_call_has_no_risk_and_no_rule() -> None:
    request = 'request: {method: GET, url: "https://c.example/"}'
    expect = "{effect: deny, risk: null, rule: null, rules: [], code: policy_denied}"
    assert tried(f"- {{as: bot, {request}, expect: {expect}}}").passed


def test_a_case_without_a_name_is_called_by_its_request() -> None:
    found = tried(f"- {{{PUT}, expect: {{effect: hold}}}}")
    assert found.case.name == "PUT https://a.example/x"
    told: dict[str, Any] = found.to_json()
    assert (told["file"], told["line"], told["passed"]) == ("cases.yaml", 1, True)


@pytest.mark.parametrize("where", ["case", "request"])
def test_the_time_stands_with_the_case_or_with_the_request(where: str) -> None:
    for day, effect in (("02", "allow"), ("03", "deny")):
        at = f', at: "2026-03-{day}T12:00:00Z"'
        inside, outside = (at, "") if where == "request" else ("", at)
        request = f'request: {{method: GET, url: "https://b.example/"{inside}}}'
        assert tried(f"- {{as: bot{outside}, {request}, expect: {{effect: {effect}}}}}").passed


def test_without_a_time_a_window_is_in_doubt() -> None:
    request = 'request: {method: GET, url: "https://b.example/"}'
    found = tried(f"- {{as: bot, {request}, expect: {{code: request_ambiguous}}}}")
    assert found.passed
    assert "the time of the call is not known" in found.got.sentence


def test_an_agent_that_no_rule_names_is_told_of() -> None:
    found = tried(f"- {{{PUT.replace('bot', 'bott')}, expect: {{effect: hold}}}}")
    assert found.differences[-1] == 'no rule names the agent "bott" (did you mean "bot"?)'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"- {{{PUT}}}", 'case 1: "expect" is missing'),
        (f"- {{name: n, {PUT}, expect: {{}}}}", 'case "n": expect is empty'),
        ("- {as: bot, expect: {effect: deny}}", '"request" is missing'),
        (f"- {{{PUT[9:]}, expect: {{effect: deny}}}}", '"as" is missing: which agent calls?'),
        (f"- {{{PUT}, expect: {{efect: deny}}}}", 'unknown field "efect" (did you mean "effect"?)'),
        (f"- {{{PUT}, expect: {{effect: denied}}}}", 'deny (did you mean "deny"?)'),
        (f"- {{{PUT}, expect: {{code: policy_deny}}}}", '(did you mean "policy_denied"?)'),
        (f"- {{{PUT}, expect: {{effect: deny}}, tag: [a]}}", '(did you mean "tags"?)'),
        (f"- {{{PUT}, expect: {{effect: deny}}, repeat: 0}}", "a whole number from 1 to 1000000"),
        (f"- {{{PUT}, expect: {{effect: deny}}, tags: 'a b'}}", "is not a name"),
        ("- 5", "must be a mapping, not the number 5"),
        (
            "- {as: bot, at: 2026-03-02, expect: {effect: deny}, "
            'request: {method: GET, url: "https://a.example", at: 2026-03-02}}',
            "the time stands in the request already",
        ),
    ],
)
def test_what_is_no_case_is_a_mistake_of_the_file(text: str, sentence: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        read_cases(text, "cases.yaml")
    assert any(sentence in problem.message for problem in caught.value.problems), caught.value


def test_every_mistake_is_told_at_once_with_its_line() -> None:
    with pytest.raises(InvalidFile) as caught:
        read_cases("- {a: 1}\n- {b: 1}\n", "cases.yaml")
    assert {problem.line for problem in caught.value.problems} == {1, 2}


def test_the_fields_are_those_that_the_guide_has() -> None:
    assert CASE == ("name", "as", "tags", "at", "repeat", "request", "expect")
    assert EXPECT == ("effect", "risk", "rule", "rules", "code", "sentence")
