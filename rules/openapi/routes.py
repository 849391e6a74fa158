"""The templates of a description's paths, so that each call falls under one of them.

Operations that the policy's templates cannot tell apart are given one class, the strictest. Calls
that two operations share go to the one that is a special case of the other; where servers might
choose either, to the stricter. All is decided in the wide reading of rules.paths, which holds see
with; a call that only resembles a held one (`/users/ME`) is held for both, so the stricter counts.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import count
from urllib.parse import quote

from rules.openapi.document import Operation, Unfit
from rules.openapi.lexicon import ORDER, Risk
from rules.paths import Template, parse_template

MAX_STEPS = 5_000_000
"""Of comparing paths; who needs more wrote the file to be compared."""
_MAX_CIRCLES = 100
"""Mended one by one; a description with more gets one class for all that overlaps."""
_MAX_TEXT = 500
"""Characters of a path in a rule (rules.source)."""
_SAFE = "!$&'()+,=:@~"
"""What stands in a path by itself, besides letters, digits and `-._`; see rules.paths."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WHOLE = re.compile(r"\{\+?([^{}]*?)([+*]?)\}")
_BEGUN = re.compile(r"\{([^{}]*)\}([:.][\w.:~-]*[\w~-])", re.ASCII)
"""A parameter that its segment goes on after, as the policy's templates can say it too."""
_BRACES = re.compile(r"\{[^{}]*\}")


@dataclass(slots=True)
class Route:
    """Operations of one method that one template covers, at one host."""

    method: str
    host: str
    """Another host than the pack's; empty: the pack's."""
    templates: list[Template]
    operations: list[Operation]
    paths: list[str]
    """Of each operation, as the description has it, below its server's base path."""
    risk: Risk = "low"
    wider: list[str] = field(default_factory=list)
    """Paths that the template covers more than, as the description writes them."""
    excepts: list[Route] = field(default_factory=list)
    """What is a rule of its own, or a better fit for some calls."""
    torn: list[Route] = field(default_factory=list)
    """Of `excepts`, what servers may choose instead of this for some calls, and is stricter."""
    raised: list[Route] = field(default_factory=list)
    """Routes whose class it was given, since none of them gives way to all others."""

    @property
    def key(self) -> tuple[tuple[int, int, str], ...]:
        """Orders routes so that of those that match a call the first is the best fit: literal
        segments before parameters, and those that must end in more before others, from the
        left, as routers do."""
        template = self.templates[0]
        suffixes = _suffixes(template)
        key = [
            (0, 0, part) if part is not None else (1, -len(end := suffixes.get(index, "")), end)
            for index, part in enumerate(template.wide_segments)
        ]
        return (*key, (2, 0, "")) if template.rest else tuple(key)


def template_of(path: str, base: str, deep: Iterable[str]) -> tuple[Template, bool]:
    """The template for a described path below a server's base path, and whether it covers more.

    Raises ValueError with a sentence if no call can have such a path.
    """
    whole = base + re.split(r"[?#]", path, maxsplit=1)[0]
    wider = "?" in path or "#" in path
    parts: list[str] = []
    names: set[str] = set()
    segments = whole.split("/")[1:]
    if not whole.startswith("/"):
        raise ValueError(f"the path {path[:100]!a} does not begin with `/`")
    for index, segment in enumerate(segments):
        found = _WHOLE.fullmatch(segment)
        if found:
            name, greedy = found[1], bool(found[2]) or segment.startswith("{+")
            if (greedy or name in deep) and index == len(segments) - 1:
                parts.append("**")
                continue
            name = re.sub(r"[^A-Za-z0-9_]", "_", name)
            plain = _NAME.fullmatch(name) and name not in names
            names.add(name)
            parts.append("{" + name + "}" if plain else "*")
        elif begun := _BEGUN.fullmatch(segment):
            name = re.sub(r"[^A-Za-z0-9_]", "_", begun[1])
            if not _NAME.fullmatch(name) or name in names:
                name = next(n for n in (f"p{i}" for i in count(index)) if n not in names)
            names.add(name)
            parts.append("{" + name + "}" + begun[2])
        elif _BRACES.search(segment) or "*" in segment or "{" in segment or "}" in segment:
            parts.append("*")
            wider = True
        else:
            parts.append(quote(segment, safe=_SAFE + ("%" if _is_encoded(segment) else "")))
    text = "/" + "/".join(parts)
    if len(text) > _MAX_TEXT:
        raise ValueError(f"a path in a rule has at most {_MAX_TEXT} characters")
    return parse_template(text), wider


