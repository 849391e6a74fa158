"""The whole of `policy check`: what the loader says, and what the linter finds beside it.

A policy that loads is looked at whole. One that is refused is not linted, since what is missing
from it would make findings that are none; its errors get examples where what was read gives them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rules.errors import InvalidFile, Problem
from rules.include import Sources
from rules.lint.covered import covered
from rules.lint.credentials import credentials
from rules.lint.finding import SEVERITIES, Example, Finding
from rules.lint.guards import guards
from rules.lint.measures import measures
from rules.lint.never import never
from rules.lint.people import people
from rules.lint.view import Accounts, View
from rules.lint.within import Spot
from rules.load import read_whole
from rules.model import Policy
from rules.source import Source
from rules.yamlfile import Lines


@dataclass(frozen=True, slots=True)
class Report:
    """What there is to say of a policy."""

    findings: tuple[Finding, ...]
    rules: int
    """How many there are, packs' included."""

    @property
    def valid(self) -> bool:
        """Whether it would be taken."""
        return not any(finding.severity == "error" for finding in self.findings)


def check(
    text: str,
    file: str = "policy.yaml",
    sources: Sources | None = None,
    accounts: Accounts | None = None,
) -> Report:
    """Reads and lints a policy. `accounts` is who there is, where that is known."""
    try:
        policy, source = read_whole(text, file, sources)
    except InvalidFile as invalid:
        return Report(_sorted([Finding.of(problem) for problem in invalid.problems]), 0)
    problems = [*source.errors(), *source.warnings()]
    view = View(policy, file, accounts)
    refused = any(problem.severity == "error" for problem in problems)
    told = [Finding.of(problem, _example(view, problem)) for problem in problems]
    found = [] if refused else [_with_origin(f, source) for f in lint(view, source.lines)]
    return Report(_sorted([*told, *found]), len(policy.rules))


def lint(view: View, lines: Lines) -> Iterator[Finding]:
    """What is odd about a policy that loads."""
    yield from never(view)
    yield from covered(view)
    yield from guards(view)
    yield from credentials(view)
    yield from measures(view)
    yield from people(view, lines)
    yield from _in_part(view)


def _in_part(view: View) -> Iterator[Finding]:
    """What was not looked at, once for all rules."""
    for rule in view.in_part.values():
        for match in rule.matches:
            subject = view.subject(rule.agents[0], match)
            example = view.find(match, subject, lambda _, __: True, rule)
            if example is not None:
                more = len(view.in_part) - 1
                beside = f", as do {more} other rules," if more else ""
                message = (
                    f"it{beside} shares calls with more rules than are compared; what is wrong "
                    "between it and the others is not found"
                )
                yield view.finding("looked-at-in-part", "note", rule, message, example)
                return


def _with_origin(finding: Finding, source: Source) -> Finding:
    """The finding with the place of an included rule: its own line is that of the include or the
    override, which is what the user of a pack can mend."""
    origin = source.origins.get(finding.rule)
    return finding if origin is None else replace(finding, message=f"{finding.message} ({origin})")


def lint_policy(
    policy: Policy, file: str = "policy.yaml", accounts: Accounts | None = None
) -> tuple[Finding, ...]:
    """The same of a policy as values, whose lines are those of its rules."""
    return _sorted(list(lint(View(policy, file, accounts), Lines())))


def _sorted(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(
        sorted(findings, key=lambda f: (f.file, f.line, SEVERITIES.index(f.severity), f.code))
    )


def _example(view: View, problem: Problem) -> Example | None:
    """A call of the rule that the loader speaks of, or one that would wait for the tier."""
    if problem.code == "quorum-cannot-be-met":
        return _waiting(view, problem.message)
    written = (*view.policy.rules, *view.policy.shadows)
    rule = next((rule for rule in written if rule.id == problem.rule), None)
    if rule is None or rule.effect == "tunnel":
        return None
    for match in rule.matches:
        subject = view.subject(rule.agents[0], match)
        for spot in Spot.all_of(match):
            found = view.find(
                spot.only(),
                subject,
                lambda decision, _: (
                    rule.shadow
                    or (
                        rule.id in decision.rules
                        and (
                            problem.code != "wider-than-credential"
                            or not set(rule.use) <= set(decision.credentials)
                        )
                    )
                ),
            )
            if found is not None:
                return found
    return None


def _waiting(view: View, message: str) -> Example | None:
    """A call that asks the people of the tier that the message begins with."""
    for rule in view.policy.rules:
        tier = rule.tier or ""
        if rule.effect == "hold" and message.startswith(f'tier "{tier}"'):
            for match in rule.matches:
                subject = view.subject(rule.agents[0], match)
                found = view.find(match, subject, lambda decision, _: decision.effect == "hold")
                if found is not None:
                    return found
    return None
