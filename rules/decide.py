"""Decisions: what the policy says of one call, with the reason. Pure and total.

The starting state is deny: no rule, two credentials for one slot, a failure in here, all deny.
Of the rules that match, deny beats hold beats allow, whatever their order in the file; a tunnel
counts only alone, and only for a host without a credential.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from operator import attrgetter

from rules.basis import Definitions
from rules.conditions import Condition
from rules.counting import demands_of, doubt_about
from rules.describe import describe_match
from rules.errors import Unreadable
from rules.limits import Demand, Over, sums_body
from rules.matching import Matcher, all_hold, host_holds, is_wide
from rules.misses import Miss, miss
from rules.model import Credential, Decision, HostPattern, Policy, Rule, Subject, Tier
from rules.paths import parse_template, wide_texts
from rules.places import parse_place
from rules.reading.call import Reading
from rules.request import DEFAULT_PORTS, Request
from rules.visible import is_invisible, visible
from rules.words import describe_over, describe_tier, fill_summary, reads_body

MAX_SHOWN_URL = 200
"""Characters of a URL in a sentence."""
MAX_RETYPED = 120
"""Characters; what is longer, or hides something, cannot be retyped and the path stands in."""
_MAX_HINTS = 3
_MOST_COMPARED = 500
"""Rules that a denied call is compared with, to say what it lacks."""
_PLANS = 2_000
"""Places called by agents whose candidates are remembered."""
_MOST_PLANNED = 500
"""Candidates of one place; where there are more, remembering them saves little."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A rule under one of its hosts, which the index's key stands for."""

    order: int
    rule: Rule
    scheme: str
    port: int | None
    """The only port it is about; None: every port, of a match without a host."""
    matcher: Matcher
    excepts: tuple[Matcher, ...]
    wide: bool
    """Whether the rule reads widely."""
    prefixes: tuple[str, ...]
    """One of them begins every path that matches, as the rule reads it."""
    conditions: tuple[Condition, ...]
    """What is left to look at besides the index's keys, scheme and port."""

    @classmethod
    def of(
        cls,
        order: int,
        rule: Rule,
        host: HostPattern | None,
        matcher: Matcher,
        excepts: tuple[Matcher, ...],
    ) -> _Entry:
        scheme, wide = matcher.match.scheme, is_wide(rule)
        templates = [parse_template(path) for path in matcher.match.paths]
        prefixes = [t.wide_prefix if wide else t.literal_prefix for t in templates]
        return cls(
            order,
            rule,
            scheme,
            None if host is None else host.port or DEFAULT_PORTS[scheme],
            matcher,
            excepts,
            wide,
            tuple(prefixes) or ("/",),
            matcher.besides_index,
        )

    def doubt(self, call: Reading) -> str | None:
        """Why it cannot be told whether the call falls under the rule; None if it can."""
        doubt = self.matcher.doubt(call)
        if doubt is not None or not self.matcher.holds(call, wide=False):
            return doubt
        doubts = [h.doubt(call) for h in self.excepts if h.is_at_host(call)]
        return next((doubt for doubt in doubts if doubt is not None), None)


