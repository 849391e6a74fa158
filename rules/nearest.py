"""What a denied call lacks, in the words of the rules that come nearest to it.

Worked out only where a call is denied or held. Rules that deny are not told of: what they spare is
for nobody to aim at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from operator import attrgetter

from rules.describe import describe_match
from rules.index import Entry, Index
from rules.misses import Miss, miss
from rules.model import Match, Rule, Subject
from rules.reading.call import Reading
from rules.visible import visible
from rules.words import describe_call

_MAX_HINTS = 3
_LARGE = 64 * 1024
"""Bytes of a body that takes long to look at for a sentence's sake."""
_COMPARED, _COMPARED_LARGE = 16, 2
"""Matches that a denied call is compared with condition by condition, to say what it lacks."""
_EXPLAINED = 200
"""The same for somebody who asks."""


def misses(index: Index, subject: Subject, call: Reading) -> list[Miss]:
    """How the call misses each of the subject's rules at its host, nearest first. Of very many not
    all are looked at."""
    request = call.request
    here = [
        entry
        for entry in index.candidates(subject, request.host)
        if entry.rule.effect != "tunnel" and entry.port in (None, request.port)
    ]
    # Those that may be about the path come first.
    here.sort(key=lambda entry: (not entry.may_cover(request.path, request.port), entry.order))
    return _compared(islice(here, _EXPLAINED), call)


def _compared(entries: Iterable[Entry], call: Reading) -> list[Miss]:
    """Of each rule the nearest miss; none of those that the call falls under by another match."""
    found: dict[int, Miss | None] = {}
    for entry in entries:
        order = entry.order
        if order in found and found[order] is None:
            continue
        other, missed = found.get(order), miss(entry.rule, entry.matcher, entry.excepts, call)
        if missed is None or other is None or missed.distance < other.distance:
            found[order] = missed
    every = [missed for _, missed in sorted(found.items()) if missed is not None]
    return sorted(every, key=attrgetter("distance"))


def nearest(index: Index, subject: Subject, call: Reading, effects: Sequence[str]) -> Miss | None:
    """The rule with one of the effects that is about such calls and misses this one by the fewest
    conditions. Looks at few rules, fewer still if the body is large."""
    request = call.request
    most = _COMPARED_LARGE if len(request.body) > _LARGE else _COMPARED
    fitting = (
        entry
        for entry in index.plan(subject, request.host, request.method).at(request.path)
        if entry.rule.effect in effects and entry.may_cover(request.path, request.port)
    )
    found = [missed for missed in _compared(islice(fitting, most), call) if missed.is_near]
    return found[0] if found else None


def what_is_missing(index: Index, subject: Subject, call: Reading) -> str:
    """Says what was looked for, and what comes nearest to it."""
    request = call.request
    agent = f'agent "{visible(subject.name)}"'
    start = f"No rule lets {agent} make this call: {describe_call(request)}"
    missed = nearest(index, subject, call, ("allow", "hold"))
    if missed is not None:
        return f"{start}. {missed.sentence(call)}"
    here = {entry.rule.id: entry for entry in index.candidates(subject, request.host)}
    if any(entry.rule.effect == "tunnel" for entry in here.values()):
        return f"{start}; a rule passes this host on undecrypted only, as TLS."
    near = dict.fromkeys(
        describe_match(entry.matcher.match)
        for entry in here.values()
        if entry.rule.effect in ("allow", "hold")
    )
    if near:
        return f"{start}. There are rules for {_few(list(near), '; ')}."
    hosts = index.hosts_of(subject)
    if hosts:
        return f"{start}. There are rules for the hosts {_few(_alike(request.host, hosts))}."
    if index.rules_for(subject):
        return f"{start}."
    tags = f" or its tags {', '.join(sorted(subject.tags))}" if subject.tags else ""
    return f"{start}; no rule names {agent}{tags}."


def what_would_pass(
    index: Index, subject: Subject, call: Reading, holds: Iterable[Rule]
) -> str | None:
    """For a held call, how a rule that allows misses it; None if the holds ask for nothing but the
    place, and so hold whatever is allowed there."""
    if any(not rule.excepts and any(map(_is_of_place, rule.matches)) for rule in holds):
        return None
    missed = nearest(index, subject, call, ("allow",))
    return None if missed is None else missed.sentence(call)


def _is_of_place(match: Match) -> bool:
    place = Match(methods=match.methods, hosts=match.hosts, paths=match.paths, scheme=match.scheme)
    return match == place


def _alike(host: str, hosts: Sequence[str]) -> list[str]:
    """The hosts that share labels with this one, most first; all if none does."""
    labels = set(host.split("."))
    shared = {known: len(labels.intersection(known.split("."))) for known in hosts}
    near = sorted(
        (known for known in shared if shared[known]), key=shared.__getitem__, reverse=True
    )
    return near or list(shared)


def _few(words: Sequence[str], joint: str = ", ") -> str:
    more = len(words) - _MAX_HINTS
    return joint.join(words[:_MAX_HINTS]) + (f" and {more} more" if more > 0 else "")
