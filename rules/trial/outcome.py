"""What comes of a call: the decision in the words of the contract, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR
from typing import Any

from rules.decide import Rulebook
from rules.errors import Ambiguous
from rules.limits import UNREADABLE, Demand, Over
from rules.model import Decision, Subject
from rules.request import Request
from rules.trial.requests import Written

AMBIGUOUS, DENIED, HELD = "request_ambiguous", "policy_denied", "approval_pending"
CODES = (DENIED, AMBIGUOUS, HELD)
"""What the agent may read; for an allowed call none, but the upstream's answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    effect: str
    risk: str | None
    """The strictest tier of a hold, `low` of an allow; None of a denial."""
    code: str | None
    rules: tuple[str, ...]
    sentence: str

    @classmethod
    def of(cls, decision: Decision) -> Outcome:
        effect = decision.effect
        return cls(
            effect,
            None if effect == "deny" else decision.risk,
            {"deny": decision.code, "hold": HELD}.get(effect),
            decision.rules,
            decision.sentence,
        )

    @classmethod
    def refused(cls, error: Ambiguous) -> Outcome:
        """Of a request that has no canonical form."""
        return cls("deny", None, AMBIGUOUS, (), error.sentence)

    def to_json(self) -> dict[str, Any]:
        return {
            "effect": self.effect,
            "risk": self.risk,
            "code": self.code,
            "rules": list(self.rules),
            "sentence": self.sentence,
        }


def outcome_of(
    rulebook: Rulebook, subject: Subject, written: Written, *, repeat: int = 1
) -> Outcome:
    """What becomes of the call, and of the last of several that are alike at one moment."""
    try:
        request = written.request()
    except Ambiguous as error:
        return Outcome.refused(error)
    return Outcome.of(decide_last(rulebook, subject, request, repeat))


def decide_last(rulebook: Rulebook, subject: Subject, request: Request, repeat: int) -> Decision:
    """The decision on the last of `repeat` calls that are alike, nothing being used of any limit
    before the first."""
    decision = rulebook.decide(subject, request)
    moment = request.moment or datetime.now(UTC)
    over = [found for demand in decision.limits if (found := _over(demand, repeat - 1, moment))]
    return rulebook.over(decision, over, request) if over else decision


def _over(demand: Demand, before: int, moment: datetime) -> Over | None:
    """The demand, if it goes beyond its limit after so many others like it."""
    most, amount = demand.limit.most, demand.amount
    if amount == UNREADABLE:
        return Over(demand, most * 0, moment, None)
    fitting = int((most / amount).to_integral_value(ROUND_FLOOR)) if amount else before
    if before < fitting or not amount:
        return None
    used = amount * min(before, fitting)
    frees_at = moment + timedelta(seconds=demand.limit.per) if amount <= most else None
    return Over(demand, used, moment, frees_at)
