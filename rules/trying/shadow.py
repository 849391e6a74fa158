"""Rules in shadow: what they would do with a call, beside what is decided. They change nothing.

Where a policy has none, nothing here is made and no call pays for it.
"""

from __future__ import annotations

from dataclasses import replace

from rules.decide import Rulebook
from rules.model import Decision, Policy, Shadow
from rules.reading.call import Reading


class Overlay:
    """What is tried: single rules beside those in force, or a whole file in their stead."""

    def __init__(self, whole: Rulebook, *, tried: Rulebook | None, version: int | None) -> None:
        """`whole` decides as if what is tried were in force; `tried` has the rules in shadow, None
        where that is all of them."""
        self.version = version
        """Of the policy that is tried as a whole; None: single rules."""
        self._whole = whole
        self._tried = tried
        self._effects = {rule.id: rule.effect for rule in whole.policy.rules}

    @classmethod
    def of_rules(cls, policy: Policy) -> Overlay | None:
        """The policy's rules in shadow; None if it has none."""
        if not policy.shadows:
            return None
        whole = replace(policy, rules=(*policy.rules, *policy.shadows))
        tried = replace(policy, rules=policy.shadows)
        return cls(Rulebook(whole), tried=Rulebook(tried), version=None)

    @classmethod
    def of_file(cls, policy: Policy, version: int) -> Overlay:
        """A whole file. What is in shadow within it stays out of it."""
        return cls(Rulebook(policy), tried=None, version=version)

    def cast(self, call: Reading, decision: Decision) -> Shadow | None:
        """What it says of a call on which this was decided; None if no rule in shadow is about it.
        Never raises."""
        try:
            return self._cast(call, decision)
        except Exception:  # noqa: BLE001 - what is only tried must not stop what is in force
            return None

    def _cast(self, call: Reading, decision: Decision) -> Shadow | None:
        if self._tried is None:
            would = self._whole.decide_on(call)
            ids: tuple[str, ...] = (*would.rules, *would.allowed_by)
        else:
            ids = tuple([rule.id for rule in self._tried.matching(call)])
            if not ids:
                return None
            would = self._whole.decide_on(call)
        rules = tuple([(id, self._effects[id]) for id in ids])
        return Shadow(decision.effect, would.effect, rules, self.version)
