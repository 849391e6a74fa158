"""Credentials and the rules that use them: what none can reach, what goes out unwatched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rules.checks import host_inside, hosts_overlap
from rules.describe import describe_host
from rules.lint.finding import Example, Finding
from rules.lint.guards import RISKY, says_what_it_means
from rules.lint.meeting import meet
from rules.lint.view import View
from rules.lint.within import Spot
from rules.model import Credential, HostPattern, Match, Rule, Subject

_PAIRS_PER_RULE = 20


def credentials(view: View) -> Iterator[Finding]:
    """Of all credentials, and of pairs of rules that use different ones."""
    users: dict[str, list[Rule]] = {name: [] for name in view.policy.credentials}
    for rule in view.policy.rules:
        for name in rule.use:
            if name in users and rule.effect in ("allow", "hold"):
                users[name].append(rule)
    for credential in view.policy.credentials.values():
        yield from _of_credential(view, credential, users[credential.name])
    yield from _clashes(view)


def _of_credential(view: View, credential: Credential, users: list[Rule]) -> Iterator[Finding]:
    if not users:
        message = (
            f'credential "{credential.name}": no rule uses it, so it is put into no call; what '
            "nobody needs should not lie ready"
        )
        example = _without(view, credential, credential.hosts[0])
        yield view.finding("credential-unused", "warning", None, message, example, credential.line)
        return
    for host in credential.hosts:
        near = [rule for rule in users if _names(rule, host)]
        at = describe_host(host)
        if not near:
            message = (
                f'credential "{credential.name}": it may go to {at}, where no rule uses it; a host '
                "that is not needed is one more that it can be taken to"
            )
            example = _without(view, credential, host)
            if example is not None:
                yield view.finding(
                    "host-without-rule", "warning", None, message, example, credential.line
                )
            continue
        example = _unwatched(view, credential, host, near)
        if example is not None:
            method = example.request.method
            message = (
                f'credential "{credential.name}": {example.subject.name} may send it to {at} with '
                f"{method}, and no hold or deny of that agent is about risky calls there: what the "
                "agent is talked into runs with nobody asked"
            )
            yield view.finding(
                "host-not-policed", "warning", None, message, example, credential.line
            )


def _names(rule: Rule, host: HostPattern) -> bool:
    return any(
        _port(one) == _port(host) and (hosts_overlap(one, host))
        for match in rule.matches
        for one in match.hosts
    )


def _port(host: HostPattern) -> int:
    return host.port or 443


def _without(view: View, credential: Credential, host: HostPattern) -> Example | None:
    """A call to the host, into which the credential is not put."""
    subjects = view.subjects or (Subject("example-agent"),)
    return view.find(
        Match(hosts=(host,)),
        subjects[0],
        lambda decision, _: credential.name not in decision.credentials,
    )


def _unwatched(
    view: View, credential: Credential, host: HostPattern, users: list[Rule]
) -> Example | None:
    """A call with a risky method that carries the credential, of an agent for which no hold or
    deny is about such calls to the host."""
    for rule in users:
        if rule.effect != "allow":
            continue
        for match in rule.matches:
            if match.upgrade or says_what_it_means(match):
                continue
            methods = [m for m in RISKY if not match.methods or m in match.methods]
            hosts = tuple(h for h in match.hosts if host_inside(h, host))
            if not methods or not hosts:
                continue
            for selector in rule.agents:
                subject = view.subject(selector, match)
                if any(_is_watched(view, subject, match, one) for one in hosts):
                    continue
                found = view.find(
                    replace(match, methods=frozenset(methods), hosts=hosts),
                    subject,
                    lambda decision, request: (
                        decision.effect == "allow"
                        and credential.name in decision.credentials
                        and request.method in RISKY
                    ),
                    rule,
                    runs=True,
                )
                if found is not None:
                    return found
    return None


def _is_watched(view: View, subject: Subject, match: Match, host: HostPattern) -> bool:
    """Whether some hold or deny is about risky calls of the agent to the host."""
    spot = Spot.all_of(Match(hosts=(host,), scheme=match.scheme))[0]
    return any(
        placed.rule.effect in ("hold", "deny")
        and (not placed.spot.match.methods or bool(placed.spot.match.methods & set(RISKY)))
        for placed in view.meeting(subject, spot)
    )


def _clashes(view: View) -> Iterator[Finding]:
    """Rules whose credentials meet in one call: in one header, which denies it, or both go out."""
    told: set[tuple[str, str]] = set()
    for order, rule in enumerate(view.policy.rules):
        if not rule.use or rule.effect == "deny":
            continue
        tried, together = 0, False
        for match in rule.matches:
            for spot in Spot.all_of(match):
                for selector in rule.agents:
                    subject = view.subject(selector, match)
                    for placed in view.meeting(subject, spot):
                        other = placed.rule
                        if (
                            placed.order >= order
                            or not other.use
                            or set(other.use) == set(rule.use)
                            or (other.id, rule.id) in told
                        ):
                            continue
                        if tried > _PAIRS_PER_RULE:
                            view.cut_short(rule)
                            break
                        tried += 1
                        if together and not _want_one_slot(view, rule, other):
                            continue  # of those that go together the first is enough
                        both = meet(spot.only(), placed.spot.only())
                        if both is None:
                            continue
                        finding = _clash(view, rule, other, both, subject)
                        if finding is not None:
                            together = together or finding.code == "credentials-together"
                            told.add((other.id, rule.id))
                            yield finding


def _want_one_slot(view: View, rule: Rule, other: Rule) -> bool:
    """Whether two credentials of theirs go into one header."""
    known = view.policy.credentials
    slots = {known[name].inject.header for name in rule.use}
    return any(known[name].inject.header in slots for name in set(other.use) - set(rule.use))


def _clash(view: View, rule: Rule, other: Rule, both: Match, subject: Subject) -> Finding | None:
    where = f'rule "{other.id}" (line {other.line})'
    if _want_one_slot(view, rule, other):
        example = view.find(
            both,
            subject,
            lambda decision, _: (
                decision.effect == "deny" and {rule.id, other.id} <= set(decision.rules)
            ),
            rule,
            other,
        )
        if example is not None:
            message = (
                f"its credential and that of {where} want to go into one header of the same call, "
                "which is therefore denied"
            )
            return view.finding("credentials-clash", "warning", rule, message, example)
        return None
    wanted = set(rule.use) | set(other.use)
    example = view.find(
        both, subject, lambda decision, _: wanted <= set(decision.credentials), rule, other
    )
    if example is None:
        return None
    message = (
        f"calls that fall under it and under {where}, to name one, carry the credentials of both: "
        f"{', '.join(sorted(wanted))}"
    )
    return view.finding("credentials-together", "note", rule, message, example)
