"""What the program does with a policy beside deciding: explain a call, run cases, warn of missing
accounts.

Explaining takes the very path of a call (canonical form, then decision), and sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from broker.model import Agent, User
from rules.decide import Rulebook
from rules.errors import Ambiguous, Problem
from rules.explain import explain
from rules.lint.view import Accounts
from rules.model import ANYONE, OWNER, Policy, Subject
from rules.trial.cases import Case, Tried, try_case
from rules.trial.outcome import Outcome
from rules.trial.requests import Written
from rules.yamlfile import did_you_mean

if TYPE_CHECKING:
    from keybroker.compose import Services

_NOTHING: dict[str, Any] = {
    "matched": [],
    "near": [],
    "credentials": [],
    "tiers": [],
    "limits": [],
    "summaries": [],
    "shadow": None,
}
"""Of a request that no rule gets to see."""


def subject_of(name: str, agents: Iterable[Agent]) -> Subject:
    """The agent as rules see it; one without an account yet has no tags and no owner."""
    return subjects(agents).get(name) or Subject(name)


def subjects(agents: Iterable[Agent]) -> dict[str, Subject]:
    """Agents as rules see them, by name."""
    return {agent.name: agent.subject for agent in agents}


def explain_call(policy: Policy, subject: Subject, written: Written) -> dict[str, Any]:
    """Effect, risk, code, rules and sentence, as the proxy would decide, and what led there."""
    try:
        request = written.request()
    except Ambiguous as error:
        return {**Outcome.refused(error).to_json(), **_NOTHING}
    return explain(Rulebook(policy), subject, request).to_json()


def try_cases(policy: Policy, agents: Sequence[Agent], cases: Iterable[Case]) -> list[Tried]:
    """Each case and what comes of it."""
    rulebook, known = Rulebook(policy), subjects(agents)
    return [
        try_case(case, rulebook, lambda name: known.get(name) or Subject(name)) for case in cases
    ]


def accounts_in(services: Services) -> Accounts:
    """Who there is, as the linter asks: agents that may call, people who may log in or approve."""
    now = datetime.now(UTC)
    agents = [
        agent.subject
        for agent in services.agents.list()
        if agent.revoked_at is None and (agent.expires_at is None or agent.expires_at > now)
    ]
    users = services.people.list()
    return Accounts(
        tuple(agents),
        frozenset(user.name for user in users),
        frozenset(
            user.name
            for user in users
            if user.disabled_at is None and user.role in ("approver", "admin")
        ),
    )


def account_warnings(
    policy: Policy, agents: Sequence[Agent], people: Sequence[User], file: str
) -> tuple[Problem, ...]:
    """A warning for each agent or person that the policy names and nobody has added yet."""
    known_agents = {agent.name for agent in agents}
    known_people = {user.name for user in people}
    found: dict[str, Problem] = {}

    def warn(line: int, sentence: str) -> None:
        found.setdefault(sentence, Problem(file, line, sentence, "warning"))

    for rule in policy.rules:
        for name in rule.agents:
            if not name.startswith("tag:") and name not in known_agents:
                warn(
                    rule.line,
                    f"there is no agent {name} yet{did_you_mean(name, known_agents)}: "
                    f"`keybroker agent add {name}` makes it",
                )
    named = {person for members in policy.approvers.values() for person in members}
    for tier in policy.tiers.values():
        named |= set(tier.exclude) - {OWNER, ANYONE}
    for person in sorted(named - known_people):
        warn(
            0,
            f"there is no user {person} yet{did_you_mean(person, known_people)}: "
            f"`keybroker user add {person} --role approver`",
        )
    return tuple(sorted(found.values()))
