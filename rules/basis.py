"""The basis of a decision: a digest over every definition that led to it.

If it is another one later, something that mattered has changed, and the call is decided anew
(law 3). Edits elsewhere in the file, moved lines included, leave it as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict

from rules.model import Credential, Policy, Rule, Subject, Tier

_LABEL = b"keybroker/basis/v1\n"
_LATER: dict[str, object] = {"stream": False, "body_limit": None, "undo": None}
"""Fields of rules that came after the first release, with what they are where a file says nothing.
There they are left out, so that what was approved before an upgrade is good after it."""
_KEPT = 10_000
"""Bases that are remembered."""


class Definitions:
    """A policy's rules as digests, each with the tier, groups and credentials it refers to."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._digests: dict[str, str] = {}
        self._bases: dict[tuple[Subject, tuple[str, ...]], str] = {}
        """By agent and rules; a policy's rules do not change, and agents mostly repeat calls."""

    def basis(self, subject: Subject, rules: Iterable[Rule]) -> str:
        """SHA-256 (hex) over the agent and the rules that matched, in their order."""
        rules = tuple(rules)
        key = subject, tuple([rule.id for rule in rules])
        basis = self._bases.get(key)
        if basis is None:
            agent = {"name": subject.name, "owner": subject.owner, "tags": sorted(subject.tags)}
            basis = _digest([agent, [self._of(rule) for rule in rules]])
            if len(self._bases) >= _KEPT:
                self._bases = {}
            self._bases[key] = basis
        return basis

    def _of(self, rule: Rule) -> str:
        # Made once, when first needed; two threads at worst make the same twice.
        if rule.id not in self._digests:
            policy = self._policy
            tier = policy.tiers[rule.risk] if rule.effect == "hold" and rule.risk else None
            groups = {entry.group for entry in tier.quorum} if tier else set()
            self._digests[rule.id] = _digest(
                [
                    _plain(rule),
                    _plain(tier) if tier else None,
                    {group: policy.approvers[group] for group in groups & policy.approvers.keys()},
                    [_plain(policy.credentials[name]) for name in rule.use],
                ]
            )
        return self._digests[rule.id]


def _plain(definition: Rule | Tier | Credential) -> dict[str, object]:
    """All that the definition says of calls; not where it stands, or what agents are started
    with."""
    fields = asdict(definition)
    for aside in ("line", "env"):
        fields.pop(aside, None)
    return {n: v for n, v in fields.items() if n not in _LATER or v != _LATER[n]}


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=sorted)
    return hashlib.sha256(_LABEL + text.encode()).hexdigest()
