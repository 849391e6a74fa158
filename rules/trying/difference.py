"""What two policies make of calls differently, by examples: calls made from the rules that are not
the same in both, each decided by both.

An example is certain, since both rulebooks were asked. That there is none does not prove that
nothing changed: what no generated call comes upon is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from rules.checks import host_inside, matches_overlap
from rules.decide import Rulebook
from rules.limits import Limit
from rules.lint.finding import Example
from rules.lint.within import Spot, path_within
from rules.lint.witness import calls, counted
from rules.model import (
    Check,
    Credential,
    Decision,
    Effect,
    HostPattern,
    Match,
    Op,
    Policy,
    Rule,
    Subject,
    Tier,
    ValueTest,
)
from rules.paths import parse_template
from rules.reading.call import Reading
from rules.request import DEFAULT_PORTS, Request
from rules.words import describe_limit

STAND_IN = "any agent"
"""Stands for the agents with a tag that no account has; the name is nobody's."""
MOST_CALLS = 200_000
"""That are decided; beyond, the rest of the rules is left out, and that is said."""
PER_PLACE = 6
EXAMPLES = 3
MOST_BESIDE = 60
"""Pairs of matches of one rule and another that are tried."""
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_OPPOSITE: Mapping[Op, Op] = {
    "gt": "lte",
    "gte": "lt",
    "lt": "gte",
    "lte": "gt",
    "in": "not_in",
    "not_in": "in",
}
_DAY = 24 * 60


@dataclass(frozen=True, slots=True)
class Side:
    """What one policy says of a call."""

    effect: Effect
    rules: tuple[str, ...]
    risk: str
    tiers: tuple[str, ...]
    credentials: tuple[str, ...]
    limits: tuple[str, ...] = ()
    """What counts, in words."""

    @classmethod
    def of(cls, decision: Decision) -> Side:
        return cls(
            decision.effect,
            decision.rules,
            decision.risk,
            decision.tiers,
            decision.credentials,
            tuple(sorted({_limit(demand.limit) for demand in decision.limits})),
        )


def _limit(limit: Limit) -> str:
    beyond = "" if limit.over == "deny" else ", held beyond it"
    return f"{describe_limit(limit)}{beyond}"


@dataclass(slots=True)
class Difference:
    """Calls of which the two say the same two things."""

    before: Side
    after: Side
    subjects: list[Subject] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """`allow`, `hold`, `deny` or `tunnel` for what is newly so; `otherwise` for a call with the
        same effect, but other people, credentials or limits."""
        return "otherwise" if self.before.effect == self.after.effect else self.after.effect


@dataclass(frozen=True, slots=True)
class Compared:
    """All that was found."""

    differences: tuple[Difference, ...]
    tried: int
    """Calls."""
    changed: tuple[str, ...]
    """Ids of rules that are not the same in both, or stand in one only."""
    whole: bool
    """False: there were too many to try all."""


def compare(
    old: Policy,
    new: Policy,
    agents: Iterable[Subject] = (),
    progress: Callable[[float], None] = lambda _: None,
) -> Compared:
    """What the second policy makes of calls that the first does not. `agents` are those that there
    are; others that rules name have no tags."""
    books = Rulebook(old), Rulebook(new)
    rules = [*_changed(old, new), *_changed(new, old)]
    subjects = _subjects([old, new], agents)
    found: dict[tuple[object, ...], Difference] = {}
    tried = 0
    seen: set[tuple[object, ...]] = set()
    for subject, request in _connections(rules, [old, new], subjects):
        tried += 1
        _take(found, books, subject, request, tunnel=True)
    for number, rule in enumerate(rules):
        progress(number / len(rules))
        if tried > MOST_CALLS:
            break
        for subject in _of_rule(rule, subjects):
            for request in _requests(rule, _beside_it(rule, subject, books)):
                key = (subject, request, request.moment, request.run)
                if key in seen:
                    continue
                seen.add(key)
                tried += 1
                _take(found, books, subject, request, tunnel=False)
        seen.clear()
    return Compared(
        tuple(_merged(found.values())),
        tried,
        tuple(dict.fromkeys(rule.id for rule in rules)),
        tried <= MOST_CALLS,
    )


def _take(
    found: dict[tuple[object, ...], Difference],
    books: tuple[Rulebook, Rulebook],
    subject: Subject,
    request: Request,
    *,
    tunnel: bool,
) -> None:
    if tunnel:
        sides = [Side.of(b.tunnel(subject, request.host, request.port)) for b in books]
    else:
        call = Reading(request, subject)
        sides = [Side.of(book.decide_on(call)) for book in books]
    before, after = sides
    if not _differ(before, after):
        return
    known = found.setdefault((subject, before, after), Difference(before, after, [subject]))
    if len(known.examples) < EXAMPLES and not any(
        _alike(request, example.request) for example in known.examples
    ):
        known.examples.append(Example(subject, request))


