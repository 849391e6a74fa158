"""What concerns several parts of a policy at once: names that lead nowhere, quorums that nobody
can meet, credentials that would leave for a foreign host or meet in one slot.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from rules.describe import describe_host
from rules.limits import sums_body
from rules.model import ANYONE, LOW, Credential, HostPattern, Match, Policy, Rule, Tier
from rules.paths import Template, parse_template
from rules.request import DEFAULT_PORTS
from rules.source import Section
from rules.words import reads_body

_MAX_PAIRS = 500_000
"""How many pairs of rules are compared for slots; what is beyond is left to the decision."""

Placed = Sequence[tuple[Section, Rule]]
"""Rules with their places in a file."""


def check_tiers(root: Section, policy: Policy) -> None:
    """Every quorum can be met by the people whom the file names."""
    for name, tier in policy.tiers.items():
        at = Section(root.source, ("tiers", name, "quorum"), f'tier "{name}"')
        known = True
        for index, entry in enumerate(tier.quorum):
            if entry.group != ANYONE and entry.group not in policy.approvers:
                at.at(index, "group").unknown("group", entry.group, (*policy.approvers, ANYONE))
                known = False
        if known and not can_be_met(tier, policy.approvers):
            at.error(
                "the quorum cannot be met: too few different people who are not excluded in "
                + ", ".join(f"{e.group} ({e.count})" for e in tier.quorum if e.group != ANYONE),
                "quorum-cannot-be-met",
            )


def can_be_met(tier: Tier, groups: Mapping[str, Sequence[str]]) -> bool:
    """Whether different people can fill every entry of the quorum, one entry each.

    Those of `any` are not in the file and count as enough. A matching of seats to people, by
    augmenting paths.
    """
    free = [set(groups.get(e.group, ())) - set(tier.exclude) for e in tier.quorum]
    named = [i for i, entry in enumerate(tier.quorum) if entry.group != ANYONE]
    if any(tier.quorum[i].count > len(free[i]) for i in named):
        return False
    seats = [free[i] for i in named for _ in range(tier.quorum[i].count)]
    seat_of: dict[str, int] = {}

    def seated(seat: int, asked: set[str]) -> bool:
        for person in seats[seat] - asked:
            asked.add(person)
            if person not in seat_of or seated(seat_of[person], asked):
                seat_of[person] = seat
                return True
        return False

    return all(seated(seat, set()) for seat in range(len(seats)))


def check_ids(rules: Sequence[tuple[Section, object]]) -> None:
    """No id twice; over the plain values, so that a broken rule's id counts too."""
    first: dict[str, Section] = {}
    for at, value in rules:
        found = value.get("id") if isinstance(value, dict) else None
        if isinstance(found, str) and first.setdefault(found, at) is not at:
            line = first[found].at("id").line
            here = Section(at.source, (*at.path, "id"), rule=found)
            here.error(f'rule id "{found}" is taken by line {line}', "duplicate-id")


def check_variables(root: Section, policy: Policy) -> None:
    """Credentials that share a variable share its shape: it has one value at a time."""
    first: dict[str, Credential] = {}
    for name, credential in policy.credentials.items():
        if credential.env is None:
            continue
        other = first.setdefault(credential.env.name, credential)
        if other.env != credential.env:
            at = Section(root.source, ("credentials", name, "env"), f'credential "{name}"')
            at.error(
                f"{credential.env.name} has another shape at the credential {other.name}",
                "variables-clash",
            )


def check_rules(
    policy: Policy, rules: Placed, credentials: Sequence[str], tiers: Sequence[str]
) -> None:
    """Each rule against the tiers and credentials.

    `credentials` and `tiers` are all names that the file has, those with mistakes included.
    """
    for at, rule in rules:
        _check_risk(at, rule, policy, tiers)
        _check_body(at, rule)
        _check_limits(at, rule)
        if rule.effect == "tunnel":
            _check_tunnel(at, rule, list(policy.credentials.values()))
        elif rule.use:
            _check_use(at, rule, policy, credentials)