def _is_encoded(segment: str) -> bool:
    return bool(re.fullmatch(r"(?:[^%]|%[0-9A-Fa-f]{2})*", segment)) and "%" in segment


def arrange(routes: Sequence[Route]) -> list[Route]:
    """The routes, merged where they are alike, with what each leaves to others.

    Raises Unfit for a file whose paths take too long to compare.
    """
    merged: dict[tuple[object, ...], Route] = {}
    for route in routes:
        template = route.templates[0]
        ends = tuple(sorted(_suffixes(template).items()))
        alike = (route.method, route.host, template.wide_segments, ends, template.rest)
        first = merged.setdefault(alike, route)
        if first is not route:
            first.operations += route.operations
            first.paths += route.paths
            first.wider += route.wider
            known = {(t.segments, *t.suffixes.values()) for t in first.templates}
            first.templates += [
                t for t in route.templates if (t.segments, *t.suffixes.values()) not in known
            ]
            first.risk = max(first.risk, route.risk, key=ORDER.__getitem__)
    found = list(merged.values())
    pairs = _overlapping(found)
    _level(pairs)
    for one, other in pairs:
        # Two that are allowed need not be kept apart, and what is taken out of an allow is read
        # widely: a call that only resembles the better one would be left to nobody.
        if (one.risk, other.risk) != ("low", "low"):
            better, worse = _ranked(one, other)
            worse.excepts.append(better)
            if better.risk != worse.risk and not _covers(worse, better):
                worse.torn.append(better)
    for route in found:
        route.excepts = _without_covered(sorted(route.excepts, key=lambda r: r.key))
    return found


def _ranked(one: Route, other: Route) -> tuple[Route, Route]:
    """Which of two takes the calls that fall under both: the special case of the other; else the
    stricter one, since servers differ; else the one that routers would look at first."""
    if _covers(one, other) or _covers(other, one):
        return (other, one) if _covers(one, other) else (one, other)
    if one.risk != other.risk:
        return (one, other) if ORDER[one.risk] > ORDER[other.risk] else (other, one)
    return (one, other) if one.key < other.key else (other, one)


def _level(pairs: Sequence[tuple[Route, Route]]) -> None:
    """Gives one class to routes of which each would leave shared calls to the next, in a circle;
    else a call that falls under all of them would be left to nobody.

    Within one class there is no circle: there the order of `key` alone counts.
    """
    of = {id(route): route for pair in pairs for route in pair}
    for _ in range(_MAX_CIRCLES):
        better: defaultdict[int, list[int]] = defaultdict(list)
        for one, other in pairs:
            winner, loser = _ranked(one, other)
            better[id(loser)].append(id(winner))
        try:
            TopologicalSorter(better).prepare()
        except CycleError as error:
            _make_as_strict([of[found] for found in error.args[1]])
        else:
            return
    _make_as_strict(list(of.values()))


def _make_as_strict(routes: Sequence[Route]) -> None:
    strictest = max(routes, key=lambda route: ORDER[route.risk])
    for route in routes:
        if route.risk != strictest.risk:
            route.risk = strictest.risk
            route.raised.append(strictest)


def _covers(general: Route, special: Route) -> bool:
    """Whether every path of `special` falls under `general`, in the wide reading."""
    one, other = general.templates[0], special.templates[0]
    if len(other.wide_segments) < len(one.wide_segments):
        return False
    if not one.rest and (other.rest or len(other.wide_segments) > len(one.wide_segments)):
        return False
    theirs = _suffixes(other)
    return all(
        a is None or a == b for a, b in zip(one.wide_segments, other.wide_segments, strict=False)
    ) and all(
        (theirs.get(index, "") if (b := other.wide_segments[index]) is None else b).endswith(end)
        for index, end in _suffixes(one).items()
    )


def _suffixes(template: Template) -> dict[int, str]:
    """How segments must end, as the wide reading compares it."""
    return {index: end.lower() for index, end in template.suffixes.items()}


def _can_meet(one: Route, other: Route) -> bool:
    """Whether the ends of their segments let one path fall under both."""
    a, b = one.templates[0], other.templates[0]
    return _lets(a, b) and _lets(b, a)


