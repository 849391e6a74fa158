"""From paths that were seen to the templates that cover them, as narrow as evidence allows.

A segment becomes `{id}` where it took several values that look like ids, or many among which
nothing else differs, and wherever it looks like a key; `**` only where nothing shorter tells it.
What bears different labels is never thrown together: one template would then speak for the other's
calls; what cannot be written down otherwise is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote

from rules.paths import ENCODED_SLASH

MOST_DEPTH = 40
"""Segments; what lies deeper is `**`."""
LONGEST_SEGMENT = 120
"""Characters; a longer one is no name of anything."""
MANY = 8
"""So many words in one place, with nothing else differing, are values of one thing."""
MOST_TEMPLATES = 24
"""Below one place, if they are of different depths: beyond, it is a tree that one walks (`**`)."""
_DEPTHS = 3
_SHORTEST_KEY = 12

_ID = re.compile(
    r"""
      [0-9]+                                              # a number
    | [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}   # a UUID
    | [0-9a-f]{7,}                                        # a hash, of Git too
    | [A-Za-z]{1,10}[_-](?=[A-Za-z0-9_-]*[0-9])[A-Za-z0-9_-]{6,}     # cus_9s6XKzkNRiz8i3, i-0a1b2c
    | (?=[A-Za-z0-9_-]*[0-9])(?=[A-Za-z0-9_-]*[A-Za-z])[A-Za-z0-9_-]{12,}   # other random text
    | [0-9]{4}-[0-9]{2}-[0-9]{2}(T.*)?                    # a day
    | [^@/]+@[^@/]+                                       # an address
    """,
    re.VERBOSE | re.IGNORECASE,
)
_KEY = re.compile(
    r"""
      [A-Za-z0-9]{2,10}[_-](?:live|test|prod|pat|key)[_-][A-Za-z0-9_-]{8,}   # sk_live_4eC39HqLyjWD
    | (?:gh[opsur]|github_pat|glpat|gl[a-z]+t|xox[a-z]|npm|hf|dop_v1|pypi|whsec|rk|sk|key|token)
      [_-](?=[A-Za-z0-9_-]*[0-9])[A-Za-z0-9_-]{12,}
    | (?:AKIA|ASIA|AIza|eyJ)[A-Za-z0-9_.-]{12,}
    | (?:hv[sbr]|s|b|r)\.[A-Za-z0-9_-]{20,}                          # of Vault
    | [0-9a-f]{32,} | [0-9A-F]{32,}
    | (?:bot)?[0-9]{6,}:[A-Za-z0-9_-]{20,}                            # of Telegram
    | (?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])(?=[^0-9]*[0-9])[A-Za-z0-9_=~+.-]{20,}   # all three kinds
    """,
    re.VERBOSE,
)
"""What may be a key, a token or a link that opens by itself: it is no name, and no file's business.
"""
_VERSION = re.compile(r"v?[0-9]+(\.[0-9]+)*|api|rest", re.IGNORECASE)
_VARIABLE = "{}"
"""The key of the segment that varies; no canonical path has a brace."""
_SLASHED = "{+}"
"""That of one in which there were encoded slashes."""


@dataclass(slots=True)
class Tally:
    """How often, and by when."""

    calls: int = 0
    first: str = ""
    last: str = ""
    denied: int = 0
    """Further calls that a template would let go, though they were denied."""

    def add(self, other: Self) -> None:
        """Takes the other's calls in."""
        self.first = min(self.first or other.first, other.first or self.first)
        self.last = max(self.last, other.last)
        self.calls += other.calls
        self.denied += other.denied


@dataclass(slots=True)
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    ends: dict[object, Tally] = field(default_factory=dict)
    """By label, of paths that end here."""
    rests: dict[object, Tally] = field(default_factory=dict)
    """Of those that go on, nobody knows how."""