class Rulebook:
    """A policy with its rules indexed by agent and host. Immutable; safe for many threads."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._entries: defaultdict[tuple[str, str], list[_Entry]] = defaultdict(list)
        self._calls: defaultdict[tuple[str, str, str], list[_Entry]] = defaultdict(list)
        """By method too, "" for any; without tunnels, which are not about calls."""
        self._plans: dict[tuple[Subject, str, str], list[_Entry]] = {}
        self._rules: defaultdict[str, list[int]] = defaultdict(list)
        self._definitions = Definitions(policy)
        self._credential_order = {name: i for i, name in enumerate(policy.credentials)}
        self._hosts: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self.streams = any(rule.stream for rule in policy.rules)
        """Whether any call may be sent before its body was read."""
        for order, rule in enumerate(policy.rules):
            self._index(order, rule)
        self._with_credential = {
            _host_key(host) for c in policy.credentials.values() for host in c.hosts
        }

    def _index(self, order: int, rule: Rule) -> None:
        excepts = tuple(Matcher.of(match) for match in rule.excepts)
        for agent in rule.agents:
            self._rules[agent].append(order)
        for match in rule.matches:
            matcher = Matcher.of(match)
            for host in match.hosts or (None,):
                entry = _Entry.of(order, rule, host, matcher, excepts)
                for agent in rule.agents:
                    self._entries[agent, _host_key(host)].append(entry)
                    if rule.effect != "tunnel":
                        for method in match.methods or ("",):
                            self._calls[agent, _host_key(host), method].append(entry)
                    if host is not None and rule.effect in ("allow", "hold"):
                        self._hosts[agent][_host_key(host)] = None

    def rules_for(self, subject: Subject) -> tuple[Rule, ...]:
        """The rules that name the agent or one of its tags, in file order."""
        orders = {order for name in _names(subject) for order in self._rules.get(name, ())}
        return tuple(self.policy.rules[order] for order in sorted(orders))

    def decide(self, subject: Subject, request: Request) -> Decision:
        """What the policy says of the call: allow, hold or deny, never tunnel. Never raises."""
        try:
            return self._decide(subject, Reading(request, subject))
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the answer is deny
            return _failed(error)

    def over(self, decision: Decision, over: Sequence[Over], request: Request) -> Decision:
        """The decision for a call that goes beyond these limits: deny if one of them says so, else
        people are asked. Never raises."""
        try:
            return self._over(decision, over, Reading(request))
        except Exception as error:  # noqa: BLE001 - as above
            return _failed(error)

    def tunnel(self, subject: Subject, host: str, port: int) -> Decision:
        """Whether a connection may be passed on undecrypted: tunnel, or deny with the reason.

        Deny only means that the connection is to be opened, and each call in it decided. Never
        raises.
        """
        try:
            return self._tunnel(subject, host, port)
        except Exception as error:  # noqa: BLE001 - as above
            return _failed(error)

    def _decide(self, subject: Subject, call: Reading) -> Decision:
        matching = self.matching(subject, call)
        basis = self._definitions.basis(subject, matching)
        if not matching:
            return self._nothing_matches(subject, call, basis)
        request = call.request
        denying = [rule for rule in matching if rule.effect == "deny"]
        if denying:
            first = denying[0]
            why = f": {fill_summary(first.summary, request, call)}" if first.summary else ""
            return Decision(
                "deny",
                f'Rule "{first.id}" denies {_what(request)}{why}. A retry or another spelling of '
                "the request will be denied too.",
                rules=_ids(denying),
                basis=basis,
            )
        credentials = self._credentials(matching, request)
        refusal = _unfit(credentials, request) if credentials else None
        if refusal is not None:
            return Decision("deny", refusal, rules=_ids(matching), basis=basis)
        holding = [rule for rule in matching if rule.effect == "hold"]
        deciding = holding or matching
        decision = Decision(
            "allow",
            f"{_rules_say(deciding, 'allow')} {_what(request)}.",
            rules=_ids(deciding),
            credentials=tuple([credential.name for credential in credentials]),
            summaries=tuple(
                [fill_summary(r.summary, request, call) for r in deciding if r.summary]
            ),
            impacts=_distinct([rule.impact for rule in deciding]),
            undos=_distinct([rule.undo for rule in deciding]),
            limits=_demands(deciding, call),
            basis=basis,
        )
        if holding:
            allowing = [rule for rule in matching if rule.effect == "allow"]
            return self._held(decision, holding, _ids(allowing), call)
        return self._streamed(decision, subject, call, matching) if self.streams else decision

    def _streamed(
        self, decision: Decision, subject: Subject, call: Reading, allows: list[Rule]
    ) -> Decision:
        """The same decision, and that the body may pass unread: one of the rules says so, and of
        all that could match here none looks at it."""
        streaming = [rule for rule in allows if rule.stream]
        if not streaming or any(reads_body(rule) for rule in allows):
            return decision
        request = call.request
        for entry in self._candidates(subject, request.host):
            if entry.port in (None, request.port) and (
                any(m.needs_body for m in (entry.matcher, *entry.excepts))
                or (sums_body(entry.rule.limits) and entry.matcher.holds(call, wide=True))
            ):
                return decision
        limits = [rule.body_limit for rule in streaming if rule.body_limit is not None]
        return replace(decision, stream=True, body_limit=min(limits, default=None))

    def _held(
        self, decision: Decision, holds: list[Rule], allowed_by: tuple[str, ...], call: Reading
    ) -> Decision:
        """The same decision, but people are asked first."""
        named = {rule.tier: self.policy.tiers[rule.tier] for rule in holds if rule.tier}
        tiers = sorted(named.values(), key=_strictness, reverse=True)
        asking = [r for r in holds if r.tier and named[r.tier].confirm == "retype"]
        place, value = _to_retype(asking, call) if asking else (None, None)
        risk = "; ".join(f"{tier.name} risk: {describe_tier(tier)}" for tier in tiers)
        what = _what(call.request)
        return replace(
            decision,
            effect="hold",
            sentence=f"{_rules_say(holds, 'hold')} {what} until people approve it ({risk}).",
            allowed_by=allowed_by,
            tiers=tuple(tier.name for tier in tiers),
            risk=tiers[0].name,
            confirm_place=place,
            confirm_value=value,
        )

    def _over(self, decision: Decision, over: Sequence[Over], call: Reading) -> Decision:
        denying = [each for each in over if each.demand.limit.over == "deny"]
        if denying or not over:
            why = " ".join([describe_over(each) for each in denying])
            rules = tuple(dict.fromkeys([each.demand.rule for each in denying]))
            return Decision("deny", why, rules=rules or decision.rules, basis=decision.basis)
        why = " ".join([describe_over(each) for each in over])
        if decision.effect == "hold":
            return replace(decision, sentence=f"{decision.sentence} {why}")
        ids = {each.demand.rule for each in over}
        holding = [rule for rule in self.policy.rules if rule.id in ids]
        held = self._held(decision, holding, (), call)
        return replace(held, sentence=f"{held.sentence} {why}", stream=False, body_limit=None)

    def _tunnel(self, subject: Subject, host: str, port: int) -> Decision:
        at = visible(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", MAX_SHOWN_URL)
        reaching = [
            entry for entry in self._candidates(subject, host) if entry.port in (None, port)
        ]
        ordered = {e.order: e.rule for e in sorted(reaching, key=lambda e: e.order)}
        rules = list(ordered.values())
        tunnels = [rule for rule in rules if rule.effect == "tunnel"]
        others = [rule for rule in rules if rule.effect != "tunnel"]
        basis = self._definitions.basis(subject, rules)
        if not tunnels:
            reason = f'No rule passes {at} on undecrypted for agent "{visible(subject.name)}".'
        elif others:
            reason = f'{at} is not passed on undecrypted, since rule "{others[0].id}" is about it.'
        elif not self._with_credential.isdisjoint(_host_keys(host)):
            reason = f"{at} is a host of a credential, and such hosts are never tunnelled."
        else:
            sentence = f"{_rules_say(tunnels, 'pass')} {at} on undecrypted."
            return Decision("tunnel", sentence, rules=_ids(tunnels), basis=basis)
        return Decision("deny", reason, basis=basis)

    def _candidates(
        self, subject: Subject, host: str, method: str | None = None
    ) -> Iterator[_Entry]:
        """The subject's entries under this host name, whatever the port; with `method` those that
        a call with it may match."""
        keys = _host_keys(host)
        for name in _names(subject):
            for key in keys:
                if method is None:
                    yield from self._entries.get((name, key), ())
                else:
                    yield from self._calls.get((name, key, method), ())
                    yield from self._calls.get((name, key, ""), ())

    def _plan(self, subject: Subject, host: str, method: str) -> Sequence[_Entry]:
        """The candidates for a call, in file order; agents mostly call the same few places."""
        key = subject, host, method
        plan = self._plans.get(key)
        if plan is None:
            plan = sorted(self._candidates(subject, host, method), key=attrgetter("order"))
            if len(plan) <= _MOST_PLANNED:
                if len(self._plans) >= _PLANS:
                    self._plans = {}
                self._plans[key] = plan
        return plan

    def matching(self, subject: Subject, call: Reading) -> list[Rule]:
        """The rules under which the call falls, in file order; tunnels are none of them."""
        request = call.request
        port, path = request.port, request.path
        found: list[Rule] = []
        for entry in self._plan(subject, request.host, request.method):
            # The prefix settles most cases quickly.
            if entry.wide:
                if not any(t.startswith(entry.prefixes) for t in wide_texts(path)):
                    continue
            elif not path.startswith(entry.prefixes):
                continue
            if entry.port not in (None, port):
                continue
            rule = entry.rule
            if found and found[-1] is rule:
                continue  # by another of its matches
            if not _falls_under(entry, call):
                continue
            if rule.limits and not entry.wide and not _can_be_counted(rule, call):
                continue
            found.append(rule)
        return found

    def _credentials(self, rules: Sequence[Rule], request: Request) -> list[Credential]:
        """What the rules use and what may go to this place (law 5), in file order."""
        used = {name for rule in rules for name in rule.use}
        if request.scheme != "https" or not used:
            return []
        ordered = sorted(used, key=self._credential_order.__getitem__)
        return [
            credential
            for credential in map(self.policy.credentials.__getitem__, ordered)
            if any(host_holds(h, request.host, request.port, "https") for h in credential.hosts)
        ]

    def _nothing_matches(self, subject: Subject, call: Reading, basis: str) -> Decision:
        """A denial that says what was looked for, and what comes nearest to it; or what is in doubt
        where the call would go out but for that."""
        for entry in self._candidates(subject, call.request.host, call.request.method):
            if entry.port in (None, call.request.port) and entry.rule.effect == "allow":
                in_doubt = _in_doubt(entry, call, basis)
                if in_doubt is not None:
                    return in_doubt
        return Decision("deny", self._nearest(subject, call), basis=basis)

    def misses(self, subject: Subject, call: Reading, *, near: bool = False) -> list[Miss]:
        """How the call misses each of the subject's rules at its host, nearest first; with `near`
        those only that are about its path. Of very many not all are looked at."""
        request = call.request
        found: dict[int, Miss | None] = {}
        for entry in islice(self._candidates(subject, request.host), _MOST_COMPARED):
            order = entry.order
            if entry.rule.effect == "tunnel" or entry.port not in (None, request.port):
                continue
            if order in found and found[order] is None:
                continue
            if near and not _may_be_at(entry, request.path):
                continue
            other, missed = found.get(order), miss(entry.rule, entry.matcher, entry.excepts, call)
            if missed is None or other is None or missed.distance < other.distance:
                found[order] = missed
        misses = [found[order] for order in sorted(found)]
        every = [one for one in misses if one is not None and (one.is_near or not near)]
        return sorted(every, key=attrgetter("distance"))

    def _nearest(self, subject: Subject, call: Reading) -> str:
        """Says what was looked for, and what comes nearest to it."""
        request = call.request
        agent = f'agent "{visible(subject.name)}"'
        start = f"No rule lets {agent} make this call: {_what(request)}"
        for missed in self.misses(subject, call, near=True):
            if (
                missed.is_of_values and missed.rule.effect != "deny"
            ):  # what a rule spares is for nobody to aim at
                return f"{start}. {missed.sentence(call)}"
        here = {e.rule.id: e for e in self._candidates(subject, request.host)}
        if any(e.rule.effect == "tunnel" for e in here.values()):
            return f"{start}; a rule passes this host on undecrypted only, as TLS."
        near = dict.fromkeys(
            describe_match(e.matcher.match)
            for e in here.values()
            if e.rule.effect in ("allow", "hold")
        )
        if near:
            return f"{start}. There are rules for {_few(list(near), '; ')}."
        hosts = [host for name in _names(subject) for host in self._hosts.get(name, ())]
        if hosts:
            return f"{start}. There are rules for the hosts {_few(_nearest(request.host, hosts))}."
        if self.rules_for(subject):
            return f"{start}."
        tags = f" or its tags {', '.join(sorted(subject.tags))}" if subject.tags else ""
        return f"{start}; no rule names {agent}{tags}."


def _failed(error: Exception) -> Decision:
    """A deny (law 1)."""
    kind = type(error).__name__
    return Decision("deny", f"Keybroker failed to decide on this call ({kind}); it is denied.")


def _in_doubt(entry: _Entry, call: Reading, basis: str) -> Decision | None:
    """The denial of a call that the rule would allow but for what is in doubt about it."""
    code, doubt = "request_ambiguous", entry.doubt(call)
    if doubt is None and entry.rule.limits and _falls_under(entry, call):
        try:
            code, doubt = "policy_denied", doubt_about(entry.rule.limits, call)
        except Unreadable as error:
            code, doubt = "request_ambiguous", str(error)
    if doubt is None:
        return None
    sentence = (
        f'Rule "{entry.rule.id}" cannot tell whether it allows {_what(call.request)}: {doubt}.'
    )
    if code == "request_ambiguous":
        sentence += " Send it in the one way in which everybody reads it alike."
    return Decision("deny", sentence, rules=(entry.rule.id,), code=code, basis=basis)


def _may_be_at(entry: _Entry, path: str) -> bool:
    """Whether the path may fall under one of the entry's templates."""
    texts = wide_texts(path) if entry.wide else (path,)
    return any(text.startswith(entry.prefixes) for text in texts)


