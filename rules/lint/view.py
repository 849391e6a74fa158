"""A policy as the linter looks at it: its rules by place, who they are for, and the rulebook that
has the last word on every example.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from rules.bodies import Body as Whole
from rules.bodies import Field, Member, Operations, RpcCalls
from rules.decide import Rulebook
from rules.describe import describe_host
from rules.lint.finding import Example, Finding, Severity
from rules.lint.paths import PathIndex
from rules.lint.verdicts import Verdicts
from rules.lint.within import Spot
from rules.lint.witness import Body, calls, counted
from rules.lint.words import Word, listed, tests_of, under
from rules.matching import Matcher, all_hold, is_wide
from rules.model import (
    Decision,
    HostPattern,
    Match,
    Policy,
    Rule,
    Subject,
)
from rules.reading.call import Reading
from rules.request import Request

STAND_IN = "example-agent"
"""The name of an agent with a tag that no account has."""
_MOST_DECIDED = 6
"""Calls that are decided in search of one example; deciding is what takes time."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """Who there is in the workspace."""

    agents: tuple[Subject, ...] = ()
    """Those that may call."""
    people: frozenset[str] = frozenset()
    """All that may log in."""
    approvers: frozenset[str] = frozenset()
    """Those of them who may approve."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A rule at one of its places."""

    order: int
    rule: Rule
    spot: Spot
    asks: frozenset[tuple[str, str]]
    """The kinds and names of all places in a call that it looks at."""
    holes: tuple[int, ...]
    """What it excepts: numbers, the same for the same matches."""