def _check_risk(at: Section, rule: Rule, policy: Policy, tiers: Sequence[str]) -> None:
    if rule.tier is not None:
        if rule.tier == LOW:
            at.at("risk").error(
                "low never holds; use effect: allow, or a higher risk", "wrong-risk"
            )
        elif rule.tier not in tiers:
            at.at("risk").unknown("tier", rule.tier, (LOW, *tiers))
        elif rule.confirm and policy.tiers[rule.tier].confirm != "retype":
            at.at("confirm").warn(
                f"the tier {rule.tier} does not ask for retyping, so confirm has no effect",
                "no-effect",
            )
        return
    if rule.effect == "allow" and rule.risk not in (None, LOW):
        at.at("risk").error(
            f"an allow runs by itself; use effect: hold with risk: {rule.risk}", "wrong-risk"
        )
    elif rule.effect != "allow" and rule.risk is not None:
        at.at("risk").warn(f"effect: {rule.effect} has no use for a risk", "no-effect")
    if rule.confirm is not None:
        at.at("confirm").warn(
            f"effect: {rule.effect} asks nobody, so confirm has no effect", "no-effect"
        )


def _check_body(at: Section, rule: Rule) -> None:
    """What streams is decided by its head and never read."""
    if not rule.stream:
        if rule.body_limit is not None:
            at.at("body_limit").error(
                "body_limit is for body: stream; the setting limits others", "stream-is-read"
            )
        return
    if rule.effect != "allow":
        at.at("body").error(
            f"effect: {rule.effect} cannot stream; only an allow can be sent unread",
            "stream-is-read",
        )
    elif reads_body(rule):
        at.at("summary").error(
            "a streamed body is not read; leave json: and form: places out", "stream-is-read"
        )


def _check_limits(at: Section, rule: Rule) -> None:
    here = at.at("limit")
    if rule.limits and rule.effect not in ("allow", "hold"):
        here.error(
            f"effect: {rule.effect} lets nothing be counted; limit an allow or a hold",
            "limit-without-calls",
        )
    if rule.stream and sums_body(rule.limits):
        here.error(
            "a streamed body is not read; sum up a query: or header: place, or count calls",
            "stream-is-read",
        )


def _check_tunnel(at: Section, rule: Rule, credentials: Sequence[Credential]) -> None:
    code = "tunnel-looks-inside"
    if rule.use:
        at.at("use").error("a tunnel is not opened, so no credential can be put in", code)
    if rule.excepts:
        at.at("except").error("a tunnel matches hosts only; leave except out", code)
    for match in rule.matches:
        if not match.hosts:
            at.at("match").error("a tunnel needs the hosts it leads to", code)
        if match != Match(hosts=match.hosts):
            at.at("match").error(
                "a tunnel matches hosts only, since nothing inside it is read; leave the rest out",
                code,
            )
        for host in match.hosts:
            for credential in credentials:
                # Ports do not count here: a host with a credential is never tunnelled.
                if any(hosts_overlap(host, other) for other in credential.hosts):
                    at.at("match").error(
                        f"{describe_host(host)} is a host of the credential {credential.name}, "
                        "and such hosts are never tunnelled",
                        "tunnel-to-credential",
                    )


def _check_use(at: Section, rule: Rule, policy: Policy, known: Sequence[str]) -> None:
    here = at.at("use")
    slots: dict[str, str] = {}
    for name in rule.use:
        if name not in known:
            here.unknown("credential", name, known)
        credential = policy.credentials.get(name)
        if credential is None:
            continue
        slot = credential.inject.header
        if slots.setdefault(slot, name) != name:
            here.error(f"{slots[slot]} and {name} both go into the header {slot}", "slots-clash")
        for match in rule.matches:
            for host in match.hosts:
                if not any(host_inside(host, own) for own in credential.hosts):
                    hosts = ", ".join(describe_host(own) for own in credential.hosts)
                    here.error(
                        f"{name} may go to {hosts} only, not to {describe_host(host)}",
                        "wider-than-credential",
                    )
    for match in rule.matches:
        if match.scheme == "http":
            at.at("match").error(
                "a credential travels over https only; leave scheme: http out",
                "credential-over-http",
            )
        if not match.hosts:
            at.at("match").error("a rule with a credential needs a host", "wider-than-credential")


def host_inside(inner: HostPattern, outer: HostPattern) -> bool:
    """Whether every https host and port of `inner` falls under `outer`."""
    if _port(inner) != _port(outer):
        return False
    if not outer.wildcard:
        return inner.host == outer.host and not inner.wildcard
    if inner.wildcard and inner.host == outer.host:
        return True
    return inner.host.endswith("." + outer.host)


def hosts_overlap(one: HostPattern, other: HostPattern) -> bool:
    """Whether some host name falls under both, whatever the port."""
    if one.host == other.host:
        return one.wildcard == other.wildcard
    return (other.wildcard and one.host.endswith("." + other.host)) or (
        one.wildcard and other.host.endswith("." + one.host)
    )


