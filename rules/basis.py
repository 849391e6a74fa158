"""The basis of a decision: a digest over every definition that led to it.

If it is another one later, something that mattered has changed, and the call is decided anew
(law 3). Edits elsewhere in the file, moved lines included, leave it as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from decimal import Decimal

from rules.model import Match, Policy, Rule, SourceTest, Subject, ValueTest

_LABEL = b"keybroker/basis/v1\n"
_FIRST = {
    Rule: frozenset(
        "id agents matches effect excepts risk summary confirm impact use".split()  # noqa: SIM905
    ),
    Match: frozenset(("methods", "hosts", "paths", "scheme", "query", "headers")),
    ValueTest: frozenset(("name", "exists", "equals")),
    SourceTest: frozenset(("via", "run", "tags")),
}
"""The fields of the first release. Later ones are left out where a file says nothing of them, so
that what was approved before an upgrade is good after it."""
_ASIDE = frozenset(("line", "env"))
"""Where a definition stands, and what agents are started with: nothing about calls."""
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
            tier = policy.tiers[rule.tier] if rule.tier else None
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


def _plain(value: object) -> object:
    """All that a definition says of calls, as JSON has it."""
    if is_dataclass(value):
        first = _FIRST.get(type(value))
        return {
            field.name: _plain(getattr(value, field.name))
            for field in fields(value)
            if field.name not in _ASIDE
            and (
                first is None or field.name in first or getattr(value, field.name) != field.default
            )
        }
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(value)
    return str(value) if isinstance(value, Decimal) else value


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(_LABEL + text.encode()).hexdigest()
