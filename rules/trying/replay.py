"""A candidate policy asked about past calls: what would change, and what cannot be told.

What was decided is evidence as well. Where the candidate has a rule that looks at calls in the very
same way as one of the policy of that time, the ledger says whether the call fell under it, though
headers and body were never kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rules.limits import Limit
from rules.matching import is_wide
from rules.model import ANYONE, OWNER, Effect, Match, Policy, Rule, Subject
from rules.trying.glimpse import Glimpse
from rules.trying.guess import Guess, Guesser

type Kind = Literal["changed", "uncertain", "otherwise"]
"""`otherwise`: the effect stays, but who is asked or what goes in with it does not."""

MOST_GROUPS = 2_000
"""Beyond, what is further different is counted together."""
EXAMPLES = 3
_KEPT = 50_000
"""Guesses that are remembered: agents mostly repeat themselves."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A past call, and what the policy of its time said of it."""

    call: str
    subject: Subject
    """The agent as it is now."""
    day: str
    """Of its time, in UTC: 2026-11-22."""
    said: Effect
    glimpse: Glimpse
    """Of a tunnel the method is CONNECT, and the path empty."""
    rules: tuple[str, ...] | None = None
    """All that it fell under where it was allowed or held, the first where it was denied; None: not
    known."""
    version: int | None = None
    """Of the policy that said so."""
    tiers: frozenset[str] = frozenset()
    credentials: tuple[str, ...] | None = None
    """Names of those that went in; None: not known."""
    asks: bool = True
    """If it is held, people are asked for it: it would open an approval of its own."""


@dataclass(frozen=True, slots=True)
class Change:
    """One call of which the candidate says something else, or may."""

    kind: Kind
    seen: Seen
    after: frozenset[Effect]
    """All that it may be."""
    rule: str | None
    """Of the candidate: the first that decides, or that may. None: no rule matches any more."""
    was: str | None
    """The first rule that decided then, where known."""
    why: str
    """What cannot be told, or what is otherwise; empty for a plain change."""

    @property
    def outcome(self) -> str:
        """The effects in words."""
        return " or ".join(e for e in ("allow", "hold", "deny", "tunnel") if e in self.after)


@dataclass(slots=True)
class Group:
    """Changes that are alike."""

    kind: Kind
    before: str
    after: str
    rule: str | None
    was: str | None
    why: str
    calls: int = 0
    agents: set[str] = field(default_factory=set)
    examples: list[Change] = field(default_factory=list)

    def take(self, change: Change) -> None:
        """Counts it, and keeps it as an example if it is about another place than those before."""
        self.calls += 1
        if len(self.agents) < 100:
            self.agents.add(change.seen.subject.name)
        if len(self.examples) < EXAMPLES and all(
            _place(change.seen) != _place(other.seen) for other in self.examples
        ):
            self.examples.append(change)


