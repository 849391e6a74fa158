"""The rules of a policy by agent, host and method, so that a call is compared with few of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter

from rules.conditions import Condition
from rules.matching import Matcher, all_hold, is_wide
from rules.model import HostPattern, Policy, Rule, Subject
from rules.paths import parse_template, wide_texts
from rules.reading.call import Reading
from rules.request import DEFAULT_PORTS

_MOST_PLANNED = 200_000
"""Candidates that are remembered, of all places that agents call."""
_BY_ORDER = attrgetter("order")
_FEW = 4
"""Candidates that are as quickly looked through as looked up."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A rule under one of its hosts, which the index's key stands for."""

    order: int
    rule: Rule
    scheme: str
    port: int | None
    """The only port it is about; None: every port, of a match without a host."""
    matcher: Matcher
    excepts: tuple[Matcher, ...]
    wide: bool
    """Whether the rule reads widely."""
    prefixes: tuple[str, ...]
    """One of them begins every path that matches, as the rule reads it."""
    beginnings: frozenset[str]
    """The same of one of the path's `wide_texts`; each ends where a segment does."""
    conditions: tuple[Condition, ...]
    """What is left to look at besides the index's keys, scheme and port."""

    @classmethod
    def of(
        cls,
        order: int,
        rule: Rule,
        host: HostPattern | None,
        matcher: Matcher,
        excepts: tuple[Matcher, ...],
    ) -> Entry:
        scheme, wide = matcher.match.scheme, is_wide(rule)
        templates = [parse_template(path) for path in matcher.match.paths]
        prefixes = [t.wide_prefix if wide else t.literal_prefix for t in templates]
        return cls(
            order,
            rule,
            scheme,
            None if host is None else host.port or DEFAULT_PORTS[scheme],
            matcher,
            excepts,
            wide,
            tuple(prefixes) or ("/",),
            frozenset([t.wide_prefix for t in templates] or ["/"]),
            matcher.besides_index,
        )

    def doubt(self, call: Reading) -> str | None:
        """Why it cannot be told whether the call falls under the rule; None if it can."""
        doubt = self.matcher.doubt(call)
        if doubt is not None or not self.matcher.holds(call, wide=False):
            return doubt
        doubts = [h.doubt(call) for h in self.excepts if h.is_at_host(call)]
        return next((doubt for doubt in doubts if doubt is not None), None)

    def covers(self, call: Reading) -> bool:
        """Whether the call is one of the rule's, its port and limits aside."""
        return (
            self.scheme == call.request.scheme
            and all_hold(self.conditions, call, wide=self.wide)
            and not (self.excepts and self._spares(call))
        )

    def _spares(self, call: Reading) -> bool:
        return any(hole.holds_at_host(call, wide=not self.wide) for hole in self.excepts)

    def may_cover(self, path: str, port: int) -> bool:
        """Whether there can be such calls to the port and path, as far as is quickly told."""
        if self.port not in (None, port):
            return False
        if not self.wide:
            return path.startswith(self.prefixes)
        return any(text.startswith(self.prefixes) for text in wide_texts(path))


class Plan:
    """An agent's candidates for calls to one host with one method, by where their paths begin."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        """In file order."""
        self._known: dict[str, list[Entry]] = {}
        if len(entries) > _FEW:
            for entry in entries:
                for beginning in entry.beginnings:
                    self._known.setdefault(beginning, []).append(entry)
        self._longest = max(map(len, self._known), default=0)

    def at(self, path: str) -> Sequence[Entry]:
        """Those that may be about the path, in file order; some of them twice."""
        known = self._known
        if not known:
            return self.entries
        found = list(known.get("/", ()))
        for text in wide_texts(path):
            at = text.find("/", 1)
            while 0 < at <= self._longest:
                if (beginning := text[:at]) in known:
                    found += known[beginning]
                at = text.find("/", at + 1)
            if at < 0 and text != "/" and text in known:
                found += known[text]
        if len(found) > 1:
            found.sort(key=_BY_ORDER)
        return found


class Index:
    """Immutable but for what it remembers; safe for many threads."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._entries: defaultdict[tuple[str, str], list[Entry]] = defaultdict(list)
        self._calls: defaultdict[tuple[str, str, str], list[Entry]] = defaultdict(list)
        """By method too, "" for any; without tunnels, which are not about calls."""
        self._plans: dict[tuple[Subject, str, str], Plan] = {}
        self._planned = 0
        self._rules: defaultdict[str, list[int]] = defaultdict(list)
        self._hosts: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for order, rule in enumerate(policy.rules):
            self._add(order, rule)

    def _add(self, order: int, rule: Rule) -> None:
        matchers, excepts = Matcher.all_of(rule)
        for agent in rule.agents:
            self._rules[agent].append(order)
        for matcher in matchers:
            match = matcher.match
            for host in match.hosts or (None,):
                entry = Entry.of(order, rule, host, matcher, excepts)
                for agent in rule.agents:
                    self._entries[agent, host_key(host)].append(entry)
                    if rule.effect != "tunnel":
                        for method in match.methods or ("",):
                            self._calls[agent, host_key(host), method].append(entry)
                    if host is not None and rule.effect in ("allow", "hold"):
                        self._hosts[agent][host_key(host)] = None

    def rules_for(self, subject: Subject) -> tuple[Rule, ...]:
        """The rules that name the agent or one of its tags, in file order."""
        orders = {order for name in names_of(subject) for order in self._rules.get(name, ())}
        return tuple(self._policy.rules[order] for order in sorted(orders))

    def hosts_of(self, subject: Subject) -> list[str]:
        """The hosts that rules let the subject call, as the index has them."""
        return [host for name in names_of(subject) for host in self._hosts.get(name, ())]

    def candidates(self, subject: Subject, host: str, method: str | None = None) -> Iterator[Entry]:
        """The subject's entries under this host name, whatever the port; with `method` those that
        a call with it may match."""
        keys = host_keys(host)
        for name in names_of(subject):
            for key in keys:
                if method is None:
                    yield from self._entries.get((name, key), ())
                else:
                    yield from self._calls.get((name, key, method), ())
                    yield from self._calls.get((name, key, ""), ())

    def plan(self, subject: Subject, host: str, method: str) -> Plan:
        """The candidates for a call; agents mostly call the same few places."""
        key = subject, host, method
        plan = self._plans.get(key)
        if plan is None:
            plan = Plan(sorted(self.candidates(subject, host, method), key=_BY_ORDER))
            self._planned += 1 + len(plan.entries)
            if self._planned > _MOST_PLANNED:
                self._plans, self._planned = {}, len(plan.entries)
            self._plans[key] = plan
        return plan


def names_of(subject: Subject) -> list[str]:
    """What rules may call the subject by; a name that looks like a tag is none."""
    tags = [f"tag:{tag}" for tag in subject.tags]
    return tags if subject.name.startswith("tag:") else [subject.name, *tags]


def host_key(host: HostPattern | None) -> str:
    if host is None:
        return ""
    return f"*.{host.host}" if host.wildcard else host.host


@lru_cache(4096)
def host_keys(host: str) -> list[str]:
    """Every index key that a host name may stand under."""
    labels = host.split(".")
    wildcards = ["*." + ".".join(labels[cut:]) for cut in range(1, len(labels))]
    return [host, *wildcards, ""]
