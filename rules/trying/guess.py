"""What a policy says of a call of which only a glimpse is left: for certain, or what it may be.

A rule applies, does not, or may; whatever the maybes turn out to be, the outcome is among those
that are told here. Rules that are in doubt are taken to be independent of each other, so that too
much may be called possible, never too little.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rules.describe import describe_match
from rules.matching import Matcher, host_holds, is_wide, takes_path
from rules.model import Effect, Policy, Rule, Subject
from rules.request import DEFAULT_PORTS, Request
from rules.trying.glimpse import Glimpse, Look


@dataclass(frozen=True, slots=True)
class Guess:
    """What becomes of a call. More than one effect: it cannot be told which."""

    effects: frozenset[Effect]
    rules: tuple[str, ...] = ()
    """Ids of those that decide for certain; empty if no rule matches, or it cannot be told."""
    tiers: frozenset[str] = frozenset()
    """In which people are asked for certain."""
    further: frozenset[str] = frozenset()
    """In which they may be asked besides, or at all."""
    credentials: tuple[str, ...] = ()
    """Names, of a certain outcome."""
    doubts: tuple[tuple[str, str], ...] = ()
    """(rule, what cannot be told of the call) for each rule that may or may not apply and matters
    to the outcome."""
    exact: bool = True
    """Tiers and credentials are certain too."""
    limited: bool = False
    """A rule of these counts calls or sums, which is not replayed."""

    @property
    def effect(self) -> Effect | None:
        """The one effect, if it is certain."""
        return next(iter(self.effects)) if len(self.effects) == 1 else None


@dataclass(frozen=True, slots=True)
class _Entry:
    order: int
    rule: Rule
    matchers: tuple[Matcher, ...]
    excepts: tuple[Matcher, ...]


@dataclass(slots=True)
class _State:
    """Which rules apply: for certain, or maybe and why that cannot be told."""

    certain: list[Rule] = field(default_factory=list)
    maybe: list[tuple[Rule, str]] = field(default_factory=list)


class Guesser:
    """A policy to be asked about glimpses. Keeps what it worked out about places."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        matches = [match for r in policy.rules for match in (*r.matches, *r.excepts)]
        self.has_windows = any(match.time is not None for match in matches)
        """Whether the time of a call may count."""
        self.has_runs = any(match.source is not None for match in matches)
        """Whether the run that it came from may."""
        self.has_sizes = any(match.body is not None and match.body.size for match in matches)
        """Whether the size of a body may count, beyond there being one."""
        self._by_host: defaultdict[str, list[_Entry]] = defaultdict(list)
        for order, rule in enumerate(policy.rules):
            entry = _Entry(order, rule, *Matcher.all_of(rule))
            for key in _keys_of(rule):
                self._by_host[key].append(entry)

    def guess(
        self, subject: Subject, glimpse: Glimpse, known: Mapping[str, bool] | None = None
    ) -> Guess:
        """What the policy says of the call; `known` says of rules, by id, whether the call falls
        under them, where that is known from elsewhere."""
        look = Look(glimpse, subject)
        state = _State()
        for entry in self._reaching(subject, glimpse):
            applies, why = _applies(entry, look)
            if known and entry.rule.id in known:
                applies, why = known[entry.rule.id], ""
            if applies:
                state.certain.append(entry.rule)
            elif applies is None:
                state.maybe.append((entry.rule, why))
        return self._conclude(state, look.request)

    def tunnel(self, subject: Subject, host: str, port: int) -> bool:
        """Whether a connection would be passed on undecrypted; as Rulebook.tunnel has it."""
        rules = [e.rule for e in self._at(subject, host) if _names_port(e.rule, host, port)]
        injectable = any(
            host_holds(pattern, host, pattern.port or DEFAULT_PORTS["https"], "https")
            for credential in self.policy.credentials.values()
            for pattern in credential.hosts
        )
        return bool(rules) and not injectable and all(r.effect == "tunnel" for r in rules)

    def _at(self, subject: Subject, host: str) -> list[_Entry]:
        labels = host.split(".")
        keys = [host, *("*." + ".".join(labels[cut:]) for cut in range(1, len(labels))), ""]
        found = {
            entry.order: entry
            for key in keys
            for entry in self._by_host.get(key, ())
            if _names(entry.rule, subject)
        }
        return [found[order] for order in sorted(found)]

    def _reaching(self, subject: Subject, glimpse: Glimpse) -> Iterator[_Entry]:
        for entry in self._at(subject, glimpse.host):
            if entry.rule.effect != "tunnel":
                yield entry

    def _conclude(self, state: _State, request: Request) -> Guess:
        certain, maybe = state.certain, state.maybe
        possible = [*certain, *(rule for rule, _ in maybe)]
        sure = {rule.effect for rule in certain}
        may = {rule.effect for rule in possible}
        effects: set[Effect] = set()
        goes = sure & {"hold", "allow"} and takes_path(certain, request.path)
        if "deny" in may or not goes or self._clash(possible, request):
            effects.add("deny")
        refused = "deny" in sure or not takes_path(possible, request.path)
        if not refused and not self._clash(certain, request):
            if "hold" in may:
                effects.add("hold")
            if "allow" in may and "hold" not in sure:
                effects.add("allow")
        else:
            effects = {"deny"}
        doubts = tuple([(r.id, why) for r, why in maybe if r.effect in effects])
        return self._told(frozenset(effects), certain, maybe, doubts, request)

    def _told(
        self,
        effects: frozenset[Effect],
        certain: Sequence[Rule],
        maybe: Sequence[tuple[Rule, str]],
        doubts: tuple[tuple[str, str], ...],
        request: Request,
    ) -> Guess:
        limited = any(r.limits for r in (*certain, *(rule for rule, _ in maybe)))
        if len(effects) > 1:
            holding = [*certain, *(rule for rule, _ in maybe)] if "hold" in effects else []
            further = _tiers(holding)
            return Guess(effects, further=further, doubts=doubts, exact=False, limited=limited)
        (effect,) = effects
        if effect == "deny":
            denying = [rule.id for rule in certain if rule.effect == "deny"]
            return Guess(effects, rules=tuple(denying))
        deciding = [rule for rule in certain if rule.effect == effect]
        going = [rule for rule in certain if rule.effect in ("allow", "hold")]
        return Guess(
            effects,
            rules=tuple([rule.id for rule in deciding]),
            tiers=_tiers(certain),
            further=_tiers([rule for rule, _ in maybe]) - _tiers(certain),
            credentials=self._used(going, request),
            doubts=doubts,
            exact=not any(rule.effect in ("allow", "hold") for rule, _ in maybe),
            limited=limited,
        )

    def _used(self, rules: Sequence[Rule], request: Request) -> tuple[str, ...]:
        """Names of the credentials that would go out with the call, in file order."""
        used = {name for rule in rules for name in rule.use}
        if request.scheme != "https":
            return ()
        return tuple(
            [
                name
                for name, credential in self.policy.credentials.items()
                if name in used
                and any(
                    host_holds(h, request.host, request.port, "https") for h in credential.hosts
                )
            ]
        )

    def _clash(self, rules: Sequence[Rule], request: Request) -> bool:
        """Whether two of their credentials would go into one header."""
        going = [rule for rule in rules if rule.effect in ("allow", "hold")]
        slots = [self.policy.credentials[n].inject.header for n in self._used(going, request)]
        return len(slots) != len(set(slots))