@dataclass(frozen=True, slots=True)
class Ask:
    """What calls of one day have in common of which the same people are asked."""

    day: str
    owner: str | None
    """Of the agent."""
    tiers: frozenset[str]
    """In which they are asked for certain."""
    further: frozenset[str] = frozenset()
    """In which they may be asked besides."""

    def people(
        self, policy: Policy, anyone: Iterable[str]
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Who is asked by the policy, and who else may be."""
        sure = approvers(policy, self.tiers, self.owner, anyone)
        more = [approvers(policy, (*self.tiers, t), self.owner, anyone) for t in self.further]
        return sure, frozenset().union(*more) - sure


class Replay:
    """Takes past calls, one at a time, in any order."""

    def __init__(self, candidate: Policy, earlier: Callable[[int], Policy | None]) -> None:
        """`earlier` gives the policy of a version, None if it cannot be had any more."""
        self.candidate = candidate
        self._guesser = Guesser(candidate)
        self._earlier = earlier
        self._alike: dict[int, Mapping[str, tuple[Rule, ...]]] = {}
        self._guesses: dict[tuple[object, ...], Guess] = {}
        self.calls = 0
        self.unchanged = 0
        self.limited = 0
        """Calls under a rule with a limit, which is not replayed."""
        self.groups: dict[tuple[object, ...], Group] = {}
        self.holds: Counter[Ask] = Counter()
        """How often people would be asked."""
        self.held_then: Counter[Ask] = Counter()
        """The same for what was held in fact."""

    def take(self, seen: Seen) -> Change | None:
        """What the candidate changes for the call, if anything."""
        self.calls += 1
        day, owner = seen.day, seen.subject.owner
        if seen.said == "hold" and seen.asks:
            self.held_then[Ask(day, owner, seen.tiers)] += 1
        guess = self._guess(seen)
        if seen.asks and "hold" in guess.effects:
            self.holds[Ask(day, owner, guess.tiers, guess.further)] += 1
        elif seen.asks and seen.said == "hold" and guess.limited:
            # What a limit held then it may hold again.
            self.holds[Ask(day, owner, frozenset(), seen.tiers)] += 1
        self.limited += guess.limited
        change = _change(seen, guess)
        if change is None:
            self.unchanged += 1
        else:
            self._group(change).take(change)
        return change

    def _group(self, change: Change) -> Group:
        group = Group(
            change.kind, change.seen.said, change.outcome, change.rule, change.was, change.why
        )
        key = (group.kind, group.before, group.after, group.rule, group.was, group.why)
        if key not in self.groups and len(self.groups) >= MOST_GROUPS:
            group.rule = group.was = None
            group.why = "different things"
            key = (group.kind, group.before, group.after, None, None, group.why)
        return self.groups.setdefault(key, group)

    def _guess(self, seen: Seen) -> Guess:
        glimpse = seen.glimpse
        if seen.said == "tunnel":
            through = self._guesser.tunnel(seen.subject, glimpse.host, glimpse.port)
            return Guess(frozenset(("tunnel",) if through else ("deny",)))
        known = self._known(seen)
        size, moment = glimpse.size, glimpse.moment
        if size is not None and not self._guesser.has_sizes:
            size = min(size, 1)
        if not self._guesser.has_windows:
            moment = None
        run = glimpse.run if self._guesser.has_runs else None
        key = (
            seen.subject,
            glimpse.method,
            glimpse.scheme,
            glimpse.host,
            glimpse.port,
            glimpse.path,
            glimpse.via,
            size,
            moment,
            run,
            frozenset(known.items()),
        )
        guess = self._guesses.get(key)
        if guess is None:
            if len(self._guesses) >= _KEPT:
                self._guesses.clear()
            guess = self._guesses[key] = self._guesser.guess(seen.subject, glimpse, known)
        return guess

    def _known(self, seen: Seen) -> dict[str, bool]:
        """Which of the candidate's rules the call falls under, by what the ledger says."""
        if seen.version is None or seen.rules is None:
            return {}
        alike = self._alike.get(seen.version)
        if alike is None:
            alike = self._alike[seen.version] = _alike(self.candidate, self._earlier(seen.version))
        recorded = set(seen.rules)
        # Of a denial the first rule is recorded; that there is none says that none matched.
        whole = seen.said != "deny" or not recorded
        known = {}
        for id, then in alike.items():
            if any(rule.id in recorded and _shows(rule, seen.said) for rule in then):
                known[id] = True
            elif whole and any(_named(rule, seen.subject) for rule in then):
                known[id] = False
        return known


def approvers(
    policy: Policy, tiers: Iterable[str], owner: str | None, anyone: Iterable[str]
) -> frozenset[str]:
    """Who may vote on calls held in these tiers: everybody whose vote would count in one of them,
    and whom none excludes. `anyone` are the people of the group `any`."""
    named, excluded = set(), set()
    for name in tiers:
        tier = policy.tiers.get(name)
        if tier is None:
            continue
        excluded |= {owner if one == OWNER else one for one in tier.exclude}
        for entry in tier.quorum:
            named |= set(anyone if entry.group == ANYONE else policy.approvers[entry.group])
    return frozenset(named - excluded)


def _change(seen: Seen, guess: Guess) -> Change | None:
    was = seen.rules[0] if seen.rules else None
    first = guess.rules[0] if guess.rules else None
    if guess.limited and guess.effect != seen.said and seen.said in ("hold", "deny"):
        effects = guess.effects | {seen.said}
        return Change("uncertain", seen, effects, first, was, "what its limit had left then")
    if guess.effect is None:
        rule, why = guess.doubts[0] if guess.doubts else (None, "")
        return Change("uncertain", seen, guess.effects, rule, was, why)
    if guess.effect != seen.said:
        return Change("changed", seen, guess.effects, first, was, "")
    why = _otherwise(seen, guess)
    return Change("otherwise", seen, guess.effects, first, was, why) if why else None


def _otherwise(seen: Seen, guess: Guess) -> str:
    if guess.effect not in ("allow", "hold") or not guess.exact:
        return ""
    found = []
    if guess.effect == "hold" and seen.tiers and guess.tiers != seen.tiers:
        found.append(f"risk {_list(seen.tiers)} -> {_list(guess.tiers)}")
    if seen.credentials is not None and set(guess.credentials) != set(seen.credentials):
        found.append(f"credentials {_list(seen.credentials)} -> {_list(guess.credentials)}")
    return "; ".join(found)


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


type _Look = tuple[tuple[Match, ...], tuple[Match, ...], bool, tuple[Limit, ...]]


def _look(rule: Rule) -> _Look:
    """All by which it is known whether a call falls under a rule, agents aside."""
    # Of limits only the numbers that they sum up keep a call from being one of the rule's.
    places = tuple([limit for limit in rule.limits if limit.place])
    return rule.matches, rule.excepts, is_wide(rule), places


def _alike(candidate: Policy, then: Policy | None) -> dict[str, tuple[Rule, ...]]:
    """For rules of the candidate, by id, those of the other that look at calls the same way."""
    if then is None:
        return {}
    by_look: dict[_Look, list[Rule]] = {}
    for rule in then.rules:
        if rule.effect != "tunnel":
            by_look.setdefault(_look(rule), []).append(rule)
    found = {rule.id: tuple(by_look.get(_look(rule), ())) for rule in candidate.rules}
    return {id: rules for id, rules in found.items() if rules}


def _shows(rule: Rule, said: Effect) -> bool:
    """Whether its id in the record says that the call fell under it. A denial may also name an
    allow that was in doubt."""
    return rule.effect == "deny" if said == "deny" else rule.effect in ("allow", "hold")


def _named(rule: Rule, subject: Subject) -> bool:
    return any(
        name == subject.name or (name.startswith("tag:") and name[4:] in subject.tags)
        for name in rule.agents
    )


def _place(seen: Seen) -> tuple[object, ...]:
    glimpse = seen.glimpse
    return glimpse.method, glimpse.host, glimpse.port, glimpse.path
