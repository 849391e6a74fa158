"""Decisions: what the policy says of one call, with the reason. Pure and total.

The starting state is deny: no rule, two credentials for one slot, a failure in here, all deny.
Of the rules that match, deny beats hold beats allow, whatever their order in the file; a tunnel
counts only alone, and only for a host without a credential.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from rules.basis import Definitions
from rules.counting import demands_of, doubt_about
from rules.errors import Unreadable
from rules.index import Entry, Index, host_key, host_keys
from rules.limits import Demand, Over, sums_body
from rules.matching import host_holds, takes_path
from rules.model import Credential, Decision, Deferred, Policy, Rule, Subject, Tier
from rules.nearest import what_is_missing, what_would_pass
from rules.paths import ENCODED_SLASH, SLASH_REFUSED, wide_texts
from rules.places import parse_place
from rules.reading.call import Reading
from rules.request import Request
from rules.visible import is_invisible, visible
from rules.words import (
    MAX_SHOWN_URL,
    describe_call,
    describe_over,
    fill_summary,
    reads_body,
    rules_say,
    say_held,
)

_AMBIGUOUS = "request_ambiguous"
MAX_RETYPED = 120
"""Characters; what is longer, or hides something, cannot be retyped and the path stands in."""


class Rulebook:
    """A policy with its rules indexed by agent and host. Immutable; safe for many threads."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.index = Index(policy)
        self._definitions = Definitions(policy)
        self._asked_by: dict[tuple[str, ...], _Asked] = {}
        """What people are asked for by the tiers of rules that hold calls together."""
        self._credential_order = {name: i for i, name in enumerate(policy.credentials)}
        self.streams = any(rule.stream for rule in policy.rules)
        """Whether any call may be sent before its body was read."""
        self._with_credential = {
            host_key(host) for c in policy.credentials.values() for host in c.hosts
        }

    def rules_for(self, subject: Subject) -> tuple[Rule, ...]:
        """The rules that name the agent or one of its tags, in file order."""
        return self.index.rules_for(subject)

    def decide(self, subject: Subject, request: Request) -> Decision:
        """What the policy says of the call: allow, hold or deny, never tunnel. Never raises."""
        return self.decide_on(Reading(request, subject))

    def decide_on(self, call: Reading) -> Decision:
        """The same of a call that others read too: what is read of it is read once. Never
        raises."""
        try:
            return self._decide(call.subject, call)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the answer is deny
            return _failed(error)

    def matching(self, call: Reading) -> tuple[Rule, ...]:
        """The rules under which the call falls, in file order; tunnels are none of them."""
        return tuple(self._matching(call.subject, call))

    def settle(self, subject: Subject, call: Reading, matching: list[Rule]) -> Decision:
        """What the rules under which the call falls, one at least, make of it together. Never
        raises."""
        try:
            return self._settle(subject, call, matching, hint=False)
        except Exception as error:  # noqa: BLE001 - as above
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
        matching = self._matching(subject, call)
        if ENCODED_SLASH in call.request.path:
            here = self.index.candidates(subject, call.request.host)
            if not takes_path([entry.rule for entry in here], call.request.path):
                return _slash_refused(self._basis(subject, ()))
        if not matching:
            return self._nothing_matches(subject, call, self._basis(subject, ()))
        decision = self._settle(subject, call, matching, hint=True)
        if decision.effect == "allow" and self.streams:
            return self._streamed(decision, subject, call, matching)
        return decision

    def _basis(self, subject: Subject, rules: Sequence[Rule]) -> Deferred:
        return Deferred(partial(self._definitions.basis, subject, rules))

    def _settle(
        self, subject: Subject, call: Reading, matching: list[Rule], *, hint: bool
    ) -> Decision:
        """`hint`: of a held call it is also said how rules that allow miss it."""
        basis = self._basis(subject, matching)
        request = call.request
        denying = [rule for rule in matching if rule.effect == "deny"]
        if denying:
            said = Deferred(partial(_say_denied, denying[0], call))
            return Decision("deny", said, rules=_ids(denying), ground=basis)
        if ENCODED_SLASH in request.path and not takes_path(matching, request.path):
            return _slash_refused(basis, _ids(matching))
        credentials = self._credentials(matching, request)
        refusal = _unfit(credentials, request) if credentials else None
        if refusal is not None:
            return Decision("deny", refusal, rules=_ids(matching), ground=basis)
        holding = [rule for rule in matching if rule.effect == "hold"]
        deciding = holding or matching
        if holding:
            allowed_by = _ids([rule for rule in matching if rule.effect == "allow"])
            asked = self._asked(holding, call)
            told = subject if hint else None
            said = Deferred(partial(self._say_held, holding, asked.tiers, call, told))
        else:
            allowed_by, asked = (), _NOBODY
            said = Deferred(partial(_say_allowed, matching, request))
        return Decision(
            "hold" if holding else "allow",
            said,
            rules=_ids(deciding),
            allowed_by=allowed_by,
            tiers=asked.names,
            risk=asked.names[0] if asked.names else "low",
            credentials=tuple([credential.name for credential in credentials]),
            summaries=tuple(
                [fill_summary(r.summary, request, call) for r in deciding if r.summary]
            ),
            impacts=_distinct([rule.impact for rule in deciding]),
            undos=_distinct([rule.undo for rule in deciding]),
            confirm_place=asked.place,
            confirm_value=asked.value,
            limits=_demands(deciding, call),
            ground=basis,
        )

    def _streamed(
        self, decision: Decision, subject: Subject, call: Reading, allows: list[Rule]
    ) -> Decision:
        """The same decision, and that the body may pass unread: one of the rules says so, and of
        all that could match here none looks at it."""
        streaming = [rule for rule in allows if rule.stream]
        if not streaming or any(reads_body(rule) for rule in allows):
            return decision
        request = call.request
        for entry in self.index.candidates(subject, request.host):
            if entry.port in (None, request.port) and (
                any(m.may_read_body(call) for m in (entry.matcher, *entry.excepts))
                or (sums_body(entry.rule.limits) and entry.matcher.holds(call, wide=True))
            ):
                return decision
        limits = [rule.body_limit for rule in streaming if rule.body_limit is not None]
        return decision._replace(stream=True, body_limit=min(limits, default=None))

    def _asked(self, holds: Sequence[Rule], call: Reading) -> _Asked:
        """What the rules ask of people together."""
        names = tuple([rule.tier for rule in holds if rule.tier])
        asked = self._asked_by.get(names)
        if asked is None:
            named = [self.policy.tiers[name] for name in set(names)]
            tiers = sorted(named, key=_strictness, reverse=True)
            asked = self._asked_by[names] = _Asked.of(tiers)
        if not asked.retyped:
            return asked
        place, value = _to_retype([rule for rule in holds if rule.tier in asked.retyped], call)
        return asked._replace(place=place, value=value)

    def _say_held(
        self, holds: list[Rule], tiers: Sequence[Tier], call: Reading, subject: Subject | None
    ) -> str:
        """That the call is held; for a subject also what would have let it pass."""
        said = say_held(holds, tiers, call.request)
        beside = subject and what_would_pass(self.index, subject, call, holds)
        return f"{said} {beside}" if beside else said

    def _over(self, decision: Decision, over: Sequence[Over], call: Reading) -> Decision:
        denying = [each for each in over if each.demand.limit.over == "deny"]
        if denying or not over:
            why = " ".join([describe_over(each) for each in denying])
            rules = tuple(dict.fromkeys([each.demand.rule for each in denying]))
            return Decision("deny", why, rules=rules or decision.rules, ground=decision.ground)
        why = " ".join([describe_over(each) for each in over])
        if decision.effect == "hold":
            return decision._replace(said=f"{decision.sentence} {why}")
        ids = {each.demand.rule for each in over}
        holding = [rule for rule in self.policy.rules if rule.id in ids]
        asked = self._asked(holding, call)
        return decision._replace(
            effect="hold",
            said=f"{say_held(holding, asked.tiers, call.request)} {why}",
            tiers=asked.names,
            risk=asked.names[0],
            confirm_place=asked.place,
            confirm_value=asked.value,
            stream=False,
            body_limit=None,
        )

    def _tunnel(self, subject: Subject, host: str, port: int) -> Decision:
        at = visible(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", MAX_SHOWN_URL)
        reaching = [
            entry for entry in self.index.candidates(subject, host) if entry.port in (None, port)
        ]
        ordered = {e.order: e.rule for e in sorted(reaching, key=lambda e: e.order)}
        rules = list(ordered.values())
        tunnels = [rule for rule in rules if rule.effect == "tunnel"]
        others = [rule for rule in rules if rule.effect != "tunnel"]
        basis = self._basis(subject, rules)
        if not tunnels:
            reason = f'No rule passes {at} on undecrypted for agent "{visible(subject.name)}".'
        elif others:
            reason = f'{at} is not passed on undecrypted, since rule "{others[0].id}" is about it.'
        elif not self._with_credential.isdisjoint(host_keys(host)):
            reason = f"{at} is a host of a credential, and such hosts are never tunnelled."
        else:
            sentence = f"{rules_say(tunnels, 'pass')} {at} on undecrypted."
            return Decision("tunnel", sentence, rules=_ids(tunnels), ground=basis)
        return Decision("deny", reason, ground=basis)

    def _matching(self, subject: Subject, call: Reading) -> list[Rule]:
        plan = self.index.plan(subject, call.request.host, call.request.method)
        return taking(plan.at(call.request.path), call)

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

    def _nothing_matches(self, subject: Subject, call: Reading, basis: Deferred) -> Decision:
        """A denial that says what was looked for, and what comes nearest to it; or what is in doubt
        where the call would go out but for that."""
        path, port = call.request.path, call.request.port
        for entry in self.index.plan(subject, call.request.host, call.request.method).at(path):
            if entry.rule.effect == "allow" and entry.may_cover(path, port):
                in_doubt = _in_doubt(entry, call, basis)
                if in_doubt is not None:
                    return in_doubt
        said = Deferred(partial(what_is_missing, self.index, subject, call))
        return Decision("deny", said, ground=basis)


def taking(entries: Sequence[Entry], call: Reading) -> list[Rule]:
    """The rules under which the call falls, of entries in file order for its host and method."""
    port, path = call.request.port, call.request.path
    texts: tuple[str, ...] | None = None
    found: list[Rule] = []
    several = len(entries) > 1
    for entry in entries:
        if several:  # the prefix settles most cases quickly
            if entry.wide:
                texts = texts or wide_texts(path)
                if not texts[0].startswith(entry.prefixes) and (
                    len(texts) == 1 or not any(t.startswith(entry.prefixes) for t in texts)
                ):
                    continue
            elif not path.startswith(entry.prefixes):
                continue
        if entry.port not in (None, port):
            continue
        rule = entry.rule
        if found and found[-1] is rule:
            continue  # by another of its matches
        if not entry.covers(call):
            continue
        if rule.limits and not entry.wide and not _can_be_counted(rule, call):
            continue
        found.append(rule)
    return found


def _failed(error: Exception) -> Decision:
    """A deny (law 1)."""
    kind = type(error).__name__
    return Decision("deny", f"Keybroker failed to decide on this call ({kind}); it is denied.")


class _Asked(NamedTuple):
    """What people are asked for."""

    tiers: tuple[Tier, ...] = ()
    """Strictest first."""
    names: tuple[str, ...] = ()
    """Theirs."""
    retyped: frozenset[str] = frozenset()
    """The names of those that have a value retyped."""
    place: str | None = None
    value: str | None = None
    """What is to be retyped, and where it stands."""

    @classmethod
    def of(cls, tiers: Sequence[Tier]) -> _Asked:
        names = tuple([tier.name for tier in tiers])
        return cls(tuple(tiers), names, frozenset([t.name for t in tiers if t.confirm == "retype"]))


_NOBODY = _Asked()


def _say_allowed(rules: Sequence[Rule], request: Request) -> str:
    return f"{rules_say(rules, 'allow')} {describe_call(request)}."


def _say_denied(rule: Rule, call: Reading) -> str:
    request = call.request
    why = f": {fill_summary(rule.summary, request, call)}" if rule.summary else ""
    return (
        f'Rule "{rule.id}" denies {describe_call(request)}{why}. A retry or another spelling of '
        "the request will be denied too."
    )


def _slash_refused(basis: Deferred, rules: tuple[str, ...] = ()) -> Decision:
    """A deny of a path that no rule would let go as it is written."""
    return Decision("deny", SLASH_REFUSED, rules=rules, code=_AMBIGUOUS, ground=basis)


def _in_doubt(entry: Entry, call: Reading, basis: Deferred) -> Decision | None:
    """The denial of a call that the rule would allow but for what is in doubt about it."""
    code, doubt = _AMBIGUOUS, entry.doubt(call)
    if doubt is None and entry.rule.limits and entry.covers(call):
        try:
            code, doubt = "policy_denied", doubt_about(entry.rule.limits, call)
        except Unreadable as error:
            code, doubt = _AMBIGUOUS, str(error)
    if doubt is None:
        return None
    what = describe_call(call.request)
    sentence = f'Rule "{entry.rule.id}" cannot tell whether it allows {what}: {doubt}.'
    if code == _AMBIGUOUS:
        sentence += " Send it in the one way in which everybody reads it alike."
    return Decision("deny", sentence, rules=(entry.rule.id,), code=code, ground=basis)


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


def _distinct(texts: Sequence[str | None]) -> tuple[str, ...]:
    said = [text for text in texts if text]
    return tuple(dict.fromkeys(said)) if said else ()


def _ids(rules: Sequence[Rule]) -> tuple[str, ...]:
    return tuple([rule.id for rule in rules])
