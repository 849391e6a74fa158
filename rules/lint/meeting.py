"""What falls under two matches at once, as a match of its own: a guess to look for examples with.

Not sound: what comes out is believed only once the rulebook has confirmed a call of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rules.checks import ends_agree, host_inside
from rules.model import BodyTest, HostPattern, Match, SourceTest
from rules.paths import Template, parse_template
from rules.request import DEFAULT_PORTS


def meet(one: Match, other: Match) -> Match | None:
    """Both at once; None if they part by scheme, method, host or path."""
    if one.scheme != other.scheme:
        return None
    methods = one.methods & other.methods if one.methods and other.methods else None
    if methods is not None and not methods:
        return None
    hosts = _hosts(one, other)
    paths = _paths(one.paths, other.paths)
    if hosts is None or paths is None:
        return None
    return Match(
        methods=one.methods | other.methods if methods is None else methods,
        hosts=hosts,
        paths=paths,
        scheme=one.scheme,
        query=one.query + other.query,
        headers=one.headers + other.headers,
        json=one.json + other.json,
        form=one.form + other.form,
        body=_bodies(one.body, other.body),
        graphql=one.graphql or other.graphql,
        jsonrpc=one.jsonrpc or other.jsonrpc,
        mcp=one.mcp or other.mcp,
        grpc=one.grpc or other.grpc,
        upgrade=one.upgrade if other.upgrade is None else other.upgrade,
        time=one.time or other.time,
        source=_sources(one.source, other.source),
        when=one.when or other.when,
    )


def without_body(match: Match) -> Match:
    """The same, whatever the body."""
    return replace(
        match, json=(), form=(), body=None, graphql=None, jsonrpc=None, mcp=None, grpc=None
    )


def _sources(one: SourceTest | None, other: SourceTest | None) -> SourceTest | None:
    if one is None or other is None:
        return one or other
    runs = tuple([run for run in one.runs if run in other.runs or not other.runs])
    tags = tuple([tag for tag in one.tags if tag in other.tags or not other.tags])
    return SourceTest(
        one.via or other.via,
        one.run if other.run is None else other.run,
        runs or other.runs,
        tags or other.tags,
    )


def _hosts(one: Match, other: Match) -> tuple[HostPattern, ...] | None:
    if not one.hosts or not other.hosts:
        return one.hosts or other.hosts
    found = []
    for a in _with_port(one):
        for b in _with_port(other):
            if host_inside(a, b):
                found.append(a)
            elif host_inside(b, a):
                found.append(b)
    return tuple(dict.fromkeys(found)) or None


def _with_port(match: Match) -> list[HostPattern]:
    port = DEFAULT_PORTS[match.scheme]
    return [HostPattern(h.host, h.wildcard, h.port or port) for h in match.hosts]


def _paths(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...] | None:
    if not one or not other:
        return tuple(one or other)
    found = [
        path
        for a in map(parse_template, one)
        for b in map(parse_template, other)
        if (path := meet_paths(a, b)) is not None
    ]
    return tuple(dict.fromkeys(found)) or None


def meet_paths(one: Template, other: Template) -> str | None:
    """The template of what falls under both, by the letter; None if nothing does."""
    if not ends_agree(one, other):
        return None
    short, long = sorted((one, other), key=lambda t: (len(t.segments), not t.rest))
    if len(short.segments) < len(long.segments) and not short.rest:
        return None
    segments: list[str] = []
    for index, mine in enumerate(long.segments):
        its = short.segments[index] if index < len(short.segments) else mine
        if mine is not None and its is not None and mine != its:
            return None
        known = mine if mine is not None else its
        if known == "" and (mine is None or its is None):
            return None
        suffix = max(long.suffixes.get(index, ""), short.suffixes.get(index, ""), key=len)
        any_one = f"{{any{index}}}{suffix}" if suffix else "*"
        segments.append(any_one if known is None else known)
    if long.rest and (short.rest or len(short.segments) > len(long.segments)):
        segments.append("**")
    elif long.rest and len(short.segments) < len(long.segments):
        return None
    return "/" + "/".join(segments)


def _bodies(one: BodyTest | None, other: BodyTest | None) -> BodyTest | None:
    if one is None or other is None:
        return one or other
    return BodyTest(one.types or other.types, one.size + other.size)