def _tiers(rules: Sequence[Rule]) -> frozenset[str]:
    """In which those of the rules that hold ask people."""
    return frozenset([rule.tier for rule in rules if rule.effect == "hold" and rule.tier])


def _applies(entry: _Entry, look: Look) -> tuple[bool | None, str]:
    """Whether the rule is about the call, and what cannot be told if that is open."""
    wide = is_wide(entry.rule)
    told, why = _any_matches(entry.matchers, look, wide)
    if told and not wide and any(limit.place for limit in entry.rule.limits):
        told, why = None, "the number that its limit sums up"
    if told is False or not entry.excepts:
        return told, why
    out, why_out = _any_matches(entry.excepts, look, not wide)
    if out is True:
        return False, ""
    if told is None or out is None:
        return None, why or why_out
    return told, ""


def _any_matches(matchers: Sequence[Matcher], look: Look, wide: bool) -> tuple[bool | None, str]:
    open_, why = False, ""
    for matcher in matchers:
        told, reason = _matches(matcher, look, wide)
        if told:
            return True, ""
        if told is None:
            open_, why = True, why or reason
    return (None, why) if open_ else (False, "")


def _matches(matcher: Matcher, look: Look, wide: bool) -> tuple[bool | None, str]:
    if not matcher.is_at_host(look.call):
        return False, ""
    open_ = False
    for condition in matcher.conditions:
        told = look.tell(condition, wide=wide)
        if told is False:
            return False, ""
        open_ = open_ or told is None
    return (None, describe_match(matcher.match)) if open_ else (True, "")


def _keys_of(rule: Rule) -> set[str]:
    """What hosts the rule is indexed under; "" is any."""
    keys = set()
    for match in rule.matches:
        for host in match.hosts:
            keys.add(f"*.{host.host}" if host.wildcard else host.host)
        if not match.hosts:
            keys.add("")
    return keys


def _names(rule: Rule, subject: Subject) -> bool:
    """Whether the rule is about the agent's calls."""
    for name in rule.agents:
        if name.startswith("tag:"):
            if name[4:] in subject.tags:
                return True
        elif name == subject.name:
            return True
    return False


def _names_port(rule: Rule, host: str, port: int) -> bool:
    for match in rule.matches:
        if not match.hosts:
            return True
        if any(host_holds(pattern, host, port, match.scheme) for pattern in match.hosts):
            return True
    return False
