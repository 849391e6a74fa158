"""What the policy asks of people and agents, against who there is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rules.checks import can_be_met
from rules.lint.finding import Example, Finding
from rules.lint.view import Accounts, View
from rules.model import ANYONE, OWNER, Policy, Quorum, Rule, Subject, Tier
from rules.yamlfile import Lines, did_you_mean


def people(view: View, lines: Lines) -> Iterator[Finding]:
    """Of agents, groups and tiers, against the accounts; nothing where these are not known."""
    if view.accounts is None:
        return
    yield from _agents(view, view.accounts)
    asked = list(_asked(view))
    yield from _named(view, view.accounts, asked, lines)
    yield from _tiers(view, view.accounts, asked, lines)


def _agents(view: View, accounts: Accounts) -> Iterator[Finding]:
    names = {agent.name for agent in accounts.agents}
    tags = {tag for agent in accounts.agents for tag in agent.tags}
    rules: dict[str, list[Rule]] = {}
    for rule in view.policy.rules:
        for selector in rule.agents:
            rules.setdefault(selector, []).append(rule)
    for selector, those in rules.items():
        tag = selector.removeprefix("tag:")
        if tag in tags if tag != selector else selector in names:
            continue
        rule, example = _first_call(view, those, view.subject(selector))
        if tag != selector:
            message = (
                f"no agent has the tag {tag}{did_you_mean(tag, tags)}, so it is about nobody: "
                f"`keybroker agent add NAME --tag {tag}` makes one"
            )
            yield view.finding("unknown-tag", "warning", rule, message, example)
        else:
            message = (
                f"there is no agent {selector} yet{did_you_mean(selector, names)}, so nobody can "
                f"make such a call: `keybroker agent add {selector}` makes it"
            )
            yield view.finding("unknown-agent", "warning", rule, message, example)


def _first_call(view: View, rules: Sequence[Rule], subject: Subject) -> tuple[Rule, Example | None]:
    """The first of the rules that decides some call, with that; the first may never match."""
    for rule in rules:
        example = _call(view, rule, subject)
        if example is not None:
            return rule, example
    return rules[0], None


def _call(view: View, rule: Rule, subject: Subject) -> Example | None:
    """A call that the rule decides."""
    for match in rule.matches:
        found = view.find(match, subject, lambda decision, _: rule.id in decision.rules, rule)
        if found is not None:
            return found
    return None


def _named(
    view: View, accounts: Accounts, asked: Sequence[_Asked], lines: Lines
) -> Iterator[Finding]:
    """People in groups and in `exclude` who have no account, or may not approve."""
    for group, members in view.policy.approvers.items():
        asking = [one for one in asked if any(q.group == group for q in one.tier.quorum)]
        example = asking[0].example if asking else _any_call(view)
        unused = "" if asking else "; no hold asks the group so far, the example neither"
        for index, person in enumerate(members):
            line = lines.at(("approvers", group, index))
            if person not in accounts.people:
                hint = did_you_mean(person, accounts.people)
                message = (
                    f'group "{group}": there is no user {person} yet{hint}, so their vote cannot '
                    f"come: `keybroker user add {person} --role approver`{unused}"
                )
                yield view.finding("unknown-user", "warning", None, message, example, line)
            elif person not in accounts.approvers:
                message = (
                    f'group "{group}": {person} may not approve (disabled, or a viewer), so the '
                    f"group is one smaller: `keybroker user role {person} approver`{unused}"
                )
                yield view.finding("user-may-not-approve", "warning", None, message, example, line)
    for name, tier in view.policy.tiers.items():
        asking = [one for one in asked if one.tier.name == name]
        unused = "" if asking else "; no hold is of the tier so far, the example neither"
        for index, person in enumerate(tier.exclude):
            if person not in (OWNER, ANYONE) and person not in accounts.people:
                hint = did_you_mean(person, accounts.people)
                message = (
                    f'tier "{name}": there is no user {person} yet{hint}, so it excludes nobody: '
                    f"`keybroker user add {person} --role approver`{unused}"
                )
                line = lines.at(("tiers", name, "exclude", index))
                example = asking[0].example if asking else _any_call(view)
                yield view.finding("unknown-user", "warning", None, message, example, line)


def _any_call(view: View) -> Example | None:
    for rule in view.policy.rules:
        found = _call(view, rule, view.subject(rule.agents[0]))
        if found is not None:
            return found
    return None


@dataclass(frozen=True, slots=True)
class _Asked:
    """A rule that asks people of a tier about an agent's calls."""

    tier: Tier
    rule: Rule
    subject: Subject
    example: Example | None


