"""Policies for the linter, and what each code's example must show when it takes the very path of a
call: as a URL, into canonical form, through the rulebook."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from rules.decide import Rulebook
from rules.lint.check import Report, check
from rules.lint.finding import Example, Finding
from rules.lint.guards import RISKY
from rules.lint.never import why_never
from rules.lint.view import Accounts
from rules.load import read_whole
from rules.model import Decision, Policy, Rule, Subject
from rules.reading.call import Reading
from rules.request import Request
from rules.source import Section, Source
from rules.trial.requests import read_request
from rules.yamlfile import Lines

HEAD = """\
version: 1
credentials:
  api: {secret: "kv/api#key", hosts: [api.example.com], inject: bearer}
  wide: {secret: "kv/wide#key", hosts: ["*.wide.example"], inject: {header: X-Key}}
  other: {secret: "kv/other#key", hosts: [api.example.com], inject: {header: Authorization}}
"""
PEOPLE = Accounts(
    (Subject("bot", frozenset({"ci"}), "olga"), Subject("second", frozenset(), None)),
    frozenset({"olga", "paul", "quinn", "vera"}),
    frozenset({"olga", "paul", "quinn"}),
)


def policy_of(*rules: str, head: str = "version: 1\n") -> str:
    """The text of a policy with these rules, each in a line of its own."""
    return head + "rules:\n" + "".join(f"  - {{{rule}}}\n" for rule in rules)


def checked(*rules: str, head: str = "version: 1\n", accounts: Accounts | None = None) -> Report:
    """What the linter says of these rules."""
    return check(policy_of(*rules, head=head), "p.yaml", accounts=accounts)


def codes(report: Report) -> set[tuple[str, str]]:
    """Code and rule of each finding."""
    return {(finding.code, finding.rule) for finding in report.findings}


def sent(example: Example) -> Request:
    """The example as a policy's tests would have it: read, then put into canonical form."""
    told = {k: v for k, v in example.to_dict().items() if k not in ("as", "tags")}
    source = Source("example", Lines())
    written = read_request(Section(source, ()), told, None)
    assert written is not None, source.problems
    return written.request()


@dataclass(frozen=True)
class Case:
    """A finding with its call."""

    policy: Policy
    finding: Finding

    @cached_property
    def example(self) -> Example:
        assert self.finding.example is not None, self.finding
        return self.finding.example

    @cached_property
    def request(self) -> Request:
        return sent(self.example)

    @cached_property
    def decision(self) -> Decision:
        return Rulebook(self.policy).decide(self.example.subject, self.request)

    @cached_property
    def rule(self) -> Rule:
        return next(rule for rule in self.policy.rules if rule.id == self.finding.rule)

    @cached_property
    def falls(self) -> bool:
        """Whether the call falls under the rule."""
        return self.falls_under(self.rule)

    def falls_under(self, rule: Rule) -> bool:
        alone = Rulebook(replace(self.policy, rules=(rule,)))
        return bool(alone.matching(Reading(self.request, self.example.subject)))

    @cached_property
    def without(self) -> Decision:
        """What would be decided if the rule were not there."""
        left = tuple(rule for rule in self.policy.rules if rule.id != self.finding.rule)
        return Rulebook(replace(self.policy, rules=left)).decide(self.example.subject, self.request)

    @cached_property
    def decides(self) -> bool:
        """Whether the rule is among those that decide."""
        return self.finding.rule in self.decision.rules


def same(one: Decision, other: Decision) -> bool:
    """Whether the call fares alike."""
    return (one.effect, one.credentials, one.tiers, one.risk) == (
        other.effect,
        other.credentials,
        other.tiers,
        other.risk,
    )


def _impossible(case: Case) -> bool:
    rule = case.rule
    wide = rule.effect in ("deny", "hold")
    dead = tuple(match for match in rule.matches if why_never(rule, match, wide=wide))
    return bool(dead) and not case.falls_under(replace(rule, matches=dead))


def _past_the_hold(case: Case) -> bool:
    return case.decision.effect == "allow" and not case.falls and bool(case.request.body)


def _named(case: Case) -> str:
    return case.finding.message.split('"')[1]


def _carries_not(case: Case) -> bool:
    credential = case.policy.credentials[_named(case)]
    return (
        any(host.host in case.request.host for host in credential.hosts)
        and credential.name not in case.decision.credentials
    )


SHOWS: Mapping[str, Callable[[Case], bool]] = {
    "never-matches": lambda c: not c.falls,
    "matches-no-plain-call": lambda c: not c.falls,
    "match-never-holds": _impossible,
    "except-never-holds": lambda c: c.falls,
    "body-of-get": lambda c: not c.falls and c.request.method in ("GET", "HEAD"),
    "unusual-method": lambda c: c.request.method == "GET",
    "covered": lambda c: c.falls and not c.decides and same(c.decision, c.without),
    "covered-by-alike": lambda c: c.falls and same(c.decision, c.without),
    "allow-only-adds": lambda c: c.falls and c.decision.effect == "hold",
    "risky-without-hold": lambda c: (
        c.decision.effect == "allow" and c.decides and c.request.method in RISKY
    ),
    "host-not-policed": lambda c: (
        c.decision.effect == "allow"
        and _named(c) in c.decision.credentials
        and c.request.method in RISKY
    ),
    "host-without-rule": _carries_not,
    "credential-unused": _carries_not,
    "credentials-clash": lambda c: c.decision.effect == "deny" and len(c.decision.rules) > 1,
    "credentials-together": lambda c: c.falls and len(c.decision.credentials) > 1,
    "wildcard-beside-host": lambda c: (
        c.decision.effect == "allow" and c.decision.rules == (c.finding.rule,)
    ),
    "hold-avoidable": _past_the_hold,
    "comparison-avoidable": _past_the_hold,
    "opaque-condition": lambda c: c.falls is ("the example falls under it" in c.finding.message),
    "limit-never-fits": lambda c: any(
        demand.limit.place is not None and demand.amount > demand.limit.most
        for demand in c.decision.limits
    ),
    "limit-never-reached": lambda c: len(c.decision.limits) > 1,
    "unknown-agent": lambda c: c.decides,
    "unknown-tag": lambda c: c.decides,
    "unknown-user": lambda c: bool(c.decision.rules),
    "user-may-not-approve": lambda c: c.decision.effect == "hold",
    "quorum-lacks-people": lambda c: c.decides and c.decision.effect == "hold",
    "owner-may-approve": lambda c: c.decides and c.decision.effect == "hold",
    "looked-at-in-part": lambda c: c.falls,
    "hold-tells-nobody": lambda c: c.decides and c.decision.effect == "hold",
    "no-effect": lambda c: c.decides,
    "glob-like-regex": lambda c: c.falls,
    "loosened": lambda c: c.decides,
    "shadow": lambda c: bool(c.request.url) and c.finding.rule not in c.decision.rules,
    "wider-than-credential": lambda c: (
        c.decides and not set(c.rule.use) <= set(c.decision.credentials)
    ),
    "quorum-cannot-be-met": lambda c: c.decision.effect == "hold",
}  # fmt: skip
"""What the example of each code shows."""


def confirm(text: str, accounts: Accounts | None = None) -> Report:
    """Checks the policy, and that each finding's example shows what is found."""
    report = check(text, "p.yaml", accounts=accounts)
    policy = read_whole(text)[0]
    for finding in report.findings:
        if finding.severity != "error" or finding.code in SHOWS:
            assert SHOWS[finding.code](Case(policy, finding)), finding
    return report
