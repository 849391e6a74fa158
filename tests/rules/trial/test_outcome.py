"""Outcomes in the contract's words, and of several calls that are alike, the last."""

from __future__ import annotations

import pytest

from rules.decide import Rulebook
from rules.load import load_policy
from rules.model import Subject
from rules.trial.outcome import CODES, outcome_of
from rules.trial.requests import Written

POLICY = """
version: 1
rules:
  - {id: read, agents: [bot], match: {method: GET, host: a.example}, effect: allow}
  - {id: write, agents: [bot], match: {method: PUT, host: a.example}, effect: hold, risk: high}
  - id: often
    agents: [bot]
    match: {method: POST, host: a.example}
    effect: allow
    limit: [{calls: 3, per: 1m}, {sum: "query:n", max: 10, per: 1d, over: hold}]
"""
BOOK = Rulebook(load_policy(POLICY)[0])
BOT = Subject("bot")


@pytest.mark.parametrize(
    ("method", "path", "effect", "risk", "code", "rules"),
    [
        ("GET", "/", "allow", "low", None, ("read",)),
        ("PUT", "/", "hold", "high", "approval_pending", ("write",)),
        ("PATCH", "/", "deny", None, "policy_denied", ()),
        ("GET", "//", "deny", None, "request_ambiguous", ()),
    ],
)
def test_outcomes_have_the_words_of_the_contract(
    method: str, path: str, effect: str, risk: str | None, code: str | None, rules: tuple[str, ...]
) -> None:
    got = outcome_of(BOOK, BOT, Written(method, f"https://a.example{path}"))
    assert (got.effect, got.risk, got.code, got.rules) == (effect, risk, code, rules)
    assert got.sentence
    assert code is None or code in CODES
    assert got.to_json().keys() == {"effect", "risk", "code", "rules", "sentence"}


@pytest.mark.parametrize(
    ("query", "repeat", "effect"),
    [
        ("n=1", 1, "allow"),
        ("n=1", 3, "allow"),
        ("n=1", 4, "deny"),
        ("n=1", 1_000_000, "deny"),
        ("n=5", 2, "allow"),
        ("n=5", 3, "hold"),
        ("n=11", 1, "hold"),
        ("n=0", 3, "allow"),
        ("n=0", 4, "deny"),
    ],
)
def test_limits_count_the_repetitions_of_one_case(query: str, repeat: int, effect: str) -> None:
    written = Written("POST", f"https://a.example/?{query}")
    got = outcome_of(BOOK, BOT, written, repeat=repeat)
    assert got.effect == effect, got.sentence
    if effect != "allow":
        assert "at most" in got.sentence