def _port(pattern: HostPattern) -> int:
    return DEFAULT_PORTS["https"] if pattern.port is None else pattern.port


def check_slots(policy: Policy, rules: Placed) -> None:
    """No two rules put different credentials into one header of the same call.

    Reported where it is certain from the file. Rules with `except:` or conditions on values, and
    agents that meet through a tag only, are left to the decision, which then denies.
    """
    told: set[tuple[int, int]] = set()
    for (i, one), (j, other), agent in _meeting(rules):
        pair = (min(i, j), max(i, j))
        clash = None if pair in told else _clash(one, other, policy)
        if clash is None:
            continue
        told.add(pair)
        early = one if i < j else other
        slot, first, second = clash if i < j else (clash[0], clash[2], clash[1])
        rules[pair[1]][0].at("use").error(
            f"{second} goes into the header {slot} of calls by {agent}, where rule "
            f'"{early.id}" (line {early.line}) puts {first}; part them with except:',
            "slots-clash",
        )


def _meeting(rules: Placed) -> Iterator[tuple[tuple[int, Rule], tuple[int, Rule], str]]:
    """Pairs of rules with credentials whose agents and host names meet, up to a bound."""
    certain = [
        (index, rule)
        for index, (_, rule) in enumerate(rules)
        if rule.use and not rule.excepts and not any(m.query or m.headers for m in rule.matches)
    ]
    buckets: defaultdict[tuple[str, str], list[tuple[int, Rule]]] = defaultdict(list)
    for index, rule in certain:
        for key in _keys(rule):
            buckets[key].append((index, rule))
    pairs = 0
    for index, rule in certain:
        for agent, host in _keys(rule):
            for covering in _covering(host):
                for other in buckets.get((agent, covering), ()):
                    if other[0] == index or other[1].use == rule.use:
                        continue
                    pairs += 1
                    if pairs > _MAX_PAIRS:
                        return
                    yield (index, rule), other, agent


def _keys(rule: Rule) -> set[tuple[str, str]]:
    hosts = {
        ("*." if host.wildcard else "") + host.host
        for match in rule.matches
        for host in match.hosts
    }
    return {(agent, host) for agent in rule.agents for host in hosts}


def _covering(host: str) -> Iterator[str]:
    """The host itself and every wildcard above it."""
    yield host
    labels = host.removeprefix("*.").split(".")
    for cut in range(1, len(labels)):
        yield "*." + ".".join(labels[cut:])


def _clash(one: Rule, other: Rule, policy: Policy) -> tuple[str, str, str] | None:
    """A slot and the two different credentials that would meet in it."""
    slots = {policy.credentials[n].inject.header: n for n in one.use if n in policy.credentials}
    for name in other.use:
        if name in policy.credentials and name not in one.use:
            slot = policy.credentials[name].inject.header
            if slot in slots and any(
                matches_overlap(a, b) for a in one.matches for b in other.matches
            ):
                return slot, slots[slot], name
    return None


def matches_overlap(one: Match, other: Match) -> bool:
    """Whether some call falls under both, conditions on values aside."""
    return (
        one.scheme == other.scheme
        and (not one.methods or not other.methods or bool(one.methods & other.methods))
        and any(
            _port(a) == _port(b) and hosts_overlap(a, b) for a in one.hosts for b in other.hosts
        )
        and (
            not one.paths
            or not other.paths
            or any(
                paths_overlap(parse_template(a), parse_template(b))
                for a in one.paths
                for b in other.paths
            )
        )
    )


def paths_overlap(one: Template, other: Template) -> bool:
    """Whether some path falls under both, by the letter."""
    shorter, longer = sorted((one, other), key=lambda t: len(t.segments))
    if len(shorter.segments) != len(longer.segments) and not shorter.rest:
        return False
    if not ends_agree(one, other):
        return False
    return all(
        a == b or (a is None and b != "") or (b is None and a != "")
        for a, b in zip(shorter.segments, longer.segments, strict=False)
    )


def ends_agree(one: Template, other: Template) -> bool:
    """Whether a segment can end as both of them want it."""
    for mine, its in ((one, other), (other, one)):
        for index, suffix in mine.suffixes.items():
            if index >= len(its.segments):
                continue
            literal, end = its.segments[index], its.suffixes.get(index, "")
            if literal is None:
                agrees = end.endswith(suffix) or suffix.endswith(end)
            else:
                agrees = literal.endswith(suffix) and literal != suffix
            if not agrees:
                return False
    return True
