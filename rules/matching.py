"""Whether a call falls under a rule, in two readings of one match.

Rules that permit read narrowly: what is in doubt does not match. Rules that restrict read widely:
letter case, a value among several, a second spelling, what could be read in two ways all match.
What matches narrowly always matches widely.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from rules.bodies import Body, Field, Member, Operations, RpcCalls, ToolCalls
from rules.conditions import (
    Condition,
    GrpcMethod,
    Header,
    Methods,
    Parameter,
    Paths,
    Scheme,
    Source,
    Upgrade,
    Window,
)
from rules.errors import Undecided, Unreadable
from rules.hosts import pattern_matches
from rules.model import HostPattern, Match, Rule
from rules.paths import ENCODED_SLASH, parse_template
from rules.reading.call import Reading
from rules.request import DEFAULT_PORTS

_PLAIN = ("/**",)


@dataclass(frozen=True, slots=True)
class Matcher:
    """A `Match` made ready for matching; hosts are left to the rulebook's index."""

    match: Match
    conditions: tuple[Condition, ...]
    needs_body: bool
    """Whether the head alone cannot tell."""

    @classmethod
    def of(cls, match: Match) -> Matcher:
        conditions = tuple(_conditions(match))
        return cls(match, conditions, any(condition.needs_body for condition in conditions))

    @classmethod
    def all_of(cls, rule: Rule) -> tuple[tuple[Matcher, ...], tuple[Matcher, ...]]:
        """The rule's matches, and its exceptions."""
        excepts = tuple([cls.of(match) for match in rule.excepts])
        if is_wide(rule):
            return tuple([cls.of(match) for match in rule.matches]), excepts
        # Where encoded slashes may be, what permits has to say; without a path it does not.
        plain = [replace(match, paths=match.paths or _PLAIN) for match in rule.matches]
        return tuple(
            [replace(cls.of(p), match=match) for p, match in zip(plain, rule.matches, strict=True)]
        ), excepts

    def holds(self, call: Reading, *, wide: bool) -> bool:
        """Whether all but the host is as the match wants it."""
        return all_hold(self.conditions, call, wide=wide)

    @property
    def besides_index(self) -> tuple[Condition, ...]:
        """The conditions that are left when scheme and method are known to be right."""
        return tuple([c for c in self.conditions if not isinstance(c, Scheme | Methods)])

    def holds_at_host(self, call: Reading, *, wide: bool) -> bool:
        """The same with the host."""
        return self.is_at_host(call) and self.holds(call, wide=wide)

    def is_at_host(self, call: Reading) -> bool:
        """Whether the host is one of the match's."""
        request = call.request
        hosts = self.match.hosts
        return not hosts or any(
            host_holds(host, request.host, request.port, request.scheme) for host in hosts
        )

    def may_read_body(self, call: Reading) -> bool:
        """Whether it takes the body to tell about this call: it has conditions on that, and the
        head does not rule the match out already."""
        if not self.needs_body or not self.is_at_host(call):
            return False
        of_head = [condition for condition in self.conditions if not condition.needs_body]
        return all_hold(of_head, call, wide=True)

    def doubt(self, call: Reading) -> str | None:
        """Why the request is written so that nobody can tell whether it matches; None if it is
        not."""
        reason = None
        for condition in self.conditions:
            try:
                if not condition.holds(call, wide=False):
                    return None
            except Undecided:
                return None
            except Unreadable as error:
                reason = reason or str(error)
        # However it is read, what does not hold widely does not hold.
        return reason if reason is None or self.holds(call, wide=True) else None


def all_hold(conditions: Iterable[Condition], call: Reading, *, wide: bool) -> bool:
    """Whether every condition holds; what is in doubt does if `wide`."""
    for condition in conditions:
        try:
            if not condition.holds(call, wide=wide):
                return False
        except Unreadable:
            if not wide:
                return False
    return True


def _conditions(match: Match) -> Iterator[Condition]:
    """What the match asks for besides its hosts, cheapest first."""
    yield Scheme(match.scheme)
    if match.methods:
        yield Methods(match.methods)
    if match.paths:
        yield Paths.of(match.paths)
    if match.upgrade is not None:
        yield Upgrade(match.upgrade)
    if match.source is not None:
        yield Source(match.source)
    if match.time is not None:
        yield Window.of(match.time)
    if match.grpc is not None:
        yield GrpcMethod(match.grpc)
    yield from map(Header, match.headers)
    yield from map(Parameter, match.query)
    if match.body is not None:
        yield Body(match.body)
    yield from map(Field, match.form)
    yield from map(Member, match.json)
    if match.graphql is not None:
        yield Operations(match.graphql)
    if match.jsonrpc is not None:
        yield RpcCalls(match.jsonrpc)
    if match.mcp is not None:
        yield ToolCalls(match.mcp)
    if match.when is not None:
        # Loaded where a policy asks for it: CEL's library takes 10 MiB in each process.
        from rules.expressions import Expression

        yield Expression.of(match.when)


def takes_path(rules: Iterable[Rule], path: str) -> bool:
    """Whether one of the rules says that the encoded slashes of the path, if any, may be where they
    are: what lets a call go, asked or not, has to say so, and a wide reading says nothing."""
    return ENCODED_SLASH not in path or any(
        parse_template(text).matches(path)
        for rule in rules
        if rule.effect in ("allow", "hold")
        for match in rule.matches
        for text in match.paths
    )


def host_holds(pattern: HostPattern, host: str, port: int, scheme: str) -> bool:
    """Whether host and port fall under the pattern, for a request of that scheme."""
    return pattern_matches(pattern, host, port, DEFAULT_PORTS[scheme])


def is_wide(rule: Rule) -> bool:
    """Whether the rule restricts, and therefore reads widely; what it excepts then reads narrowly.

    A hold restricts: beside it there may be a broader allow, which must not be reached by a
    spelling that the upstream takes for the same.
    """
    return rule.effect in ("deny", "hold")