def _lets(one: Template, other: Template) -> bool:
    theirs, last = _suffixes(other), len(one.segments) - 1
    for index, end in _suffixes(one).items():
        if index >= len(other.wide_segments) or (index == last and end.startswith(".")):
            continue  # a format at the end may be left out
        part = other.wide_segments[index]
        if part is not None:
            if not part.endswith(end):
                return False
        elif not (found := theirs.get(index, "")).endswith(end) and not end.endswith(found):
            return False
    return True


def _covers_to_letter(general: Route, special: Route) -> bool:
    """Whether it does so in either reading."""
    return _covers(general, special) and all(
        any(_holds_all(g, s) for g in general.templates) for s in special.templates
    )


def _holds_all(general: Template, special: Template) -> bool:
    """Whether every path of `special` falls under `general`, to the letter."""
    short, long = len(general.segments), len(special.segments)
    if long < short or (not general.rest and (special.rest or long > short)):
        return False
    return all(
        a == b or (a is None and b != "")
        for a, b in zip(general.segments, special.segments, strict=False)
    ) and all(
        special.suffixes.get(index, "").endswith(end)
        if (part := special.segments[index]) is None
        else part.endswith(end) and part != end
        for index, end in general.suffixes.items()
    )


def _without_covered(routes: list[Route]) -> list[Route]:
    """Those of the routes that no other one among them covers."""
    if len(routes) > 200:  # not worth the time: what is excepted twice is excepted all the same
        return routes
    return [
        route
        for route in routes
        if not any(other is not route and _covers_to_letter(other, route) for other in routes)
    ]


type Segments = tuple[str | None, ...]


class _Node:
    """What begins alike: a trie of segments."""

    __slots__ = ("any", "ends", "literal", "rests")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.any: _Node | None = None
        self.ends: list[int] = []
        self.rests: list[int] = []


def _overlapping(routes: Sequence[Route]) -> list[tuple[Route, Route]]:
    """Every pair of routes, of one method at one host, that some path falls under."""
    groups: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for index, route in enumerate(routes):
        groups[route.method, route.host].append(index)
    steps = 0
    found: set[tuple[int, int]] = set()
    for members in groups.values():
        root = _Node()
        for index in members:
            template = routes[index].templates[0]
            readings = _readings(template.wide_segments)
            for segments in readings:
                here, steps = _meet(root, segments, template.rest, steps)
                found.update((other, index) for other in here)
            for segments in readings:
                _insert(root, segments, template.rest, index)
    pairs = [(routes[one], routes[other]) for one, other in sorted(found)]
    return [pair for pair in pairs if _can_meet(*pair)]


def _readings(segments: Segments) -> list[Segments]:
    """The path, and without a format at its end: `/pets.json` may be another name for `/pets`."""
    stem, dot, _ = (segments[-1] or "").rpartition(".") if segments else ("", "", "")
    return [segments, (*segments[:-1], stem)] if dot and stem else [segments]


def _insert(root: _Node, segments: Segments, rest: bool, index: int) -> None:
    node = root
    for part in segments:
        if part is None:
            node.any = node.any or _Node()
            node = node.any
        else:
            node = node.literal.setdefault(part, _Node())
    (node.rests if rest else node.ends).append(index)


def _meet(root: _Node, segments: Segments, rest: bool, steps: int) -> tuple[list[int], int]:
    """Which templates in the trie share a path with this one."""
    found: list[int] = []
    level = [root]
    for part in segments:
        following: list[_Node] = []
        for node in level:
            found += node.rests
            if part is None:
                following += [child for text, child in node.literal.items() if text]
            elif part in node.literal:
                following.append(node.literal[part])
            if node.any is not None and part != "":
                following.append(node.any)
        level = following
        steps += len(level) + 1
        if steps > MAX_STEPS:
            raise Unfit("the description's paths overlap in too many ways to tell them apart")
    while level:
        following = []
        for node in level:
            found += node.rests + node.ends
            if rest:
                following += [*node.literal.values(), *([node.any] if node.any else ())]
        if not rest:
            break
        level = following
        steps += len(level)
        if steps > MAX_STEPS:
            raise Unfit("the description's paths overlap in too many ways to tell them apart")
    return found, steps