def _differ(before: Side, after: Side) -> bool:
    if before.effect != after.effect:
        return True
    if before.effect not in ("allow", "hold"):
        return False
    return replace(before, rules=(), risk="") != replace(after, rules=(), risk="")


def _alike(one: Request, other: Request) -> bool:
    """Whether the second says nothing that the first does not."""
    return (one.method, one.host, one.port, one.path) == (
        other.method,
        other.host,
        other.port,
        other.path,
    )


def _merged(found: Iterable[Difference]) -> Iterator[Difference]:
    """Agents with the same differences and the same calls stand together."""
    together: dict[tuple[object, ...], Difference] = {}
    for each in found:
        calls_ = tuple([example.request for example in each.examples])
        key = (each.before, each.after, calls_)
        if key in together:
            together[key].subjects += each.subjects
        else:
            together[key] = each
    order = {"allow": 0, "tunnel": 1, "otherwise": 2, "hold": 3, "deny": 4}
    yield from sorted(together.values(), key=lambda each: order[each.kind])


# -- which rules


def _changed(one: Policy, other: Policy) -> list[Rule]:
    """Rules of the one that the other does not have to the letter, with all they refer to."""
    there = {rule.id: _meaning(rule, other) for rule in other.rules}
    return [rule for rule in one.rules if there.get(rule.id) != _meaning(rule, one)]


type _Meaning = tuple[Rule, Tier | None, tuple[tuple[str, ...], ...], tuple[Credential, ...]]


def _meaning(rule: Rule, policy: Policy) -> _Meaning:
    tier = policy.tiers.get(rule.tier) if rule.tier else None
    groups = [policy.approvers.get(entry.group, ()) for entry in tier.quorum] if tier else []
    used = [replace(policy.credentials[name], line=0) for name in rule.use]
    return replace(rule, line=0), tier, tuple(groups), tuple(used)


def _subjects(policies: Sequence[Policy], agents: Iterable[Subject]) -> list[Subject]:
    found = {agent.name: agent for agent in agents}
    tags = {tag for agent in found.values() for tag in agent.tags}
    for policy in policies:
        for name in dict.fromkeys(name for rule in policy.rules for name in rule.agents):
            if not name.startswith("tag:"):
                found.setdefault(name, Subject(name))
            elif name[4:] not in tags:
                found.setdefault(name, Subject(STAND_IN, frozenset((name[4:],))))
    return list(found.values())


def _of_rule(rule: Rule, subjects: Sequence[Subject]) -> Iterator[Subject]:
    """Those that the rule is about."""
    for subject in subjects:
        if any(
            name == subject.name or (name.startswith("tag:") and name[4:] in subject.tags)
            for name in rule.agents
        ):
            yield subject


# -- which calls


def _beside_it(
    rule: Rule, subject: Subject, books: tuple[Rulebook, Rulebook]
) -> list[tuple[Match, Match]]:
    """(match of the rule, match of another) that calls of the agent may fall under both: what
    becomes of those hangs on both rules."""
    others = {
        match
        for book in books
        for other in book.rules_for(subject)
        if other.effect in ("allow", "hold") and other is not rule
        for match in other.matches
    }
    found = [(m, o) for m in rule.matches for o in others if o != m and _meet(m, o)]
    return sorted(found, key=repr)[:MOST_BESIDE]


def _meet(one: Match, other: Match) -> bool:
    """Whether some call may fall under both; a match without a host is about any."""
    hosts = one.hosts or other.hosts or (HostPattern("x", False, None),)
    return matches_overlap(
        replace(one, hosts=one.hosts or hosts), replace(other, hosts=other.hosts or hosts)
    )


def _requests(rule: Rule, beside: Sequence[tuple[Match, Match]]) -> Iterator[Request]:
    """Calls in and around the rule's matches, the plainest first; none for a tunnel."""
    if rule.effect == "tunnel":
        return
    for match, other in beside:
        for one, two in ((match, other), (other, match)):
            for place in _within(one, two):
                yield from islice(calls(counted(place, rule.limits)), PER_PLACE)
    for match in rule.matches:
        for spot in Spot.all_of(match):
            here = counted(spot.only(), rule.limits)
            yield from islice(calls(here), PER_PLACE)
            for variant in _variants(here):
                yield from islice(calls(variant), PER_PLACE)
            for hole in rule.excepts:
                for around in (hole, *_variants(hole)):
                    for place in _within(around, here):
                        yield from islice(calls(place), PER_PLACE)


