"""The policy file: text in, a checked policy out, or every mistake at once.

The only way to a `Policy`. A field that is not understood refuses the file: an old Keybroker must
not pass over a restriction that a newer one would know. Knows nothing of accounts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rules import checks, schema
from rules.errors import InvalidFile, Problem
from rules.include import Expansion, Sources, expand
from rules.loosening import loosened
from rules.model import OWNER, Policy, Rule, Tier
from rules.source import Section, Source
from rules.trial.inline import check_tests, pack_failures
from rules.yamlfile import Lines, parse_yaml

VERSION = 1
FIELDS = ("version", "mode", "credentials", "approvers", "tiers", "include", "override", "rules")


def load_policy(
    text: str,
    file: str = "policy.yaml",
    sources: Sources | None = None,
    *,
    try_out: bool = True,
) -> tuple[Policy, tuple[Problem, ...]]:
    """The policy and its warnings. Raises InvalidFile with every error, in file order.

    `sources` has the texts of what it includes; without, the packs of this program are there. Tests
    in rules, of packs too, are run unless `try_out` is False: then they held before.
    """
    policy, source = read_whole(text, file, sources, try_out=try_out)
    if source.errors():
        raise InvalidFile(source.errors())
    return policy, tuple(source.warnings())


def read_whole(
    text: str,
    file: str = "policy.yaml",
    sources: Sources | None = None,
    *,
    try_out: bool = True,
) -> tuple[Policy, Source]:
    """What could be read of a policy, and what is wrong with it: for those who look at a policy
    that is refused, never for deciding. Raises InvalidFile if it is not even YAML.
    """
    value, lines = parse_yaml(text, file)
    source = Source(file, lines)
    root = Section(source, ())
    fields = root.mapping(value, FIELDS) or {}
    if "version" not in fields:
        root.error(
            f'"version" is missing; this Keybroker reads version: {VERSION}', "missing-field"
        )
    elif fields["version"] is True or fields["version"] != VERSION:
        root.at("version").error(f"this Keybroker reads version: {VERSION} only", "wrong-version")

    named = _entries(root, fields, "credentials")
    credentials = {}
    for name, entry in named.items():
        at = Section(source, ("credentials", name), f'credential "{name}"')
        credential = schema.read_credential(at, name, entry)
        if credential is not None:
            credentials[name] = credential
    approvers = {
        name: schema.read_group(Section(source, ("approvers", name), f'group "{name}"'), name, e)
        for name, e in _entries(root, fields, "approvers").items()
    }
    tiers = dict(schema.BUILT_IN)
    for name, entry in _entries(root, fields, "tiers").items():
        tiers[name] = schema.read_tier(
            Section(source, ("tiers", name), f'tier "{name}"'), name, entry
        )

    items = fields.get("rules")
    if items is not None and not isinstance(items, list):
        root.at("rules").error("rules must be a list", "wrong-type")
    items = items if isinstance(items, list) else []
    written: list[tuple[Section, object]] = []
    for index, item in enumerate(items):
        found = item.get("id") if isinstance(item, dict) else None
        label = f'rule "{found[:100]}"' if isinstance(found, str) else f"rule {index + 1}"
        rule_id = found if isinstance(found, str) else ""
        written.append((Section(source, ("rules", index), label, rule_id), item))
    own_ids = [item["id"] for item in items if isinstance(item, dict) and "id" in item]
    expansion = expand(root, fields, own_ids, sources)
    written += expansion.rules
    for at, _ in expansion.rules:
        source.origins[at.rule] = f"{at.source.file}:{at.source.lines.at(at.path)}"
    rules = []
    for at, item in written:
        rule = schema.read_rule(at, item)
        if rule is not None:
            rules.append((at, rule))
            if try_out and isinstance(item, dict) and "tests" in item:
                check_tests(at.at("tests"), rule, item["tests"])
    for at, pack in expansion.packs if try_out else ():
        for problem in pack_failures(pack.text, pack.file):
            at.error(f"{problem.message} ({problem.file}:{problem.line})", "test-fails")
    policy = Policy(
        credentials,
        approvers,
        tiers,
        tuple(rule for _, rule in rules if not rule.shadow),
        text,
        _tell_loosened(expansion, {rule.id: rule for _, rule in rules}, tiers),
        frozenset(at.rule for at, _ in expansion.rules),
        tuple(rule for _, rule in rules if rule.shadow),
        _read_mode(root, fields),
    )
    _tell_tried(root, policy, rules)
    checks.check_ids(written)
    checks.check_tiers(root, policy)
    checks.check_variables(root, policy)
    checks.check_rules(policy, rules, list(named), list(tiers))
    if not source.errors():
        checks.check_slots(policy, rules)
    return policy, source


def _tell_loosened(
    expansion: Expansion, rules: Mapping[str, Rule], tiers: Mapping[str, Tier]
) -> tuple[str, ...]:
    """Warns of every override that asks for less than the pack does; their ids."""
    found = []
    for name, at, plain in expansion.overridden:
        unheard = Section(Source("", Lines()), ())
        shipped = schema.read_rule(unheard, plain)
        why = loosened(shipped, rules[name], tiers) if shipped and name in rules else None
        if why is not None:
            at.source.note(at.path, f'rule "{name}": loosened: {why}', "warning", "loosened", name)
            found.append(name)
    return tuple(found)


def _read_mode(root: Section, fields: Mapping[str, object]) -> bool:
    """Whether the whole file is only tried."""
    if "mode" not in fields:
        return False
    return root.at("mode").choice(fields["mode"], schema.MODES) == "shadow"


def _tell_tried(root: Section, policy: Policy, rules: Sequence[tuple[Section, Rule]]) -> None:
    """Says what of the file is not in force: whoever reads a rule may believe that it is."""
    if policy.shadow:
        told = (
            "mode: shadow: nothing in this file is in force; calls are decided by the enforced"
            " version before it"
        )
        root.source.note(("mode",), told, "warning", "shadow")
        return
    for at, rule in rules:
        if rule.shadow:
            told = f'rule "{rule.id}" is in shadow, so not in force'
            at.source.note(at.path, told, "warning", "shadow", rule.id)


def _entries(root: Section, fields: dict[str, object], name: str) -> dict[str, object]:
    return root.at(name).mapping(fields.get(name)) or {}


def agents_named(policy: Policy) -> frozenset[str]:
    """The agents that rules name, tags aside."""
    return frozenset(
        agent for rule in policy.rules for agent in rule.agents if not agent.startswith("tag:")
    )


def people_named(policy: Policy) -> frozenset[str]:
    """The people in approver groups and in tiers' `exclude`."""
    grouped = {person for group in policy.approvers.values() for person in group}
    excluded = {person for tier in policy.tiers.values() for person in tier.exclude}
    return frozenset(grouped | excluded - {OWNER})