def _falls_under(entry: _Entry, call: Reading) -> bool:
    """Whether the call is one of the rule's, its limits aside."""
    return (
        entry.scheme == call.request.scheme
        and all_hold(entry.conditions, call, wide=entry.wide)
        and not any(hole.holds_at_host(call, wide=not entry.wide) for hole in entry.excepts)
    )


def _can_be_counted(rule: Rule, call: Reading) -> bool:
    """Whether each number that the rule sums up stands in the call, once and plainly."""
    try:
        return doubt_about(rule.limits, call) is None
    except Unreadable:
        return False


def _demands(rules: Sequence[Rule], call: Reading) -> tuple[Demand, ...]:
    """What the call takes of the rules' limits."""
    limited = [rule for rule in rules if rule.limits]
    if not limited:
        return ()
    return tuple([d for rule in limited for d in demands_of(rule.id, rule.limits, call)])


def _unfit(credentials: Sequence[Credential], request: Request) -> str | None:
    """Why the credentials cannot go into this request, if so."""
    slots: dict[str, str] = {}
    for credential in credentials:
        slot, name = credential.inject.header, credential.name
        if slots.setdefault(slot, name) != name:
            return (
                f"Two credentials, {slots[slot]} and {name}, would go into the header {slot} of "
                "this call; the policy must be mended."
            )
    return None


