"""`include:` and `override:`: packs become ordinary rules, before anything is checked.

Pure: the texts of packs are given (`Sources`), as they were when the policy was published. What is
wrong with a pack's rule is told at the include's line, with the pack's file and line beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from rules import packs
from rules.errors import InvalidFile, Problem
from rules.model import LOW
from rules.pack import Pack, PackRule, Values, at_hosts, listed, read_pack, rules_of, words
from rules.source import Section, Source
from rules.spellings import parse_name
from rules.yamlfile import Path, parse_yaml

INCLUDE = ("pack", "file", "as", "agents", "use", "with")
FILE_SUFFIXES = (".yaml", ".yml")
_OF_INCLUDE = ("agents", "use")
_NEEDED = ("agents", "match", "effect")
_KEPT = {
    "id": "a rule keeps its id; what else it says can change",
    "class": "write the class as risk: low, medium or high",
    "rest": "what a rule leaves to others is the pack's to say; change its match or except",
}
"""Fields that cannot be overridden, and why."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The texts of what a policy includes, by what the include says: a pack's name, or `./FILE`."""

    texts: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    """Why a file could not be read, for those that could not."""

    def digest(self, text: str) -> str:
        """SHA-256 (hex) over a policy's text and all that it includes."""
        if self.texts:
            text = json.dumps([text, dict(sorted(self.texts.items()))])
        return hashlib.sha256(text.encode()).hexdigest()

    def digests(self) -> dict[str, str]:
        """SHA-256 (hex) of each text."""
        return {n: hashlib.sha256(t.encode()).hexdigest() for n, t in sorted(self.texts.items())}


