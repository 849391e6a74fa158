"""What the program does with a policy beside deciding, in terms of accounts."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from broker.model import Agent
from keybroker.policy import explain_call, subject_of, try_cases
from rules.load import load_policy
from rules.model import Subject
from rules.trial.cases import read_cases
from rules.trial.requests import Written

POLICY, _ = load_policy("version: 1\nrules: []\n")
TAGGED, _ = load_policy("""
version: 1
rules:
  - {id: read, agents: ["tag:finance"], match: {method: GET, host: a.example}, effect: allow}
""")


@given(st.text(max_size=60))
def test_any_text_is_explained(text: str) -> None:
    assert (
        explain_call(POLICY, Subject("bot"), Written("GET", "https://" + text))["effect"] == "deny"
    )


def test_an_unknown_agent_has_no_tags() -> None:
    assert subject_of("bot", []) == Subject("bot")


def test_an_explanation_has_the_same_keys_for_what_has_no_canonical_form() -> None:
    told = [
        explain_call(POLICY, Subject("bot"), Written("GET", f"https://a.example/{path}"))
        for path in ("x", "../x")
    ]
    assert told[0].keys() == told[1].keys()
    assert [each["code"] for each in told] == ["policy_denied", "request_ambiguous"]


def test_an_agent_with_an_account_has_its_tags_unless_the_case_says_otherwise() -> None:
    request = 'request: {method: GET, url: "https://a.example/"}'
    case = f"- {{as: bot, {request}, expect: {{effect: allow}}"
    cases = read_cases(f"{case}}}\n{case}, tags: []}}\n", "cases.yaml")
    began = datetime(2026, 1, 1, tzinfo=UTC)
    bot = Agent("bot", "alice", frozenset({"finance"}), None, 503, began, None, None)
    tried = try_cases(TAGGED, [bot], cases)
    assert [each.passed for each in tried] == [True, False]
    assert 'no rule names the agent "bot"' in tried[1].differences[-1]