@dataclass
class View:
    """One policy; what it says of places and subjects is worked out once."""

    policy: Policy
    file: str
    accounts: Accounts | None = None
    """None: not known."""
    book: Rulebook = field(init=False)
    verdicts: Verdicts = field(init=False)
    in_part: dict[str, Rule] = field(init=False, default_factory=dict)
    """Rules that were not compared with all others."""
    _matchers: dict[str, list[list[Matcher]]] = field(init=False, default_factory=dict)
    _numbers: dict[Match, int] = field(init=False, default_factory=dict)
    _holes: dict[str, tuple[int, ...]] = field(init=False, default_factory=dict)
    _takes: dict[tuple[str, Body], bool] = field(init=False, default_factory=dict)
    _bodies: dict[Body, Reading] = field(init=False, default_factory=dict)
    _kinds: dict[Subject, tuple[object, ...]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.book = Rulebook(self.policy)
        self.verdicts = Verdicts(self.book)

    def cut_short(self, rule: Rule) -> None:
        """Notes that the rule shares calls with more rules than were looked at."""
        self.in_part.setdefault(rule.id, rule)

    def finding(
        self,
        code: str,
        severity: Severity,
        rule: Rule | None,
        message: str,
        example: Example | None,
        line: int | None = None,
    ) -> Finding:
        """A finding about a rule, or about what stands in `line`."""
        at = line if line is not None else rule.line if rule is not None else 0
        if rule is not None:
            message = f'rule "{rule.id}": {message}'
        return Finding(code, severity, rule.id if rule else "", self.file, at, message, example)

    # -- who calls

    def subject(self, selector: str, match: Match | None = None) -> Subject:
        """An agent that the selector names, with the tags that the match asks for if need be."""
        tag = selector.removeprefix("tag:") if selector.startswith("tag:") else None
        for agent in self.accounts.agents if self.accounts is not None else ():
            if agent.name == selector or tag in agent.tags:
                return agent
        tags = {tag} if tag is not None else set()
        source = match.source if match is not None else None
        if source is not None and source.tags:
            tags.add(source.tags[0])
        return Subject(STAND_IN if tag is not None else selector, frozenset(tags))

    def callers(self, rule: Rule, match: Match) -> Iterator[tuple[str, Subject]]:
        """The rule's selectors, each with an agent: of those that fare alike whatever they call
        the first alone."""
        seen: set[tuple[object, ...]] = set()
        for selector in rule.agents:
            subject = self.subject(selector, match)
            kind = self._kind(subject)
            if kind not in seen:
                seen.add(kind)
                yield selector, subject

    def _kind(self, subject: Subject) -> tuple[object, ...]:
        """What tells the subject apart for the rules: which these are, and what they may look
        at."""
        kind = self._kinds.get(subject)
        if kind is None:
            rules = self.book.rules_for(subject)
            sees = any(m.when is not None for r in rules for m in (*r.matches, *r.excepts))
            kind = tuple([r.id for r in rules]), subject.tags, subject.name if sees else ""
            self._kinds[subject] = kind
        return kind

    @cached_property
    def subjects(self) -> tuple[Subject, ...]:
        """One for every set of rules that some agent has."""
        selectors = dict.fromkeys(name for rule in self.policy.rules for name in rule.agents)
        found = {
            tuple(rule.id for rule in self.book.rules_for(subject)): subject
            for subject in map(self.subject, selectors)
        }
        for agent in self.accounts.agents if self.accounts is not None else ():
            found.setdefault(tuple(rule.id for rule in self.book.rules_for(agent)), agent)
        found.pop((), None)
        return tuple(found.values())

    # -- what there is in a place

    @cached_property
    def places(self) -> dict[tuple[str, str], PathIndex[Placed]]:
        """Rules about calls by selector and host: a name, `*.suffix`, or empty for any."""
        found: defaultdict[tuple[str, str], PathIndex[Placed]] = defaultdict(PathIndex)
        for selector, placed in self._all_placed():
            found[selector, host_key(placed.spot.host)].add(placed.spot.path, placed)
        return dict(found)

    @cached_property
    def _by_word(self) -> dict[tuple[str, str, Word | None], PathIndex[Placed]]:
        """The same, parted by words of which every narrower match has one."""
        found: defaultdict[tuple[str, str, Word | None], PathIndex[Placed]]
        found = defaultdict(PathIndex)
        for selector, placed in self._all_placed():
            for word in listed(placed.spot.match) or (None,):
                found[selector, host_key(placed.spot.host), word].add(placed.spot.path, placed)
        return dict(found)

    def _all_placed(self) -> Iterator[tuple[str, Placed]]:
        for order, rule in enumerate(self.policy.rules):
            if rule.effect == "tunnel":
                continue
            for match in rule.matches:
                asks, holes = _asks(match), self.holes_of(rule)
                for spot in Spot.all_of(match):
                    placed = Placed(order, rule, spot, asks, holes)
                    for selector in rule.agents:
                        yield selector, placed

    def holes_of(self, rule: Rule) -> tuple[int, ...]:
        """What the rule excepts, as numbers: the same for the same matches."""
        if rule.id not in self._holes:
            numbers = [self._numbers.setdefault(m, len(self._numbers)) for m in rule.excepts]
            self._holes[rule.id] = tuple(numbers)
        return self._holes[rule.id]

    @cached_property
    def _below(self) -> dict[tuple[str, str], list[str]]:
        """The exact and wildcard hosts below each wildcard."""
        found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for selector, key in self.places:
            for above in keys_above(key)[1:]:
                found[selector, above].append(key)
        return dict(found)

    def around(self, selector: str, spot: Spot) -> Iterator[Placed]:
        """The rules whose place, by selector, host name and path, takes in the whole spot; without
        those that look at something which this one does not."""
        asks = _asks(spot.match)
        for key in keys_above(host_key(spot.host)):
            for word in (None, *under(spot.match)):
                index = self._by_word.get((selector, key, word))
                if index is not None:
                    yield from (p for p in index.around(spot.path) if p.asks <= asks)

    def meeting(self, subject: Subject, spot: Spot, *, one_host: bool = False) -> Iterator[Placed]:
        """The rules of the subject whose place may have calls in common with the spot; `one_host`:
        those alone that are about a host, and not about all below a wildcard."""
        key = host_key(spot.host)
        for selector in selectors_of(subject):
            if key == "":
                keys = [host for name, host in self.places if name == selector]
            else:
                keys = keys_above(key) + self._below.get((selector, key), [])
            for one in keys:
                if one_host and (not one or one.startswith("*.")):
                    continue
                index = self.places.get((selector, one))
                if index is not None:
                    yield from index.meeting(spot.path)

    # -- examples

    def find(
        self,
        match: Match,
        subject: Subject,
        shows: Callable[[Decision, Request], bool],
        *under: Rule,
        body: Body | None = None,
        runs: bool = False,
    ) -> Example | None:
        """A call under the match, and under each of the rules, whose decision shows what is
        claimed; None if none is found among the first few. `runs`: only a call that is allowed
        can show it."""
        tried = 0
        match = counted(match, [limit for rule in under for limit in rule.limits])
        for request in calls(match, body):
            if body is not None and request.body != body.content:
                continue  # GraphQL by GET has none
            call = Reading(request, subject)
            if not all(self.falls(rule, call) for rule in under):
                continue
            decision = self.verdicts.if_it_runs(call) if runs else self.verdicts.decide(call)
            if decision is not None and shows(decision, request):
                return Example(subject, request)
            tried += 1
            if tried == _MOST_DECIDED:
                break
        return None

    def may_take(self, rule: Rule, body: Body) -> bool:
        """Whether some call with the body may fall under an allow, as far as the body tells."""
        key = rule.id, body
        if key not in self._takes:
            call = self._with_body(body)
            self._takes[key] = any(_may_take(m, call) for m in self._of(rule)[0])
        return self._takes[key]

    def _with_body(self, body: Body) -> Reading:
        """Some call with the body, which is read once for all rules."""
        if body not in self._bodies:
            headers = (("content-type", body.kind),)
            request = Request("POST", "https", "x", 443, "/", None, headers, body.content)
            self._bodies[body] = Reading(request)
        return self._bodies[body]

    def _of(self, rule: Rule) -> list[list[Matcher]]:
        known = self._matchers.get(rule.id)
        if known is None:
            known = [[Matcher.of(m) for m in ms] for ms in (rule.matches, rule.excepts)]
            self._matchers[rule.id] = known
        return known

    def falls(self, rule: Rule, call: Reading) -> bool:
        """Whether the call falls under a rule of the policy by its conditions, agents aside."""
        known = self._of(rule)
        wide = is_wide(rule)
        return any(m.holds_at_host(call, wide=wide) for m in known[0]) and not any(
            m.holds_at_host(call, wide=not wide) for m in known[1]
        )

    def alone(self, rule: Rule) -> Rulebook:
        """The policy with this rule only."""
        return Rulebook(replace(self.policy, rules=(rule,)))


def _may_take(matcher: Matcher, call: Reading) -> bool:
    """Whether the body of the call is no reason why the matcher would not hold narrowly."""
    if any(test.name.startswith("content-") for test in matcher.match.headers):
        return True  # which makes another body of it
    read = Whole | Field | Member | Operations | RpcCalls
    of_body = [condition for condition in matcher.conditions if isinstance(condition, read)]
    return all_hold(of_body, call, wide=False)


def selectors_of(subject: Subject) -> list[str]:
    """What rules may call the subject by."""
    return [subject.name, *(f"tag:{tag}" for tag in sorted(subject.tags))]


def _asks(match: Match) -> frozenset[tuple[str, str]]:
    found = [(kind, test.name) for kind, test in tests_of(match)]
    found += [("when", match.when)] if match.when is not None else []
    found += [("body", "graphql")] if match.graphql is not None else []
    if match.mcp is not None:
        found += [("body", "mcp"), *(("argument", test.name) for test in match.mcp.arguments)]
    if match.jsonrpc is not None:
        found += [("body", "jsonrpc"), *(("param", test.name) for test in match.jsonrpc.params)]
    return frozenset(found)


def host_key(host: HostPattern | None) -> str:
    """A host without its port; empty for any."""
    if host is None:
        return ""
    return describe_host(HostPattern(host.host, host.wildcard, None))


def keys_above(key: str) -> list[str]:
    """The host itself, every wildcard above it, and any host."""
    if not key:
        return [""]
    labels = key.removeprefix("*.").split(".")
    return [key, *("*." + ".".join(labels[cut:]) for cut in range(1, len(labels))), ""]
