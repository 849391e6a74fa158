"""The policy language: from plain YAML values to the values of rules.model, part by part.

What stands in one rule, tier or credential is checked here; what concerns several of them, in
rules.checks. A part with a mistake is noted and left out; the file is then refused as a whole.
"""

from __future__ import annotations

import re
from typing import cast

from rules.hosts import parse_pattern
from rules.limit_schema import LIMIT, read_limits
from rules.matches import MATCH, SCHEMES, read_matches
from rules.model import (
    ANYONE,
    DEFAULT_RISK,
    LOW,
    OWNER,
    Confirm,
    Credential,
    Effect,
    Injection,
    Match,
    Quorum,
    Reason,
    Rule,
    Tier,
    Variable,
)
from rules.places import parse_place
from rules.shapes import DEFAULT_SHAPE, parse_shape, parse_variable
from rules.source import Section
from rules.spellings import (
    parse_agent,
    parse_format,
    parse_name,
    parse_secret_ref,
    parse_slot,
)
from rules.words import check_summary
from rules.yamlfile import parse_duration, parse_size

_QUARTER, _FIVE = 15 * 60, 5 * 60
BUILT_IN = {
    "medium": Tier(
        "medium", (Quorum(ANYONE, 1),), (OWNER,), _QUARTER, _FIVE, 1, "optional", "none"
    ),
    "high": Tier("high", (Quorum(ANYONE, 2),), (OWNER,), _QUARTER, _FIVE, 1, "optional", "retype"),
}
MAX_WAIT = 30 * 86400
"""Seconds: the longest `decide_within` and `execute_within`."""

CREDENTIAL = ("secret", "hosts", "inject", "env")
VARIABLE = ("name", "shape")
INJECTIONS = ("bearer", "basic", "header")
BASIC = ("basic",)
USERNAME = ("username",)
HEADER = ("header", "format")


def read_credential(at: Section, name: str, value: object) -> Credential | None:
    """One entry of `credentials:`; None after noting problems."""
    before = at.source.faults
    at.parsed(name, parse_name)
    fields = at.mapping(value, CREDENTIAL)
    if fields is None:
        return None
    secret = hosts = inject = None
    if at.has(fields, "secret"):
        secret = at.at("secret").parsed(fields["secret"], parse_secret_ref)
    if at.has(fields, "hosts"):
        hosts = at.at("hosts").several(fields["hosts"], parse_pattern)
    if at.has(fields, "inject"):
        inject = _read_injection(at.at("inject"), fields["inject"])
    env = _read_variable(at.at("env"), fields["env"]) if "env" in fields else None
    if not secret or not hosts or not inject or at.source.faults > before:
        return None
    return Credential(name, secret, hosts, inject, at.line, env)


def _read_variable(at: Section, value: object) -> Variable | None:
    """`NAME`, or `{name: NAME, shape: "sk_test_{hex:24}"}`."""
    if not isinstance(value, dict):
        name = at.parsed(value, parse_variable)
        return Variable(name, DEFAULT_SHAPE) if name else None
    fields = at.mapping(value, VARIABLE) or {}
    found = shape = None
    if at.has(fields, "name"):
        found = at.at("name").parsed(fields["name"], parse_variable)
    shape = at.at("shape").parsed(fields.get("shape", DEFAULT_SHAPE), parse_shape)
    return Variable(found, shape) if found and shape else None


def _read_injection(at: Section, value: object) -> Injection | None:
    if value == "bearer":
        return Injection("authorization", "Bearer {secret}")
    if isinstance(value, dict) and "basic" in value:
        at.mapping(value, BASIC)
        fields = at.at("basic").mapping(value["basic"], USERNAME)
        username = (fields or {}).get("username")
        # RFC 7617: a colon ends the user name.
        if not isinstance(username, str) or not re.fullmatch(r"[!-9;-~ ]{0,200}", username):
            at.at("basic", "username").error("basic needs a username: plain ASCII without a colon")
            return None
        return Injection("authorization", "Basic {secret}", username)
    if isinstance(value, dict) and "header" in value:
        at.mapping(value, HEADER)
        header = at.at("header").parsed(value["header"], parse_slot)
        form = at.at("format").parsed(value.get("format", "{secret}"), parse_format)
        return Injection(header, form) if header and form else None
    words = value if isinstance(value, dict) else [value] if isinstance(value, str) else []
    hint = next(filter(None, (at.source.hint(word, INJECTIONS) for word in words)), "")
    at.error(
        'inject must be bearer, {basic: {username: u}} or {header: NAME, format: "{secret}"}' + hint
    )
    return None


