"""A call of the ledger laid open: what was decided of it and by which policy, and what the present
policy would say. Reads only.

Query, headers and body are not kept; what hangs on them is told as far as the ledger tells it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from audit import query
from audit.past import Past, PastCall
from audit.record import Record
from keybroker.replaying import seen_of
from rules.model import Policy, Rule, Subject
from rules.trial.outcome import AMBIGUOUS, DENIED, HELD
from rules.trying.near import near_then
from rules.trying.replay import Change, Replay, Seen
from rules.words import describe_call, rules_say, say_held

NOT_READ = "policy version {} cannot be read here"


@dataclass(frozen=True, slots=True)
class Candidate:
    """The policy that is asked what it would say now."""

    name: str
    policy: Policy


def explain_past(
    db: sqlite3.Connection,
    id_: str,
    then: Callable[[int], Policy | None],
    agents: Mapping[str, Subject],
    candidate: Candidate | None,
) -> dict[str, Any] | None:
    """What is known of the call, or of the call that opened the approval; None if there is none."""
    records = query.show(db, id_)
    calls = [record.call for record in records if record.call is not None]
    if not calls:
        return None
    # A call that joined an approval stands among the records of the one that opened it.
    call = id_ if id_ in calls else calls[0]
    own = [record for record in records if record.call == call]
    past = next(iter(Past(db, call=call)), None)
    if past is None:
        return _undecided(own)
    subject = agents.get(past.agent) or Subject(past.agent)
    seen = seen_of(past, subject, datetime.fromisoformat(past.time))
    policy = None if past.policy is None else then(past.policy)
    told = _decided(past, seen, own, policy)
    told["present"] = None if candidate is None else _present(seen, candidate, then)
    return told


def _head(record: Record) -> dict[str, Any]:
    return {"call": record.call, "agent": record.agent, "time": record.time}


def _undecided(own: list[Record]) -> dict[str, Any]:
    """A call that no rule was asked about: it has no canonical form, or another fault."""
    last = next((r for r in reversed(own) if r.type == "call.denied"), own[-1])
    return {
        **_head(own[0]),
        "what": last.data.get("what"),
        "version": last.data.get("policy"),
        "effect": "deny",
        "risk": None,
        "code": last.data.get("code"),
        "rules": [],
        "sentence": last.data.get("sentence") or "No rule was asked about this call.",
        "matched": [],
        "near": [],
        "credentials": [],
        "tiers": [],
        "shadow": None,
        "present": None,
    }


def _decided(
    past: PastCall, seen: Seen, own: list[Record], policy: Policy | None
) -> dict[str, Any]:
    refused = next((r for r in own if r.type == "call.denied" and past.said == "deny"), None)
    ids = past.rules or ()
    rules = [rule for rule in policy.rules if rule.id in ids] if policy else []
    deciding = [rule.id for rule in rules if rule.effect == past.said] or list(ids)
    near = () if policy is None else near_then(policy, seen.subject, seen.glimpse, ids)
    return {
        **_head(own[0]),
        "what": dict(past.what),
        "version": past.policy,
        "effect": past.said,
        "risk": {"hold": past.risk, "allow": "low"}.get(past.said),
        "code": _code(past, refused),
        "rules": deciding,
        "sentence": _sentence(past, seen, refused, policy, rules),
        "matched": [{"rule": rule.id, "effect": rule.effect} for rule in rules],
        "near": [
            {
                "rule": one.rule.id,
                "effect": one.rule.effect,
                "failed": [why.to_json() for why in one.reasons],
            }
            for one in near
        ],
        "credentials": list(past.credentials or ()),
        "tiers": [{"name": name} for name in past.tiers],
        "shadow": _shadow(past),
    }


def _shadow(past: PastCall) -> dict[str, Any] | None:
    """What was tried then would have done, as it was recorded."""
    if past.shadow is None:
        return None
    rules = past.shadow.get("rules")
    listed = rules if isinstance(rules, list) else []
    return {
        "effect": past.shadow.get("effect"),
        "rules": [str(one["rule"]) for one in listed if isinstance(one, dict) and "rule" in one],
    }


def _code(past: PastCall, refused: Record | None) -> str | None:
    match past.said:
        case "deny":
            code = refused.data.get("code") if refused is not None else None
            return AMBIGUOUS if code == AMBIGUOUS else DENIED
        case "hold":
            return HELD
        case _:
            return None


def _sentence(
    past: PastCall,
    seen: Seen,
    refused: Record | None,
    policy: Policy | None,
    rules: list[Rule],
) -> str:
    """As it was recorded, else in the words of the policy of that time."""
    if refused is not None and isinstance(refused.data.get("sentence"), str):
        return str(refused.data["sentence"])
    request = seen.glimpse.request()
    what = describe_call(request)
    deciding = [rule for rule in rules if rule.effect == past.said]
    if policy is None or not deciding:
        why = "" if past.policy is None else f" ({NOT_READ.format(past.policy)})"
        ids = ", ".join(past.rules or ()) or "not known"
        return f"{what}: {past.said}, by the rules {ids}{'' if policy else why}."
    if past.said == "hold":
        tiers = [policy.tiers[name] for name in past.tiers if name in policy.tiers]
        return say_held(deciding, tiers, request)
    if past.said == "tunnel":
        return f"{rules_say(deciding, 'pass')} {seen.glimpse.host}:{seen.glimpse.port} on."
    return f"{rules_say(deciding, 'allow')} {what}."


def _present(
    seen: Seen, candidate: Candidate, then: Callable[[int], Policy | None]
) -> dict[str, Any]:
    """What the candidate would say: for certain, or what it may."""
    change: Change | None = Replay(candidate.policy, then).take(seen)
    if change is None:
        return {"policy": candidate.name, "same": True, "outcome": seen.said, "rule": None,
                "certain": True, "why": ""}  # fmt: skip
    return {
        "policy": candidate.name,
        "same": change.kind != "changed" and change.after == {seen.said},
        "outcome": change.outcome,
        "rule": change.rule,
        "certain": change.kind != "uncertain",
        "why": change.why,
    }
