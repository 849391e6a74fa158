"""A decision laid open for whoever wrote the policy: what matched, what nearly did and why not.

The decision is the very one that an agent would get. Values of the call are shown as far as a
condition looks at them, so this is for people who may see the call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rules.decide import Rulebook
from rules.describe import describe_match
from rules.limits import Limit
from rules.misses import Why
from rules.model import Decision, Policy, Rule, Shadow, Subject
from rules.nearest import misses
from rules.reading.call import Reading
from rules.request import Request
from rules.trial.outcome import Outcome
from rules.trying.shadow import Overlay
from rules.words import describe_limit, describe_span, describe_tier

MAX_NEAR = 5
"""How many of the rules that nearly match are told of."""


@dataclass(frozen=True, slots=True)
class Near:
    """A rule under which the call does not fall, and every condition that fails."""

    rule: Rule
    reasons: tuple[Why, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    decision: Decision
    policy: Policy
    matched: tuple[Rule, ...]
    """Every rule that the call falls under, whether it decides or not, in file order."""
    near: tuple[Near, ...]
    """Of the same agent and host, nearest first."""
    shadow: Shadow | None = None
    """What rules in shadow would do."""

    @property
    def outcome(self) -> Outcome:
        return Outcome.of(self.decision)

    def to_json(self) -> dict[str, Any]:
        """Effect, risk, code, rules and sentence, and all the rest."""
        decision = self.decision
        return {
            **self.outcome.to_json(),
            "matched": [
                {
                    "rule": rule.id,
                    "effect": rule.effect,
                    "line": rule.line,
                    "calls": [describe_match(match) for match in rule.matches],
                    "decides": rule.id in decision.rules,
                }
                for rule in self.matched
            ],
            "near": [
                {
                    "rule": near.rule.id,
                    "effect": near.rule.effect,
                    "line": near.rule.line,
                    "failed": [why.to_json() for why in near.reasons],
                }
                for near in self.near
            ],
            "credentials": list(decision.credentials),
            "tiers": [
                {
                    "name": name,
                    "people": describe_tier(self.policy.tiers[name]),
                    "decide_within": describe_span(self.policy.tiers[name].decide_within),
                }
                for name in decision.tiers
            ],
            "limits": [
                {"rule": demand.rule, "sentence": _limit(demand.limit)}
                for demand in decision.limits
            ],
            "summaries": list(decision.summaries),
            "shadow": None
            if self.shadow is None
            else {"effect": self.shadow.effect, "rules": [id for id, _ in self.shadow.rules]},
        }


def explain(rulebook: Rulebook, subject: Subject, request: Request) -> Explanation:
    """Why the call is decided as it is. Never raises on account of the request."""
    call = Reading(request, subject)
    decision = rulebook.decide_on(call)
    missed = misses(rulebook.index, subject, call)
    some = [miss for miss in missed if miss.is_near] or missed
    overlay = Overlay.of_rules(rulebook.policy)
    return Explanation(
        decision,
        rulebook.policy,
        rulebook.matching(call),
        tuple(
            [Near(miss.rule, tuple(miss.reasons(call, openly=True))) for miss in some[:MAX_NEAR]]
        ),
        overlay.cast(call, decision) if overlay is not None else None,
    )


def _limit(limit: Limit) -> str:
    return f"at most {describe_limit(limit)}"
