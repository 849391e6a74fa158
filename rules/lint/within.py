"""Whether all that falls under one match falls under another. Sound, and far from complete: a yes
is certain, a no means that it does not show.

Hosts, methods' index and paths are compared one by one (`Spot`); the rest, the conditions, as a
whole. Three ways of reading count: both narrowly, both widely, and "exactly", which is for what one
side reads widely and the other narrowly and so takes only conditions that have one reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal, cast

from rules.checks import host_inside
from rules.conditions import checks_of
from rules.lint.contradictions import passes
from rules.model import (
    BodyTest,
    Check,
    GraphQLTest,
    HostPattern,
    Match,
    McpTest,
    RpcTest,
    SourceTest,
    TimeTest,
    ValueTest,
)
from rules.paths import Template, parse_template
from rules.values import glob_holds

Reading = Literal["narrow", "wide", "exact"]

ANYWHERE = parse_template("/**")


@dataclass(frozen=True, slots=True)
class Spot:
    """A match at one of its hosts (None: any), under one of its paths."""

    match: Match
    host: HostPattern | None
    path: Template

    @classmethod
    def all_of(cls, match: Match) -> list[Spot]:
        """All that the match is about, in turn."""
        paths = [parse_template(path) for path in match.paths] or [ANYWHERE]
        return [cls(match, host, path) for host in match.hosts or (None,) for path in paths]

    def only(self) -> Match:
        """The match at this place alone."""
        hosts = () if self.host is None else (self.host,)
        return replace(self.match, hosts=hosts, paths=(self.path.text,))


def spot_within(inner: Spot, outer: Spot, reading: Reading) -> bool:
    """Whether all that falls under the one falls under the other."""
    return (
        _host_within(inner, outer)
        and path_within(inner.path, outer.path, reading)
        and conditions_within(inner.match, outer.match, reading)
    )


def match_within(inner: Match, outer: Match, reading: Reading) -> bool:
    """The same of whole matches."""
    outers = Spot.all_of(outer)
    return all(
        any(spot_within(one, other, reading) for other in outers) for one in Spot.all_of(inner)
    )


def _host_within(inner: Spot, outer: Spot) -> bool:
    if outer.host is None:
        return True
    if inner.host is None:
        return False
    one, other = inner.host, outer.host
    if inner.match.scheme == "http":  # the default port is another; both have the same scheme
        one = HostPattern(one.host, one.wildcard, one.port or 80)
        other = HostPattern(other.host, other.wildcard, other.port or 80)
    return host_inside(one, other)


def path_within(inner: Template, outer: Template, reading: Reading) -> bool:
    """Whether every path under the one is under the other."""
    if reading != "wide" and not _slashes_within(inner, outer):
        return False
    if outer.rest and not outer.segments:
        return True
    if reading == "exact" or not _ends_within(inner, outer):
        return False
    if reading == "narrow":
        return _segments_within(inner, outer, inner.segments, outer.segments)
    return _segments_within(inner, outer, inner.wide_segments, outer.wide_segments)


def _slashes_within(inner: Template, outer: Template) -> bool:
    """Whether encoded slashes that the one takes are taken by the other; none are by one that
    stands for a match without a path."""
    if not inner.slashed:
        return True
    return bool(outer.slashed) and all(
        index in outer.slashed or index >= len(outer.segments) for index in inner.slashed
    )


def _ends_within(inner: Template, outer: Template) -> bool:
    """Whether segments end as the outer one wants it."""
    for index, suffix in outer.suffixes.items():
        mine = inner.segments[index] if index < len(inner.segments) else ""
        end = inner.suffixes.get(index, "") if mine is None else mine[1:]
        if not end.endswith(suffix):
            return False
    return True


def _segments_within(
    inner: Template, outer: Template, one: Sequence[str | None], other: Sequence[str | None]
) -> bool:
    if len(one) < len(other) or (len(one) > len(other) and not outer.rest):
        return False
    if inner.rest and not outer.rest:
        return False
    return all(
        wanted == found or (wanted is None and found != "")
        for found, wanted in zip(one, other, strict=False)
    )


def conditions_within(inner: Match, outer: Match, reading: Reading) -> bool:
    """Whether what holds of the one, host and path aside, holds of the other."""
    if inner.scheme != outer.scheme:
        return False
    if outer.methods and not (inner.methods and inner.methods <= outer.methods):
        return False
    if outer.upgrade is not None and outer.upgrade != inner.upgrade:
        return False
    if not _source_within(inner.source, outer.source):
        return False
    if not _time_within(inner.time, outer.time):
        return False
    if reading == "exact":
        plain = Match(
            methods=outer.methods,
            hosts=outer.hosts,
            paths=outer.paths,
            scheme=outer.scheme,
            upgrade=outer.upgrade,
            source=outer.source,
        )
        return outer == plain
    narrow = reading == "narrow"
    if outer.when not in (None, inner.when) or outer.grpc not in (None, inner.grpc):
        return False
    for mine, its, typed in (
        (inner.query, outer.query, False),
        (inner.headers, outer.headers, False),
        (inner.form, outer.form, False),
        (inner.json, outer.json, True),
    ):
        if its and not _tests_within(mine, its, narrow, typed=typed):
            return False
    if not narrow:
        return (
            outer.body in (None, inner.body)
            and outer.graphql in (None, inner.graphql)
            and outer.jsonrpc in (None, inner.jsonrpc)
            and outer.mcp in (None, inner.mcp)
        )
    return (
        _body_within(inner.body, outer.body)
        and _graphql_within(inner.graphql, outer.graphql)
        and _rpc_within(inner.jsonrpc, outer.jsonrpc)
        and _mcp_within(inner.mcp, outer.mcp)
    )


def _source_within(inner: SourceTest | None, outer: SourceTest | None) -> bool:
    if outer is None or inner == outer:
        return True
    if inner is None or outer.via not in (None, inner.via):
        return False
    if outer.run is not None and inner.run != outer.run and not (outer.run and inner.runs):
        return False
    return _words_within(inner.runs, outer.runs) and _words_within(inner.tags, outer.tags)


def _words_within(inner: Sequence[str], outer: Sequence[str]) -> bool:
    """Whether who is one of `inner` is one of `outer`; none at all restrict nothing."""
    return not outer or (bool(inner) and set(inner) <= set(outer))


def _time_within(inner: TimeTest | None, outer: TimeTest | None) -> bool:
    if outer is None or inner == outer:
        return True
    if inner is None or inner.zone != outer.zone or not inner.days <= outer.days:
        return False
    if inner.begin >= inner.end or outer.begin >= outer.end:
        return False  # over midnight
    return outer.begin <= inner.begin and inner.end <= outer.end


def _tests_within(
    inner: Sequence[ValueTest], outer: Sequence[ValueTest], narrow: bool, *, typed: bool
) -> bool:
    return all(any(_test_within(mine, its, narrow, typed) for mine in inner) for its in outer)


def _test_within(inner: ValueTest, outer: ValueTest, narrow: bool, typed: bool) -> bool:
    """Whether a call that passes the first test passes the second."""
    if inner.name != outer.name or (inner.exists is False) != (outer.exists is False):
        return False
    if inner == outer:
        return True
    if inner.equals is not None and outer.equals is not None:
        return False
    mine, its = checks_of(inner), checks_of(outer)
    if not narrow:
        return inner.exists == outer.exists and bool(its) and set(its) <= set(mine)
    if outer.exists is True and inner.exists is not True and not (typed and mine):
        return False
    return not its or (bool(mine) and all(_check_follows(mine, one, typed) for one in its))


def _check_follows(given: Sequence[Check], wanted: Check, typed: bool) -> bool:
    """Whether each value that passes all of `given` passes `wanted`, read narrowly."""
    if wanted in given:
        return True
    for check in given:
        if check.op == "eq" and passes((wanted,), cast(str, check.value), typed=typed):
            return True
        if check.op == "in" and all(
            passes((wanted,), one, typed=typed) for one in cast(tuple[str, ...], check.value)
        ):
            return True
        if _comparison_follows(check, wanted):
            return True
        one, other = str(check.value), str(wanted.value)
        if check.op == wanted.op == "prefix" and one.startswith(other):
            return True
        if check.op == wanted.op == "suffix" and one.endswith(other):
            return True
    return False


def _comparison_follows(given: Check, wanted: Check) -> bool:
    above, below = ("gt", "gte"), ("lt", "lte")
    if not isinstance(given.value, Decimal) or not isinstance(wanted.value, Decimal):
        return False
    same = given.value == wanted.value
    if given.op in above and wanted.op in above:
        return given.value > wanted.value or (same and (given.op, wanted.op) != ("gte", "gt"))
    if given.op in below and wanted.op in below:
        return given.value < wanted.value or (same and (given.op, wanted.op) != ("lte", "lt"))
    return False


def _body_within(inner: BodyTest | None, outer: BodyTest | None) -> bool:
    if outer is None or inner == outer:
        return True
    if inner is None or not set(outer.size) <= set(inner.size):
        return False
    return not outer.types or _globs_within(inner.types, outer.types)


def _graphql_within(inner: GraphQLTest | None, outer: GraphQLTest | None) -> bool:
    if outer is None or inner == outer:
        return True
    if inner is None:
        return False
    if outer.kinds and not (inner.kinds and inner.kinds <= outer.kinds):
        return False
    return _globs_within(inner.fields, outer.fields)


def _rpc_within(inner: RpcTest | None, outer: RpcTest | None) -> bool:
    if outer is None or inner == outer:
        return True
    return (
        inner is not None
        and _globs_within(inner.methods, outer.methods)
        and _tests_within(inner.params, outer.params, True, typed=True)
    )


def _mcp_within(inner: McpTest | None, outer: McpTest | None) -> bool:
    if outer is None or inner == outer:
        return True
    if inner is None:
        return False
    if (outer.tools or outer.arguments) and not (inner.tools or inner.arguments):
        return False
    return (
        _globs_within(inner.methods, outer.methods)
        and _globs_within(inner.tools, outer.tools)
        and _tests_within(inner.arguments, outer.arguments, True, typed=True)
    )


def _globs_within(inner: Sequence[str], outer: Sequence[str]) -> bool:
    """Whether what is like one of `inner` is like one of `outer`; none at all are like anything."""
    if not outer:
        return True
    # A glob reads another one as text: `*` in it stands for anything, itself included.
    return bool(inner) and all(any(glob_holds(wide, one) for wide in outer) for one in inner)