def starter_policy(solo: bool) -> str:
    """The policy.yaml of a new workspace: denies everything, and shows the language in comments.

    Lines that begin with `# ` are an example, to be had by taking these two characters away.
    """
    return _STARTER.replace("@TIERS@", _SOLO_TIERS if solo else _TEAM_TIERS)


_SOLO_TIERS = """\
## Set up for one person: one yes is enough, and the owner of an agent may vote on its calls.
tiers:
  medium: {quorum: [{group: any, count: 1}], exclude: []}
  high: {quorum: [{group: any, count: 1}], exclude: [], confirm: retype}
"""

_TEAM_TIERS = """\
## Set up for a team: nobody votes on the calls of an agent of their own, and high needs two people.
tiers:
  medium: {quorum: [{group: any, count: 1}], exclude: [owner]}
  high: {quorum: [{group: any, count: 2}], exclude: [owner], confirm: retype}
"""

_STARTER = """\
## What agents may do. Whatever no rule allows is denied, so for now everything is.
## Changes take effect within two seconds; `keybroker policy check` reads the file without them.
version: 1

## Who must agree to a held call. Every tier also has decide_within: 15m, execute_within: 5m,
## denials: 1 and reason: optional (or required). `any` is everyone who may approve.
@TIERS@
## Groups of people for `quorum`, besides `any`.
# approvers:
#   finance: [alice, bob]

## Secrets by name (never by value), the hosts they may go to, and how they are put in:
## bearer, {basic: {username: u}} or {header: X-Api-Key, format: "{secret}"}.
# credentials:
#   stripe: {secret: "kv/stripe#api_key", hosts: [api.stripe.com], inject: bearer}

## The effects are allow, hold (until people approve), deny, and tunnel (pass on undecrypted, to
## hosts without a credential). Of several rules that match, the most restrictive wins, in any
## order. Paths: * is one segment, ** any rest. Agents: names, or tag:NAME.
# rules:
#   - id: stripe-read
#     agents: [billing-bot]
#     match: {method: GET, host: api.stripe.com, path: /v1/**}
#     effect: allow
#     use: [stripe]
#   - id: stripe-refund
#     agents: [billing-bot]
#     match: {method: POST, host: api.stripe.com, path: /v1/refunds}
#     effect: hold
#     risk: high
#     summary: "Refund {form:amount} on charge {form:charge}"
#     confirm: form:amount
#     impact: Money leaves the account and cannot be called back.
#     use: [stripe]
#   - id: packages
#     agents: [billing-bot]
#     match: {host: [pypi.org, files.pythonhosted.org]}
#     effect: tunnel
"""