def _to_retype(holds: Sequence[Rule], call: Reading) -> tuple[str, str]:
    """The place and the value that a reviewer retypes: the path unless a rule's place has one."""
    for rule in holds:
        value = call.at(parse_place(rule.confirm)) if rule.confirm else None
        if rule.confirm and value is not None and _can_be_retyped(value):
            return rule.confirm, value
    return "path", call.request.path


def _can_be_retyped(value: str) -> bool:
    return (
        0 < len(value) <= MAX_RETYPED
        and value == value.strip()
        and not any(is_invisible(character) for character in value)
    )


def _strictness(tier: Tier) -> tuple[int, bool, bool, bool, str]:
    people = sum(entry.count for entry in tier.quorum)
    asks_reason = tier.reason == "required"
    return people, tier.confirm == "retype", asks_reason, tier.name == "high", tier.name


def _names(subject: Subject) -> list[str]:
    """What rules may call the subject by; a name that looks like a tag is none."""
    tags = [f"tag:{tag}" for tag in subject.tags]
    return tags if subject.name.startswith("tag:") else [subject.name, *tags]


def _host_key(host: HostPattern | None) -> str:
    if host is None:
        return ""
    return f"*.{host.host}" if host.wildcard else host.host


@lru_cache(4096)
def _host_keys(host: str) -> list[str]:
    """Every index key that a host name may stand under."""
    labels = host.split(".")
    wildcards = ["*." + ".".join(labels[cut:]) for cut in range(1, len(labels))]
    return [host, *wildcards, ""]


def _distinct(texts: Sequence[str | None]) -> tuple[str, ...]:
    said = [text for text in texts if text]
    return tuple(dict.fromkeys(said)) if said else ()


def _ids(rules: Sequence[Rule]) -> tuple[str, ...]:
    return tuple([rule.id for rule in rules])


def _what(request: Request) -> str:
    """The call without its query, which may hold what sentences should not repeat."""
    url = f"{request.scheme}://{request.authority}{request.path}"
    how = " as a WebSocket" if request.upgrade else ""
    return f"{visible(request.method)} {visible(url, MAX_SHOWN_URL)}{how}"


def _rules_say(rules: Sequence[Rule], verb: str) -> str:
    """`Rule "a" allows`, `Rules "a", "b" allow`."""
    ids = ", ".join([f'"{rule.id}"' for rule in rules])
    if len(rules) > 1:
        return f"Rules {ids} {verb}"
    return f"Rule {ids} {verb}{'es' if verb.endswith('s') else 's'}"


def _nearest(host: str, hosts: Sequence[str]) -> list[str]:
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