class Templates[Label]:
    """The paths of one place and method. Labels are values that say how a call is to be treated."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, path: str, label: Label, tally: Tally) -> None:
        """A canonical path that was seen."""
        node = self._root
        segments = path.split("/")[1:]
        for segment in segments[:MOST_DEPTH]:
            node = node.children.setdefault(segment, _Node())
        kept = node.ends if len(segments) <= MOST_DEPTH else node.rests
        kept.setdefault(label, Tally()).add(tally)

    def over(self, path: str) -> list[Tally]:
        """Those of the templates under which the path falls, after `found`."""
        pending = [(self._root, path.split("/")[1:])]
        tallies: list[Tally] = []
        while pending:
            node, left = pending.pop()
            tallies += node.rests.values()
            if not left:
                tallies += node.ends.values()
                continue
            keys = (left[0], _VARIABLE, _SLASHED) if left[0] else ("",)
            if ENCODED_SLASH in left[0]:
                keys = (_SLASHED,)
            pending += [(node.children[k], left[1:]) for k in keys if k in node.children]
        return tallies

    def found(self) -> list[tuple[str, Label, Tally]]:
        """(template, label, calls), each label for each template once."""
        _simplify(self._root, named=False)
        return [(_written(steps, rest), label, t) for steps, rest, label, t in _all(self._root, ())]  # type: ignore[misc]


def _simplify(node: _Node, *, named: bool) -> None:
    """`named`: the way here has a word besides versions, so that what follows may be a value."""
    if len(_labels(node)) > 1:
        for segment in [segment for segment in node.children if _is_odd(segment)]:
            del node.children[segment]
    merged = _varying(node, named)
    if merged:
        one = _Node()
        for segment in merged:
            _join(one, node.children.pop(segment))
        slashed = any(ENCODED_SLASH in segment for segment in merged)
        node.children[_SLASHED if slashed else _VARIABLE] = one
    for segment, child in node.children.items():
        _simplify(child, named=named or not _VERSION.fullmatch(segment))
    if named and len(_labels(node)) == 1:
        below = list(_all(node, ()))
        depths = {len(steps) for steps, *_ in below}
        if len(below) > MOST_TEMPLATES and len(depths) >= _DEPTHS and not _has_slashes(below):
            _cut(node)


def _has_slashes(ways: Iterable[tuple[tuple[str, ...], bool, object, Tally]]) -> bool:
    """Whether an encoded slash is in one of them, which `**` would not take."""
    return any(s == _SLASHED or ENCODED_SLASH in s for steps, *_ in ways for s in steps)


def _varying(node: _Node, named: bool) -> list[str]:
    """The segments here that are values of one thing."""
    words = [segment for segment in node.children if segment]
    if len({label for word in words for label in _labels(node.children[word])}) > 1:
        return []
    odd = [word for word in words if _is_odd(word)]
    ids = {word for word in words if _ID.fullmatch(word) and not _is_version(word, named)}
    plain = [word for word in words if word not in ids]
    found = set(odd)
    if len(ids) > 1 or (ids and odd):
        found.update(ids)
    if named and len(plain) >= MANY and len({_shape(node.children[word]) for word in plain}) == 1:
        found.update(words)
    return [word for word in words if word in found]


def _is_odd(segment: str) -> bool:
    """Whether a template cannot, or must not, hold it as it is."""
    if "*" in segment or ENCODED_SLASH in segment or len(segment) > LONGEST_SEGMENT:
        return True
    return len(segment) >= _SHORTEST_KEY and bool(_KEY.fullmatch(unquote(segment)))


def _is_version(word: str, named: bool) -> bool:
    """`2` in `/2/tweets`: a version, where nothing has a name yet."""
    return not named and len(word) <= 3


def _shape(node: _Node) -> tuple[bool, frozenset[str]]:
    """What may follow, ids aside."""
    following = frozenset([_VARIABLE if _ID.fullmatch(w) else w for w in node.children])
    return bool(node.ends), following


def _join(one: _Node, other: _Node) -> None:
    """Takes the other in, without recursion: an agent chose the depth."""
    pending = [(one, other)]
    while pending:
        to, source = pending.pop()
        for mine, its in ((to.ends, source.ends), (to.rests, source.rests)):
            for label, tally in its.items():
                mine.setdefault(label, Tally()).add(tally)
        for segment, child in source.children.items():
            if segment in to.children:
                pending.append((to.children[segment], child))
            else:
                to.children[segment] = child


def _cut(node: _Node) -> None:
    """Whatever lies below is `**` from here on."""
    for _, _, label, tally in list(_all(node, ())):
        node.rests.setdefault(label, Tally())
        if node.rests[label] is not tally:
            node.rests[label].add(tally)
    node.children.clear()
    node.ends.clear()


def _labels(node: _Node) -> set[object]:
    found: set[object] = set()
    pending = [node]
    while pending:
        here = pending.pop()
        found |= here.ends.keys() | here.rests.keys()
        pending += here.children.values()
    return found


def _all(
    node: _Node, steps: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], bool, object, Tally]]:
    pending = [(steps, node)]
    while pending:
        way, here = pending.pop()
        yield from ((way, False, label, tally) for label, tally in here.ends.items())
        yield from ((way, True, label, tally) for label, tally in here.rests.items())
        pending += [((*way, segment), child) for segment, child in here.children.items()]


def _written(steps: tuple[str, ...], rest: bool) -> str:
    names: list[str] = []
    count = 0
    for step in steps:
        if step in (_VARIABLE, _SLASHED):
            count += 1
            name = "id" if count == 1 else f"id{count}"
            names.append(f"{{+{name}}}" if step == _SLASHED else f"{{{name}}}")
        else:
            names.append(step)
    if rest:
        names.append("**")
    return "/" + "/".join(names)
