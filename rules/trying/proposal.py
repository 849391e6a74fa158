"""A proposed policy as a file for people to review. Every word in it that an agent chose stands in
quotes, in one line; in comments are nothing but numbers and times.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rules.describe import describe_host
from rules.model import Credential, Effect, Policy, Tier
from rules.request import authority
from rules.schema import BUILT_IN
from rules.trying.templates import Tally


@dataclass(frozen=True, slots=True)
class Place:
    """Where calls go."""

    scheme: str
    host: str
    port: int

    @property
    def pattern(self) -> str:
        return authority(self.scheme, self.host, self.port)


@dataclass(frozen=True, slots=True, order=True)
class How:
    """How calls are to be treated."""

    effect: Effect
    risk: str
    use: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProposedRule:
    id: str
    place: Place
    how: How
    methods: dict[str, dict[str, Tally]]
    """By method the templates with their calls."""
    tunnel: Tally | None = None

    @property
    def paths(self) -> set[str]:
        return {template for templates in self.methods.values() for template in templates}

    @property
    def tallies(self) -> list[Tally]:
        return [tally for templates in self.methods.values() for tally in templates.values()]

    def lines(self, agent: str) -> Iterator[str]:
        """As YAML."""
        whole = Tally()
        for tally in self.tallies:
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
                    denied = f", and {tally.denied} that were denied" if tally.denied else ""
                    yield f"          - {json.dumps(path)}  # {tally.calls}{denied}"
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


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is proposed for one agent."""

    agent: str
    policy: Policy
    """In force: what credentials and tiers are."""
    rules: tuple[ProposedRule, ...]
    """None if nothing was seen."""
    calls: int
    """That are covered."""
    denied: int
    """That were denied."""
    left_out: int
    """That cannot be written down, or came after too many others."""

    @property
    def denied_covered(self) -> int:
        """Of those that were denied, how many fall under the proposed rules all the same."""
        return sum(tally.denied for rule in self.rules for tally in rule.tallies)

    def text(self, since: str = "", until: str = "") -> str:
        """The file."""
        used = sorted({name for rule in self.rules for name in rule.how.use})
        risks = sorted({rule.how.risk for rule in self.rules if rule.how.effect == "hold"})
        lines = [*self._head(since, until), "version: 1"]
        if used:
            lines.append("credentials:")
            lines += [_credential(self.policy.credentials[name]) for name in used]
        lines += self._people(risks)
        lines.append("rules:" if self.rules else "rules: []")
        for rule in self.rules:
            lines += rule.lines(self.agent)
        return "\n".join(lines) + "\n"

    def _head(self, since: str, until: str) -> Iterator[str]:
        yield "# A proposal, made from what was seen; read it before you use it. It covers methods"
        yield "# and paths: what the rules in force ask of query, headers, body, time and source is"
        yield "# not in it, and neither are their limits."
        yield f"# Agent {json.dumps(self.agent)}: {_many(self.calls, 'call')} covered."
        if self.denied > self.denied_covered:
            yield f"# {_many(self.denied - self.denied_covered, 'denied call')} left out."
        if self.denied_covered:
            yield f"# {_many(self.denied_covered, 'denied call')} would fall under these rules, as"
            yield "# marked: something else than method and path told them apart."
        if self.left_out:
            yield f"# {_many(self.left_out, 'call')} left out that cannot be written down here."
        if since or until:
            yield f"# Seen from {_time(since) or 'the beginning'} to {_time(until) or 'now'}."
        if any(path.endswith("**") for rule in self.rules for path in rule.paths):
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