def _connections(
    changed: Sequence[Rule], policies: Sequence[Policy], subjects: Sequence[Subject]
) -> Iterator[tuple[Subject, Request]]:
    """Of all agents with a tunnel: any rule about its host keeps it from being passed on, so that
    one may open or close although the tunnel's rule is the same."""
    tunnels = [rule for policy in policies for rule in policy.rules if rule.effect == "tunnel"]
    if not changed or not tunnels:
        return
    hosts = dict.fromkeys(h for r in (*changed, *tunnels) for m in r.matches for h in m.hosts)
    callers = dict.fromkeys(who for rule in tunnels for who in _of_rule(rule, subjects))
    for subject in callers:
        yield from ((subject, request) for request in map(_connection, hosts))


def _connection(host: HostPattern) -> Request:
    name = f"www.{host.host}" if host.wildcard else host.host
    return Request("CONNECT", "https", name, host.port or DEFAULT_PORTS["https"], "", None, (), b"")


def _variants(match: Match) -> Iterator[Match]:
    """The same match with one thing otherwise, so that calls come beside what it asks for."""
    others = frozenset(_METHODS) - match.methods
    if match.methods and others:
        yield replace(match, methods=others)
    for path in match.paths:
        yield from (replace(match, paths=(other,)) for other in _beside(path))
    for name in ("query", "headers", "form", "json"):
        tests: tuple[ValueTest, ...] = getattr(match, name)
        for index, test in enumerate(tests):
            for opposite in _opposites(test):
                yield _with(match, name, (*tests[:index], *opposite, *tests[index + 1 :]))
    if match.time is not None:
        time = match.time
        yield replace(match, time=replace(time, begin=time.end % _DAY, end=time.begin or _DAY))
    if match.source is not None:
        source = match.source
        yield replace(match, source=replace(source, run=not source.run, runs=(), via=None))
    for name in ("body", "graphql", "jsonrpc", "mcp", "grpc", "time", "source", "upgrade", "when"):
        if getattr(match, name) is not None:
            yield _with(match, name, None)


def _with(match: Match, name: str, value: object) -> Match:
    changes: dict[str, Any] = {name: value}
    return replace(match, **changes)


def _beside(path: str) -> Iterator[str]:
    """Paths next to a template."""
    if path.endswith("/**"):
        yield path.removesuffix("/**") or "/"
        return
    yield f"{path.rstrip('/')}/*"
    above = path.rpartition("/")[0]
    if above:
        yield above
        yield f"{above}/*"


def _opposites(test: ValueTest) -> Iterator[tuple[ValueTest, ...]]:
    """What the test does not want; the empty tuple leaves it out."""
    yield ()
    if test.exists is False:
        yield (ValueTest(test.name, exists=True),)
        return
    yield (ValueTest(test.name, exists=False),)
    if test.equals is not None:
        yield (ValueTest(test.name, checks=(Check("not_in", (test.equals,)),)),)
    for check in test.checks:
        opposite = _OPPOSITE.get(check.op)
        if check.op == "eq" and not isinstance(check.value, tuple):
            yield (ValueTest(test.name, checks=(Check("not_in", (check.value,)),)),)
        elif opposite is not None:
            yield (ValueTest(test.name, checks=(Check(opposite, check.value),)),)


def _within(hole: Match, match: Match) -> Iterator[Match]:
    """The hole where it says nothing, as the match; both conditions of values."""
    for spot in Spot.all_of(hole):
        inner = spot.only()
        yield replace(
            inner,
            methods=(inner.methods & match.methods) or inner.methods or match.methods,
            hosts=_narrower(inner.hosts, match.hosts, host_inside),
            paths=_narrower(inner.paths if hole.paths else (), match.paths, _path_inside),
            scheme=match.scheme,
            query=(*match.query, *inner.query),
            headers=(*match.headers, *inner.headers),
            form=(*match.form, *inner.form),
            json=(*match.json, *inner.json),
            graphql=inner.graphql or match.graphql,
            mcp=inner.mcp or match.mcp,
            jsonrpc=inner.jsonrpc or match.jsonrpc,
            body=inner.body or match.body,
            grpc=inner.grpc or match.grpc,
            time=inner.time or match.time,
            source=inner.source or match.source,
            upgrade=match.upgrade if inner.upgrade is None else inner.upgrade,
        )


def _narrower[T](
    inner: tuple[T, ...], outer: tuple[T, ...], is_inside: Callable[[T, T], bool]
) -> tuple[T, ...]:
    """What of the one or the other lies in both, as far as is easily told; an empty one does not
    restrict."""
    found = [each for each in outer if not inner or any(is_inside(each, i) for i in inner)]
    return tuple(found) or inner


def _path_inside(inner: str, outer: str) -> bool:
    return path_within(parse_template(inner), parse_template(outer), "narrow")