def _asked(view: View) -> Iterable[_Asked]:
    """Every tier with each owner whose agents it is asked for, once; by a rule that has a call."""
    told: dict[tuple[str, str | None], _Asked] = {}
    for rule in view.policy.rules:
        tier = view.policy.tiers.get(rule.tier or "")
        if tier is None:
            continue
        for selector in rule.agents:
            for subject in _subjects(view, selector):
                key = tier.name, subject.owner
                if key not in told or told[key].example is None:
                    found = _Asked(tier, rule, subject, _call(view, rule, subject))
                    if key not in told or found.example is not None:
                        told[key] = found
    return told.values()


def _subjects(view: View, selector: str) -> list[Subject]:
    agents = view.accounts.agents if view.accounts is not None else ()
    tag = selector.removeprefix("tag:") if selector.startswith("tag:") else None
    found = [agent for agent in agents if agent.name == selector or tag in agent.tags]
    return found or [view.subject(selector)]


def _tiers(
    view: View, accounts: Accounts, everywhere: Sequence[_Asked], lines: Lines
) -> Iterator[Finding]:
    for asked in everywhere:
        tier, rule, owner = asked.tier, asked.rule, asked.subject.owner
        line = lines.at(("tiers", tier.name)) if _is_written(view.policy, tier) else rule.line
        may = voters(tier, view.policy, accounts, owner)
        agent = asked.subject.name
        if not accounts.approvers:
            message = (
                "it holds, and there is nobody to tell: no user may approve, so every call waits "
                "until it is denied; `keybroker user add NAME --role approver` makes one"
            )
            yield view.finding("hold-tells-nobody", "warning", rule, message, asked.example)
        elif not may:
            because = f" (its owner {owner} may not)" if owner and OWNER in tier.exclude else ""
            message = (
                f'tier "{tier.name}": nobody of those who may vote on calls of {agent} has an '
                f"account that may approve{because}, so every call waits until it is denied"
            )
            yield _of_tier(view, "quorum-lacks-people", message, asked, line)
        elif not met(tier, view.policy, accounts, owner):
            because = f", of which {owner} is none as the owner" if _is_out(tier, owner) else ""
            message = (
                f'tier "{tier.name}": its quorum cannot be met for calls of {agent}: too few of '
                f"the people with accounts may vote{because}; every call waits until it is denied"
            )
            yield _of_tier(view, "quorum-lacks-people", message, asked, line)
        if owner is not None and owner in may:
            message = (
                f'tier "{tier.name}": {owner} owns {agent} and may approve its calls, so whoever '
                "steers the agent can wave it through; add `exclude: [owner]`"
            )
            yield _of_tier(view, "owner-may-approve", message, asked, line)


def _of_tier(view: View, code: str, message: str, asked: _Asked, line: int) -> Finding:
    return Finding(code, "warning", asked.rule.id, view.file, line, message, asked.example)


def _is_written(policy: Policy, tier: Tier) -> bool:
    from rules.schema import BUILT_IN

    return BUILT_IN.get(tier.name) != tier


def _is_out(tier: Tier, owner: str | None) -> bool:
    return owner is not None and OWNER in tier.exclude


def _out(tier: Tier, owner: str | None) -> set[str]:
    """Who may not vote."""
    out = set(tier.exclude) - {OWNER}
    if owner is not None and OWNER in tier.exclude:
        out.add(owner)
    return out


def voters(tier: Tier, policy: Policy, accounts: Accounts, owner: str | None) -> set[str]:
    """The people whose vote can count in the tier for calls of that owner's agents."""
    may = accounts.approvers - _out(tier, owner)
    groups = {entry.group for entry in tier.quorum}
    if ANYONE in groups:
        return set(may)
    return {person for group in groups for person in policy.approvers.get(group, ())} & may


def met(tier: Tier, policy: Policy, accounts: Accounts, owner: str | None) -> bool:
    """Whether the people with accounts can fill the quorum."""
    may = accounts.approvers - _out(tier, owner)
    groups = {name: tuple(set(people) & may) for name, people in policy.approvers.items()}
    groups[_EVERYONE] = tuple(may)
    quorum = tuple(
        Quorum(_EVERYONE, entry.count) if entry.group == ANYONE else entry for entry in tier.quorum
    )
    named = Tier(
        tier.name, quorum, (), tier.decide_within, tier.execute_within, tier.denials, tier.reason,
        tier.confirm,
    )  # fmt: skip
    return can_be_met(named, groups)


_EVERYONE = "\0everyone"
"""No group of a policy can be called so."""
