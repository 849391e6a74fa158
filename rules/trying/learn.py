"""The least policy that covers what an agent was seen to do, for people to review.

Reads run as they did; what changes something is held, whatever was allowed before. What was held is
held again, and what was denied adds nothing.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rules.decide import Rulebook
from rules.errors import Ambiguous
from rules.hosts import parse_host
from rules.load import load_policy
from rules.matching import host_holds
from rules.model import Effect, Policy, Subject
from rules.openapi.classify import READS, classify
from rules.openapi.document import Operation
from rules.paths import ENCODED_SLASH, check_path, parse_template
from rules.request import DEFAULT_PORTS, Scheme
from rules.spellings import parse_method
from rules.trying.glimpse import Glimpse
from rules.trying.proposal import How, Place, Proposal, ProposedRule
from rules.trying.replay import Seen
from rules.trying.templates import MOST_DEPTH, Tally, Templates

MOST_PATHS = 100_000
"""Different paths that are kept; of what is seen beyond them only the number."""
MOST_WRITTEN = 5_000
"""Templates in the file: more is nothing that anybody reviews."""
LONGEST_TEMPLATE = 400
_ODD = re.compile(r"[^a-z0-9.-]+")


@dataclass(slots=True)
class _Calls:
    """Of one place, method and path."""

    tally: Tally = field(default_factory=Tally)
    held: str | None = None
    """The tier in which some of them were held."""
    use: tuple[str, ...] | None = None
    """What went in, the last time that it is known."""


type _Key = tuple[Place, str, str]
"""Place, method and path."""


@dataclass(slots=True)
class Learner:
    """Takes calls of one agent, in any order, and proposes what covers them."""

    agent: str
    policy: Policy
    """In force: what credentials and tiers are."""
    denied: int = 0
    """That were denied."""
    left_out: int = 0
    """That cannot be written down, or came after too many others."""
    _seen: dict[_Key, _Calls] = field(default_factory=dict)
    _denied: Counter[_Key] = field(default_factory=Counter)
    _tunnels: dict[Place, Tally] = field(default_factory=dict)

    def take(self, seen: Seen, time: str) -> None:
        """One call, at a time as records write it."""
        glimpse = seen.glimpse
        place = Place(glimpse.scheme, glimpse.host, glimpse.port)
        key = (place, glimpse.method, glimpse.path)
        if seen.said == "deny":
            self.denied += 1
            if key in self._denied or len(self._denied) < MOST_PATHS:
                self._denied[key] += 1
            return
        if not _can_be_written(place, glimpse.method, glimpse.path, seen.said):
            self.left_out += 1
            return
        one = Tally(1, time, time)
        if seen.said == "tunnel" and self._is_of_credential(place.host):
            self.left_out += 1  # by now it would not be passed on undecrypted
            return
        if seen.said == "tunnel":
            self._tunnels.setdefault(place, Tally()).add(one)
            return
        calls = self._seen.get(key)
        if calls is None:
            if len(self._seen) >= MOST_PATHS:
                self.left_out += 1
                return
            calls = self._seen[key] = _Calls()
        calls.tally.add(one)
        if seen.said == "hold":
            tier = max(seen.tiers, key=_strength(self.policy), default=None)
            calls.held = tier or calls.held or "high"
        if seen.credentials is not None:
            calls.use = self._usable(seen.credentials, place)

    def propose(self) -> Proposal:
        """What covers the calls, but for those that are left out."""
        seen = dict(self._seen)
        while True:
            rules = self._rules(seen)
            proposal = self._proposal(rules)
            losing = _clashing(proposal, seen) if self._may_clash() else ()
            if not losing:
                return proposal
            for key in losing:
                del seen[key]

    def _proposal(self, rules: tuple[ProposedRule, ...]) -> Proposal:
        every = [tally for rule in rules for tally in (rule.tunnel, *rule.tallies) if tally]
        covered = sum(tally.calls for tally in every)
        taken = sum(c.tally.calls for c in self._seen.values())
        taken += sum(tally.calls for tally in self._tunnels.values())
        lost = self.left_out + taken - covered
        return Proposal(self.agent, self.policy, rules, covered, self.denied, lost)

    def _rules(self, seen: Mapping[_Key, _Calls]) -> tuple[ProposedRule, ...]:
        by_method: defaultdict[tuple[Place, str], Templates[How]] = defaultdict(Templates)
        usual = self._usual()
        for (place, method, path), calls in seen.items():
            use = calls.use if calls.use is not None else usual.get(place, ())
            tally = replace(calls.tally)  # it is added up in what follows
            by_method[place, method].add(path, self._how(method, calls, use), tally)
        grouped: defaultdict[tuple[Place, How], dict[str, dict[str, Tally]]] = defaultdict(dict)
        written = 0
        denied = self._denied_at()
        for (place, method), templates in sorted(by_method.items(), key=_by_place):
            found = sorted(templates.found(), key=lambda each: each[:2])
            for path, count in denied.get((place, method), ()):
                for tally in templates.over(path):
                    tally.denied += count
            for template, how, tally in found:
                written += 1
                if written > MOST_WRITTEN or not _is_template(template):
                    continue
                if how.effect == "hold" and not how.risk:
                    how = replace(how, risk=_risk(method, template))
                grouped[place, how].setdefault(method, {})[template] = tally
        ids: Counter[str] = Counter()
        rules = [
            ProposedRule(_name(ids, place, how), place, how, methods)
            for (place, how), methods in grouped.items()
        ]
        called = {(place.host, place.port) for place, _ in grouped}
        for place, tally in sorted(self._tunnels.items(), key=lambda item: item[0].pattern):
            # A rule about calls keeps a tunnel to the same place shut.
            if (place.host, place.port) not in called:
                how = How("tunnel", "", ())
                rules.append(ProposedRule(_name(ids, place, how), place, how, {}, tally))
        return tuple(rules)

    def _denied_at(self) -> Mapping[tuple[Place, str], list[tuple[str, int]]]:
        """By place and method the paths that were denied, with how often."""
        found: defaultdict[tuple[Place, str], list[tuple[str, int]]] = defaultdict(list)
        for (place, method, path), count in self._denied.items():
            found[place, method].append((path, count))
        return found

    def _may_clash(self) -> bool:
        """Whether any place has calls with different credentials for one header."""
        used: defaultdict[Place, set[str]] = defaultdict(set)
        for (place, _, _), calls in self._seen.items():
            used[place].update(calls.use or ())
        slots = {n: self.policy.credentials[n].inject.header for at in used.values() for n in at}
        return any(len({slots[name] for name in names}) < len(names) for names in used.values())

    def _how(self, method: str, calls: _Calls, use: tuple[str, ...]) -> How:
        """The risk is left open where nobody has said it."""
        if method in READS and calls.held is None:
            return How("allow", "low", use)
        tier = calls.held
        return How("hold", tier if tier is not None and tier in self.policy.tiers else "", use)

    def _usual(self) -> dict[Place, tuple[str, ...]]:
        """What mostly goes in, by place."""
        found: defaultdict[Place, Counter[tuple[str, ...]]] = defaultdict(Counter)
        for (place, _, _), calls in self._seen.items():
            if calls.use is not None:
                found[place][calls.use] += calls.tally.calls
        return {place: counter.most_common(1)[0][0] for place, counter in found.items()}

    def _usable(self, names: Iterable[str], place: Place) -> tuple[str, ...]:
        """Those that still exist and may still go there."""
        if place.scheme != "https":
            return ()
        usable = []
        for name in sorted(set(names)):
            credential = self.policy.credentials.get(name)
            if credential is not None and any(
                host_holds(pattern, place.host, place.port, "https") for pattern in credential.hosts
            ):
                usable.append(name)
        slots = {self.policy.credentials[name].inject.header: name for name in usable}
        return tuple(sorted(slots.values()))

    def _is_of_credential(self, host: str) -> bool:
        """On whatever port."""
        return any(
            host_holds(pattern, host, pattern.port or DEFAULT_PORTS["https"], "https")
            for credential in self.policy.credentials.values()
            for pattern in credential.hosts
        )


def _clashing(proposal: Proposal, seen: Mapping[_Key, _Calls]) -> list[_Key]:
    """Calls that two credentials for one header would deny: a hold reads paths widely, so that it
    reaches calls which went out with another credential than its own. Without a rule of their own
    such calls are held by that one."""
    rulebook = Rulebook(load_policy(proposal.text())[0])
    subject = Subject(proposal.agent)
    denied: defaultdict[tuple[Place, str], list[_Key]] = defaultdict(list)
    for key in seen:
        place, method, path = key
        scheme: Scheme = "http" if place.scheme == "http" else "https"
        request = Glimpse(method, scheme, place.host, place.port, path).request()
        decision = rulebook.decide(subject, request)
        if decision.effect == "deny" and decision.rules:
            denied[place, method].append(key)
    losing = []
    for (_, method), keys in denied.items():
        stays = max(keys, key=lambda key: seen[key].tally.calls)
        allowed = [key for key in keys if method in READS and seen[key].held is None]
        losing += allowed or [key for key in keys if seen[key].use != seen[stays].use] or keys
    return losing


def _by_place(item: tuple[tuple[Place, str], Any]) -> tuple[str, str, bool, str]:
    (place, method), _ = item
    return place.pattern, place.scheme, method not in READS, method


def _can_be_written(place: Place, method: str, path: str, said: Effect) -> bool:
    """Whether the ledger has it as the rules would: a forged record may hold anything."""
    try:
        if parse_host(place.host) != place.host or not 0 < place.port < 65536:
            return False
        if said != "tunnel":
            parse_method(method)
            check_path(path, slashes=True)
            if ENCODED_SLASH in path and path.count("/") > MOST_DEPTH:
                return False  # in what would be `**`
    except (Ambiguous, ValueError):
        return False
    return place.scheme in DEFAULT_PORTS


def _is_template(text: str) -> bool:
    try:
        return len(text) <= LONGEST_TEMPLATE and parse_template(text).text == text
    except ValueError:
        return False


def _risk(method: str, template: str) -> str:
    """Of a call that nobody has judged, by its names."""
    risk = "medium" if method in READS else classify(Operation(method, template)).risk
    return "medium" if risk == "low" else risk


def _name(ids: Counter[str], place: Place, how: How) -> str:
    word = {"allow": "read", "tunnel": "tunnel"}.get(how.effect, f"ask-{how.risk}")
    base = _ODD.sub("-", f"{place.pattern}-{word}".lower()).strip(".-")[:80] or "rule"
    name = base
    while name in ids:  # it may be what another is called by its own words
        ids[base] += 1
        name = f"{base}-{ids[base]}"
    ids[name] += 1
    return name


def _strength(policy: Policy) -> Any:
    def strength(name: str) -> tuple[int, str]:
        tier = policy.tiers.get(name)
        return (sum(q.count for q in tier.quorum) if tier else 0, name)

    return strength