def read_group(at: Section, name: str, value: object) -> tuple[str, ...]:
    """One entry of `approvers:`: names of people."""
    at.parsed(name, parse_name)
    if name in (ANYONE, OWNER):
        at.error(f'"{name}" has a meaning of its own; give the group another name')
    return at.several(value, parse_name)


QUORUM = ("group", "count")
REASONS = ("optional", "required")
CONFIRMS = ("none", "retype")
TIER = [
    "quorum",
    "exclude",
    "decide_within",
    "execute_within",
    "denials",
    "reason",
    "confirm",
    "passkey",
    "grants",
    "escalate",
]


def read_tier(at: Section, name: str, value: object) -> Tier:
    """One entry of `tiers:`, on top of the built-in one; a tier of one's own starts from medium."""
    base = BUILT_IN.get(name, BUILT_IN[DEFAULT_RISK])
    at.parsed(name, parse_name)
    if name == LOW:
        at.error("low never holds, so there is nothing to set")
    fields = at.mapping(value, tuple(TIER)) or {}
    _refuse_what_is_not_there_yet(at, fields)
    quorum, exclude = base.quorum, base.exclude
    if "quorum" in fields:
        quorum = _read_quorum(at.at("quorum"), fields["quorum"])
    if fields.get("exclude") == []:
        exclude = ()
    elif "exclude" in fields:
        exclude = at.at("exclude").several(fields["exclude"], parse_name)
    reason, confirm = base.reason, base.confirm
    if "reason" in fields:
        at.at("reason").choice(fields["reason"], REASONS)
        reason = cast(Reason, fields["reason"])
    if "confirm" in fields:
        at.at("confirm").choice(fields["confirm"], CONFIRMS)
        confirm = cast(Confirm, fields["confirm"])
    denials = base.denials
    if "denials" in fields:
        denials = at.at("denials").count(fields["denials"]) or denials
    return Tier(
        name=name,
        quorum=quorum,
        exclude=exclude,
        decide_within=_read_wait(at, fields, "decide_within", base.decide_within),
        execute_within=_read_wait(at, fields, "execute_within", base.execute_within),
        denials=denials,
        reason=reason,
        confirm=confirm,
    )


def _refuse_what_is_not_there_yet(at: Section, fields: dict[str, object]) -> None:
    """Passkeys, grants and escalation: only their inert values are taken.

    An approval that silently asked for less than the file says would be worse than no approval.
    """
    passkey = fields.get("passkey", "optional")
    if passkey == "required":
        at.at("passkey").error("passkeys are not there yet, so none can be required; use optional")
    elif passkey != "optional":
        at.at("passkey").error("passkey must be optional")
    if fields.get("grants", "never") not in ("allowed", "never"):
        at.at("grants").error("grants are not there yet; use allowed or never")
    if fields.get("escalate", []) != []:
        at.at("escalate").error("escalation is not there yet; use []")


def _read_quorum(at: Section, value: object) -> tuple[Quorum, ...]:
    if not isinstance(value, list) or not value:
        at.error("quorum must be a list of {group: NAME, count: N}, and not empty")
        return ()
    quorum = []
    for index, item in enumerate(value):
        here = at.at(index)
        fields = here.mapping(item, QUORUM) or {}
        group = here.at("group").parsed(fields.get("group"), parse_name)
        count = here.at("count").count(fields.get("count", 1))
        if group and count:
            quorum.append(Quorum(group, count))
    return tuple(quorum)


