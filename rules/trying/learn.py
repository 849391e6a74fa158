"""The least policy that covers what an agent was seen to do, as a file for people to review.

Reads run as they did; what changes something is held, whatever was allowed before. What was held is
held again, and what was denied is left out. Every word in the file that an agent chose stands in
quotes, in one line.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rules.describe import describe_host
from rules.errors import Ambiguous
from rules.hosts import parse_host
from rules.matching import host_holds
from rules.model import Credential, Effect, Policy, Tier
from rules.openapi.classify import READS, classify
from rules.openapi.document import Operation
from rules.paths import check_path, parse_template
from rules.request import DEFAULT_PORTS, authority
from rules.schema import BUILT_IN
from rules.spellings import parse_method
from rules.trying.replay import Seen
from rules.trying.templates import Tally, Templates

MOST_PATHS = 100_000
"""Different paths that are kept; of what is seen beyond them only the number."""
MOST_WRITTEN = 5_000
"""Templates in the file: more is nothing that anybody reviews."""
LONGEST_TEMPLATE = 400
_ODD = re.compile(r"[^a-z0-9.-]+")


@dataclass(frozen=True, slots=True)
class _Place:
    scheme: str
    host: str
    port: int

    @property
    def pattern(self) -> str:
        return authority(self.scheme, self.host, self.port)


@dataclass(frozen=True, slots=True, order=True)
class _How:
    """How calls are to be treated."""

    effect: Effect
    risk: str
    use: tuple[str, ...]


@dataclass(slots=True)
class _Calls:
    """Of one place, method and path."""

    tally: Tally = field(default_factory=Tally)
    held: str | None = None
    """The tier in which some of them were held."""
    use: tuple[str, ...] | None = None
    """What went in, the last time that it is known."""


@dataclass(slots=True)
class Learner:
    """Takes calls of one agent, in any order, and writes what covers them."""

    agent: str
    policy: Policy
    """In force: what credentials and tiers are."""
    calls: int = 0
    """That are covered."""
    denied: int = 0
    """That were denied, and are left out."""
    left_out: int = 0
    """That cannot be written down, or came after too many others."""
    _seen: dict[tuple[_Place, str, str], _Calls] = field(default_factory=dict)
    _tunnels: dict[_Place, Tally] = field(default_factory=dict)

    def take(self, seen: Seen, time: str) -> None:
        """One call, at a time as records write it."""
        glimpse = seen.glimpse
        place = _Place(glimpse.scheme, glimpse.host, glimpse.port)
        if seen.said == "deny":
            self.denied += 1
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
            self.calls += 1
            return
        key = (place, glimpse.method, glimpse.path)
        calls = self._seen.get(key)
        if calls is None:
            if len(self._seen) >= MOST_PATHS:
                self.left_out += 1
                return
            calls = self._seen[key] = _Calls()
        self.calls += 1
        calls.tally.add(one)
        if seen.said == "hold":
            tier = max(seen.tiers, key=_strength(self.policy), default=None)
            calls.held = tier or calls.held or "high"
        if seen.credentials is not None:
            calls.use = self._usable(seen.credentials, place)

    def text(self, since: str = "", until: str = "") -> str:
        """The file. Empty of rules if nothing was seen."""
        rules = list(self._rules())
        used = sorted({name for rule in rules for name in rule.how.use})
        risks = sorted({rule.how.risk for rule in rules if rule.how.effect == "hold"})
        lines = [*self._head(since, until, rules), "version: 1"]
        if used:
            lines.append("credentials:")
            lines += [_credential(self.policy.credentials[name]) for name in used]
        lines += self._people(risks)
        lines.append("rules:" if rules else "rules: []")
        for rule in rules:
            lines += rule.lines(self.agent)
        return "\n".join(lines) + "\n"

    def _rules(self) -> Iterator[_Rule]:
        by_method: defaultdict[tuple[_Place, str], Templates[_How]] = defaultdict(Templates)
        usual = self._usual()
        for (place, method, path), calls in self._seen.items():
            use = calls.use if calls.use is not None else usual.get(place, ())
            by_method[place, method].add(path, self._how(method, calls, use), calls.tally)
        grouped: defaultdict[tuple[_Place, _How], dict[str, dict[str, Tally]]] = defaultdict(dict)
        written = 0
        for (place, method), templates in sorted(by_method.items(), key=_by_place):
            found = sorted(templates.found(), key=lambda each: each[:2])
            self._lose(templates.left_out)
            for template, how, tally in found:
                written += 1
                if written > MOST_WRITTEN or not _is_template(template):
                    self._lose(tally.calls)
                    continue
                if how.effect == "hold" and not how.risk:
                    how = replace(how, risk=_risk(method, template))
                grouped[place, how].setdefault(method, {})[template] = tally
        ids: Counter[str] = Counter()
        for (place, how), methods in grouped.items():
            yield _Rule(_name(ids, place, how), place, how, methods)
        for place, tally in sorted(self._tunnels.items(), key=lambda item: item[0].pattern):
            how = _How("tunnel", "", ())
            yield _Rule(_name(ids, place, how), place, how, {}, tally)

    def _lose(self, calls: int) -> None:
        self.left_out += calls
        self.calls -= calls

    def _how(self, method: str, calls: _Calls, use: tuple[str, ...]) -> _How:
        """The risk is left open where nobody has said it."""
        if method in READS and calls.held is None:
            return _How("allow", "low", use)
        tier = calls.held
        return _How("hold", tier if tier is not None and tier in self.policy.tiers else "", use)

    def _usual(self) -> dict[_Place, tuple[str, ...]]:
        """What mostly goes in, by place."""
        found: defaultdict[_Place, Counter[tuple[str, ...]]] = defaultdict(Counter)
        for (place, _, _), calls in self._seen.items():
            if calls.use is not None:
                found[place][calls.use] += calls.tally.calls
        return {place: counter.most_common(1)[0][0] for place, counter in found.items()}

    def _usable(self, names: Iterable[str], place: _Place) -> tuple[str, ...]:
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

    def _head(self, since: str, until: str, rules: Sequence[_Rule]) -> Iterator[str]:
        yield "# A proposal, made from what was seen; read it before you use it. It covers methods"
        yield "# and paths: what the rules in force ask of query, headers, body, time and source is"
        yield "# not in it, and neither are their limits."
        yield f"# Agent {json.dumps(self.agent)}: {_many(self.calls, 'call')} covered."
        if self.denied:
            yield f"# {_many(self.denied, 'denied call')} left out."
        if self.left_out:
            yield f"# {_many(self.left_out, 'call')} left out that cannot be written down here."
        if since or until:
            yield f"# Seen from {_time(since) or 'the beginning'} to {_time(until) or 'now'}."
        if any(path.endswith("**") for rule in rules for path in rule.paths):
            yield "# Paths with ** are wider than what was seen: look at them first."

    def _people(self, risks: Sequence[str]) -> list[str]:
        """Tiers that are not the built-in ones, with the groups that they name."""
        own = [self.policy.tiers[name] for name in risks]
        own = [tier for tier in own if BUILT_IN.get(tier.name) != tier]
        groups = dict.fromkeys(q.group for tier in own for q in tier.quorum)
        known = [group for group in groups if group in self.policy.approvers]
        lines = []
        if known:
            lines.append("approvers:")
            lines += [f"  {_plain(g)}: {json.dumps(list(self.policy.approvers[g]))}" for g in known]
        if own:
            lines.append("tiers:")
            lines += [f"  {_plain(tier.name)}: {_tier(tier)}" for tier in own]
        return lines


@dataclass(frozen=True, slots=True)
class _Rule:
    id: str
    place: _Place
    how: _How
    methods: dict[str, dict[str, Tally]]
    """By method the templates with their calls."""
    tunnel: Tally | None = None

    @property
    def paths(self) -> set[str]:
        return {template for templates in self.methods.values() for template in templates}

    def lines(self, agent: str) -> Iterator[str]:
        """As YAML. Nothing but numbers and times stands in its comment."""
        whole = Tally()
        for tally in [t for each in self.methods.values() for t in each.values()]:
            whole.add(tally)
        whole = self.tunnel or whole
        seen = f"first {_time(whole.first)}, last {_time(whole.last)}"
        yield f"  # {_many(whole.calls, 'call')}, {seen}"
        yield f"  - id: {_plain(self.id)}"
        yield f"    agents: [{_plain(agent)}]"
        host = json.dumps(self.place.pattern)
        if self.tunnel is not None:
            yield f"    match: {{host: {host}}}"
        else:
            yield "    match:"
            for methods, paths in self._together():
                yield f"      - method: {methods}"
                yield f"        host: {host}"
                if self.place.scheme == "http":
                    yield "        scheme: http"
                yield "        path:"
                for path, tally in paths.items():
                    yield f"          - {json.dumps(path)}  # {tally.calls}"
        yield f"    effect: {self.how.effect}"
        if self.how.effect == "hold":
            yield f"    risk: {_plain(self.how.risk)}"
        if self.how.use:
            yield f"    use: [{', '.join(map(_plain, self.how.use))}]"

    def _together(self) -> Iterator[tuple[str, dict[str, Tally]]]:
        """Methods whose paths are the same stand together."""
        left = dict(self.methods)
        for method, paths in self.methods.items():
            if method not in left:
                continue
            alike = [other for other, its in left.items() if its.keys() == paths.keys()]
            whole: dict[str, Tally] = {path: Tally() for path in paths}
            for other in alike:
                for path, tally in left.pop(other).items():
                    whole[path].add(tally)
            yield f"[{', '.join(alike)}]", whole


def _by_place(item: tuple[tuple[_Place, str], Any]) -> tuple[str, str, bool, str]:
    (place, method), _ = item
    return place.pattern, place.scheme, method not in READS, method


def _can_be_written(place: _Place, method: str, path: str, said: Effect) -> bool:
    """Whether the ledger has it as the rules would: a forged record may hold anything."""
    try:
        if parse_host(place.host) != place.host or not 0 < place.port < 65536:
            return False
        if said != "tunnel":
            parse_method(method)
            check_path(path)
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


def _name(ids: Counter[str], place: _Place, how: _How) -> str:
    word = {"allow": "read", "tunnel": "tunnel"}.get(how.effect, f"ask-{how.risk}")
    base = _ODD.sub("-", f"{place.pattern}-{word}".lower()).strip(".-")[:80] or "rule"
    ids[base] += 1
    return base if ids[base] == 1 else f"{base}-{ids[base]}"


def _strength(policy: Policy) -> Any:
    def strength(name: str) -> tuple[int, str]:
        tier = policy.tiers.get(name)
        return (sum(q.count for q in tier.quorum) if tier else 0, name)

    return strength


def _credential(credential: Credential) -> str:
    hosts = ", ".join(json.dumps(describe_host(pattern)) for pattern in credential.hosts)
    parts = [f"secret: {json.dumps(str(credential.secret))}", f"hosts: [{hosts}]"]
    inject = credential.inject
    if inject.username is not None:
        parts.append(f"inject: {{basic: {{username: {json.dumps(inject.username)}}}}}")
    elif (inject.header, inject.format) == ("authorization", "Bearer {secret}"):
        parts.append("inject: bearer")
    else:
        header, form = json.dumps(inject.header), json.dumps(inject.format)
        parts.append(f"inject: {{header: {header}, format: {form}}}")
    if credential.env is not None:
        env = credential.env
        parts.append(f"env: {{name: {json.dumps(env.name)}, shape: {json.dumps(env.shape)}}}")
    return f"  {_plain(credential.name)}: {{{', '.join(parts)}}}"


def _tier(tier: Tier) -> str:
    quorum = ", ".join(f"{{group: {_plain(q.group)}, count: {q.count}}}" for q in tier.quorum)
    told = {
        "quorum": f"[{quorum}]",
        "exclude": json.dumps(list(tier.exclude)),
        "decide_within": f"{tier.decide_within}s",
        "execute_within": f"{tier.execute_within}s",
        "denials": str(tier.denials),
        "reason": tier.reason,
        "confirm": tier.confirm,
    }
    return "{" + ", ".join(f"{name}: {value}" for name, value in told.items()) + "}"


def _plain(name: str) -> str:
    """A name of the policy, in quotes: it may look like a number."""
    return json.dumps(name)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _time(text: str) -> str:
    """To the minute; nothing that is no time."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d):.*Z", text)
    return f"{found[1]}Z" if found else ""
