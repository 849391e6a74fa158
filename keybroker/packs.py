"""What a pack holds, in words and as JSON: for `policy packs`, and for the guide."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rules import packs
from rules.describe import describe_match
from rules.model import Rule
from rules.pack import CLASSES, Pack, PackRule, listed, read_pack, rules_of, words
from rules.schema import read_rule
from rules.source import Section, Source


def shipped() -> list[Pack]:
    """Every pack of this program."""
    return [pack for name in packs.names() if (pack := find(name)) is not None]


def find(name: str) -> Pack | None:
    """The shipped pack of that name."""
    text = packs.text_of(name)
    return None if text is None else read_pack(text, packs.file_of(name))


def counts(pack: Pack) -> dict[str, int]:
    """How many of its rules there are in each class, lowest first."""
    found = Counter(rule.level for rule in pack.rules)
    return {level: found[level] for level in CLASSES}


def hosts(pack: Pack) -> list[str]:
    """Where its rules lead; a credential of theirs must be allowed there."""
    named = [
        host
        for rule in pack.rules
        for match in listed(rule.fields["match"])
        for host in words(match.get("host"))
    ]
    return list(dict.fromkeys([*pack.hosts, *named]))


def overview(pack: Pack) -> dict[str, Any]:
    """What it is for, without its rules."""
    return {
        "name": pack.name,
        "title": pack.title,
        "about": pack.about,
        "hosts": hosts(pack),
        "parameters": [
            {
                "name": parameter.name,
                "about": parameter.about,
                "default": None if parameter.default is None else list(parameter.default),
            }
            for parameter in pack.parameters.values()
        ],
        "credential": pack.credential,
        "classes": counts(pack),
    }


def whole(pack: Pack) -> dict[str, Any]:
    """The same with its rules, each in words."""
    values = {p.name: p.default or (p.name.replace("_", "-"),) for p in pack.parameters.values()}
    rules = []
    for rule, fields in rules_of(pack, values):
        read = _read(pack, rule, fields)
        rules.append(
            {
                "id": rule.id,
                "class": rule.level,
                "calls": _calls(rule, read),
                "summary": read.summary,
                "impact": read.impact,
                "undo": read.undo,
            }
        )
    return {**overview(pack), "rules": rules}


def _read(pack: Pack, rule: PackRule, fields: dict[str, object]) -> Rule:
    source = Source(pack.file, pack.lines)
    given = {"id": rule.id, "agents": "anybody", **fields}
    read = read_rule(Section(source, ("rules", rule.index), f'rule "{rule.id}"'), given)
    if read is None:
        raise AssertionError(f"a shipped pack is wrong: {source.errors()}")
    return read


def _calls(rule: PackRule, read: Rule) -> list[str]:
    """What falls under the rule."""
    calls = [describe_match(match) for match in read.matches]
    if rule.rest:
        return [f"{each}, of what no other rule has" for each in calls]
    if read.excepts:
        calls.append("except " + "; or ".join(describe_match(match) for match in read.excepts))
    return calls