def _read_wait(at: Section, fields: dict[str, object], name: str, default: int) -> int:
    if name not in fields:
        return default
    try:
        seconds = parse_duration(fields[name])
    except ValueError as error:
        at.at(name).error(f"{name}: {error}")
        return default
    if not 1 <= seconds <= MAX_WAIT:
        at.at(name).error(f"{name} must be from 1s to {MAX_WAIT // 86400}d")
    return seconds


EFFECTS = ("allow", "hold", "deny", "tunnel")
RULE = (
    "id",
    "agents",
    "match",
    "except",
    "effect",
    "risk",
    "summary",
    "confirm",
    "impact",
    "undo",
    "use",
    "body",
    "body_limit",
    "limit",
    "mode",
    "tests",
)
INSIDE = {
    **{
        name: f'under "match", as in `match: {{{name}: ...}}`' for name in MATCH if name not in RULE
    },
    **{name: f'under "limit", as in `limit: {{{name}: ...}}`' for name in LIMIT},
}
"""Fields that stand one level further in."""
BODIES = ("buffer", "stream")
MODES = ("enforce", "shadow")


def read_rule(at: Section, value: object) -> Rule | None:
    """One entry of `rules:`; None after noting problems."""
    before = at.source.faults
    fields = at.mapping(value, RULE, INSIDE)
    if fields is None:
        return None
    found = effect = None
    agents: tuple[str, ...] = ()
    matches: tuple[Match, ...] = ()
    excepts: tuple[Match, ...] = ()
    if at.has(fields, "id"):
        found = at.at("id").parsed(fields["id"], parse_name)
    if at.has(fields, "agents"):
        agents = at.at("agents").several(fields["agents"], parse_agent)
    if at.has(fields, "effect"):
        effect = at.at("effect").choice(fields["effect"], EFFECTS)
    if at.has(fields, "match", "; match: {} stands for every call"):
        matches = read_matches(at.at("match"), fields["match"])
    if "except" in fields:
        # What is excepted is a part of what matches: it is about the same schemes.
        schemes = tuple(dict.fromkeys(match.scheme for match in matches)) or SCHEMES[:1]
        excepts = read_matches(at.at("except"), fields["except"], schemes)
        if fields["except"] == {} or (
            isinstance(fields["except"], list) and {} in fields["except"]
        ):
            at.at("except").error("an empty match takes everything out of the rule")
    risk = at.at("risk").parsed(fields["risk"], parse_name) if "risk" in fields else None
    summary = _read_text(at, fields, "summary", 300)
    if summary is not None:
        at.at("summary").parsed(summary, check_summary)
    confirm = _read_text(at, fields, "confirm", 200)
    if confirm is not None:
        at.at("confirm").parsed(confirm, parse_place)
    impact = _read_text(at, fields, "impact", 500)
    undo = _read_text(at, fields, "undo", 200)
    use: tuple[str, ...] = ()
    if fields.get("use", []) != []:
        use = at.at("use").several(fields["use"], str)
    stream = "body" in fields and at.at("body").choice(fields["body"], BODIES) == "stream"
    body_limit = None
    if "body_limit" in fields:
        body_limit = at.at("body_limit").parsed(fields["body_limit"], parse_size)
    limits = read_limits(at.at("limit"), fields["limit"]) if "limit" in fields else ()
    shadow = "mode" in fields and at.at("mode").choice(fields["mode"], MODES) == "shadow"
    if shadow and effect == "tunnel":
        at.at("mode").error("a tunnel cannot be tried; shadow is for allow, hold and deny")
    if effect == "hold" and risk is None:
        risk = DEFAULT_RISK
    if found is None or effect is None or at.source.faults > before:
        return None
    return Rule(
        id=found,
        agents=agents,
        matches=matches,
        effect=cast(Effect, effect),
        excepts=excepts,
        risk=risk,
        summary=summary,
        confirm=confirm,
        impact=impact,
        undo=undo,
        use=() if effect == "deny" else use,
        stream=stream,
        body_limit=body_limit,
        limits=limits,
        shadow=shadow,
        line=at.line,
    )


def _read_text(at: Section, fields: dict[str, object], name: str, limit: int) -> str | None:
    return at.at(name).text(fields[name], limit) if name in fields else None