@lru_cache(maxsize=4)
def included(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The packs and the files that a policy's text includes; nothing of a text that has mistakes
    there, which loading it tells of."""
    if "include" not in text:
        return (), ()
    try:
        value, _ = parse_yaml(text, "")
    except InvalidFile:
        return (), ()
    items = value.get("include") if isinstance(value, dict) else None
    items = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    found = [[i[kind] for i in items if isinstance(i.get(kind), str)] for kind in ("pack", "file")]
    return tuple(dict.fromkeys(found[0])), tuple(dict.fromkeys(found[1]))


def shipped(names: Iterable[str]) -> dict[str, str]:
    """The texts of shipped packs, as they are in this program; without those that it has not."""
    texts = {name: packs.text_of(name) for name in names}
    return {name: text for name, text in texts.items() if text is not None}


def parse_file(text: str) -> str:
    """A file below the policy's directory, as `./a/b.yaml`. Raises ValueError."""
    name = text.removeprefix("./")
    if "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f'"{text[:80]}" does not lie below the policy\'s directory; write ./FILE')
    if not name.endswith(FILE_SUFFIXES):
        raise ValueError(f'"{text[:80]}" is no YAML file by its name; it must end in .yaml')
    return f"./{name}"


@dataclass(slots=True)
class _Placed(Source):
    """A pack's rule in a policy: each problem is told where a reader can mend it.

    Paths are those of the pack's file, so that its lines are found.
    """

    policy: Source = field(kw_only=True)
    include: Path = field(kw_only=True)
    override: Path | None = field(kw_only=True, default=None)
    overridden: frozenset[str] = field(kw_only=True, default=frozenset())
    told: set[str] = field(kw_only=True)
    """What was said of the include's own fields: each of its rules would say it again."""

    def place(self, path: Path) -> int:
        name = path[2] if len(path) > 2 else ""
        if self.override is not None and self._of_override(name):
            return self.policy.place((*self.override, *path[2:]))
        if name in _OF_INCLUDE:
            return self.policy.place((*self.include, *path[2:]))
        if self.override is not None and not name:
            return self.policy.place(self.override)
        return self.policy.place(self.include)

    def note(
        self, path: Path, message: str, severity: str = "error", code: str = "", rule: str = ""
    ) -> None:
        name = path[2] if len(path) > 2 else ""
        if name not in (*_OF_INCLUDE, *self.overridden):
            if severity == "warning":
                return  # what a pack says needlessly is not for its user to mend
            message = f"{message} ({self.file}:{self.lines.at(path)})"
        elif not self._of_override(name):
            message = message.removeprefix(f'rule "{rule}": ')
            if message in self.told:
                return
            self.told.add(message)
        line = self.place(path)
        self.add(Problem(self.policy.file, line, message, severity, code, rule))

    def _of_override(self, name: str | int) -> bool:
        """Whether the override is to be mended: of its own fields, and of what does not go with
        another effect."""
        return name in self.overridden or "effect" in self.overridden

    def hint(self, word: str, known: Iterable[str]) -> str:
        return self.policy.hint(word, known)


@dataclass(frozen=True, slots=True)
class Expansion:
    """The rules of packs as plain values with their places."""

    rules: list[tuple[Section, dict[str, object]]]
    overridden: list[tuple[str, Section, dict[str, object]]]
    """Of the rules that were overridden: id, where, and what was shipped."""
    packs: list[tuple[Section, Pack]]
    """With the place of their include."""


def expand(
    root: Section,
    fields: Mapping[str, object],
    own_ids: Sequence[str],
    sources: Sources | None,
) -> Expansion:
    """What `include:` and `override:` of a policy come to. Without `sources`, the packs of this
    program can be included, and no file."""
    overrides = root.at("override").mapping(fields.get("override")) or {}
    left = dict.fromkeys(overrides)
    items = fields.get("include")
    if items is not None and not isinstance(items, list):
        root.at("include").error(
            "include must be a list of {pack: NAME, agents: [..]}", "wrong-type"
        )
    rules: list[tuple[Section, dict[str, object]]] = []
    changed: list[tuple[str, Section, dict[str, object]]] = []
    known: list[str] = []
    used: list[tuple[Section, Pack]] = []
    prefixes: dict[str, Section] = {}
    whole = True
    for index, item in enumerate(items if isinstance(items, list) else []):
        at = root.at("include", index)
        found = _read_include(at, item, sources, prefixes)
        if found is None:
            whole = False
            continue
        prefix, pack, values, given = found
        used.append((at, pack))
        told: set[str] = set()
        for rule, shipped_fields in rules_of(pack, values):
            name = f"{prefix}.{rule.id}"
            known.append(name)
            left.pop(name, None)
            plain = {"id": name, **given, **shipped_fields}
            change = None
            if name in overrides:
                place = root.at("override", name)
                change = _read_override(place, overrides[name], plain)
            section = _section(root.source, at, pack, rule, name, told, change)
            if change:
                changed.append((name, place, plain))
                plain = _overridden(plain, change)
            rules.append((section, plain))
    for name in left:
        place = root.at("override", name)
        if name in own_ids:
            place.error(f'rule "{name[:100]}" stands in this file; change it there')
        elif whole:
            prefix = name.partition(".")[0]
            otherwise = "" if prefix in prefixes else f'; nothing is included as "{prefix[:80]}"'
            place.unknown("rule of a pack", name, known, otherwise)
    return Expansion(rules, changed, used)


def _read_override(
    at: Section, value: object, plain: Mapping[str, object]
) -> dict[str, object] | None:
    """The fields that an override changes of a rule; None, or without some, after noting what is
    wrong."""
    change = at.mapping(value)
    if change is None:
        return None
    if not change:
        at.error("there is nothing to override here; fill it in or leave it out")
    left = dict(change)
    for name, why in _KEPT.items():
        if name in change:
            at.at(name).error(why)
            del left[name]
    for name in _NEEDED:
        if name in change and change[name] is None:
            at.at(name).error(f"{name} cannot be taken away; say what it should be")
            del left[name]
    if "match" in left:
        # As in the pack: a match that names no host is about the API, not about every host.
        hosts = dict.fromkeys(host for m in listed(plain["match"]) for host in words(m.get("host")))
        left["match"] = at_hosts(left["match"], list(hosts))
    return left


def _section(
    policy: Source,
    include: Section,
    pack: Pack,
    rule: PackRule,
    name: str,
    told: set[str],
    change: Mapping[str, object] | None,
) -> Section:
    placed = _Placed(
        pack.file,
        pack.lines,
        policy.problems,
        policy=policy,
        include=include.path,
        override=("override", name) if change else None,
        overridden=frozenset(change or ()),
        told=told,
    )
    return Section(placed, ("rules", rule.index), f'rule "{name}"', name)


def _overridden(plain: Mapping[str, object], change: Mapping[str, object]) -> dict[str, object]:
    """The rule with the fields changed; null takes a field away. Of effect and risk, which go
    together, the one that is not given follows the other."""
    fields = {**plain, **change}
    if "risk" in change and "effect" not in change:
        fields["effect"] = "allow" if change["risk"] == LOW else "hold"
    if "effect" in change and "risk" not in change and change["effect"] != plain["effect"]:
        fields.pop("risk", None)
    if fields["effect"] != "hold" and "confirm" not in change:
        fields.pop("confirm", None)
    if fields["effect"] == "allow" and fields.get("risk") == LOW:
        fields.pop("risk")
    return {name: value for name, value in fields.items() if value is not None}


def _read_include(
    at: Section, value: object, sources: Sources | None, prefixes: dict[str, Section]
) -> tuple[str, Pack, Values, dict[str, object]] | None:
    """The prefix, the pack, its parameters and the fields that its rules get; None after noting
    problems."""
    before = at.source.faults
    fields = at.mapping(value, INCLUDE)
    if fields is None:
        return None
    pack = _find(at, fields, sources)
    prefix = pack.name if pack else None
    if "as" in fields:
        prefix = at.at("as").parsed(fields["as"], parse_name)
    if prefix is not None and prefixes.setdefault(prefix, at) is not at:
        at.at("as").error(
            f'the rules of line {prefixes[prefix].line} are called "{prefix}." already; give these '
            "another name with as:"
        )
    if not at.has(fields, "agents"):
        return None
    given = {name: fields[name] for name in _OF_INCLUDE if name in fields}
    if pack is None or prefix is None:
        return None
    values = _read_values(at, pack, fields.get("with"))
    if at.source.faults > before:
        return None
    return prefix, pack, values, given


def _find(at: Section, fields: Mapping[str, object], sources: Sources | None) -> Pack | None:
    if ("pack" in fields) == ("file" in fields):
        at.error("an include names either a pack (pack: NAME) or a file (file: ./FILE)")
        return None
    if "pack" in fields:
        name = at.at("pack").parsed(fields["pack"], parse_name)
        if name is None:
            return None
        text = packs.text_of(name) if sources is None else sources.texts.get(name)
        if text is None:
            otherwise = "; `keybroker policy packs` lists them"
            at.at("pack").unknown("pack", name, packs.names(), otherwise)
            return None
        return _read(at.at("pack"), text, packs.file_of(name))
    name = at.at("file").parsed(fields["file"], parse_file)
    if name is None:
        return None
    if sources is None:
        at.at("file").error("only a policy in a file can include files, which lie beside it")
    elif (why := sources.refused.get(name)) is not None:
        at.at("file").error(why)
    elif (text := sources.texts.get(name)) is None:
        at.at("file").error(f"{name} was not read")
    else:
        return _read(at.at("file"), text, name)
    return None


def _read(at: Section, text: str, file: str) -> Pack | None:
    try:
        return read_pack(text, file)
    except InvalidFile as invalid:
        for problem in invalid.problems:
            at.error(f"{problem.message} ({problem.file}:{problem.line})", "invalid-pack")
        return None


def _read_values(at: Section, pack: Pack, value: object) -> Values:
    here = at.at("with")
    given = here.mapping(value) or {}
    for name in given.keys() - pack.parameters.keys():
        here.at(name).unknown("parameter", name, pack.parameters)
    values: dict[str, tuple[str, ...]] = {}
    for name, parameter in pack.parameters.items():
        if name in given:
            values[name] = here.at(name).several(given[name], parameter.parse)
        elif parameter.default is not None:
            values[name] = parameter.default
        else:
            at.error(f"with: {{{name}: ..}} is missing, which {pack.name} needs: {parameter.about}")
    return values
