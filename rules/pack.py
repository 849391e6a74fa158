"""A pack: rules for one API, each call classified low, medium or high, before it has agents.

`read_pack` reads the file; `rules_of` makes plain rules of it, as if they stood in the policy. What
matchers mean is left to rules.schema, which reads the outcome like any other rule.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product

from rules.checks import paths_overlap
from rules.errors import InvalidFile
from rules.hosts import parse_pattern
from rules.paths import parse_template
from rules.schema import RULE
from rules.source import Section, Source
from rules.yamlfile import Lines, parse_yaml

CLASSES = ("low", "medium", "high")
FIELDS = ("pack", "title", "about", "hosts", "parameters", "credential", "rules")
PARAMETER = ("about", "default", "kind")
KINDS = ("name", "host")
_GIVEN = ("id", "agents", "effect", "risk", "use", "mode")
"""Fields of a policy's rule that a pack's rule gets when it is included."""
OF_RULE = ("id", "class", "rest", *(name for name in RULE if name not in _GIVEN))
_PATTERNS = frozenset(("host", "path", "tool", "fields", "service", "method", "glob"))
"""Fields of a match in which `*` is anything; in others it is a star."""
_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_VALUE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,99}")
_REFERENCE = re.compile(r"\$\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Parameter:
    """What an include fills in for `${name}`."""

    name: str
    about: str
    default: tuple[str, ...] | None
    """None: it must be given."""
    kind: str
    """`name`: one segment of a path at most; `host`: a host with an optional port."""

    @property
    def any(self) -> bool:
        """Without a value it stands for any one segment."""
        return self.default is not None and self.default[0].startswith(("*", "{"))

    def parse(self, text: str) -> str:
        """A value that stays in its place. Raises ValueError."""
        if self.kind == "host":
            if parse_pattern(text).wildcard:
                raise ValueError(f'"{text}" stands for many hosts; name one')
        elif not _VALUE.fullmatch(text):
            hint = "; leave it out to mean any" if text == "*" and self.any else ""
            raise ValueError(
                f'"{text[:80]}" is more than one name; use letters, digits and . _ @ + -{hint}'
            )
        return text


@dataclass(frozen=True, slots=True)
class PackRule:
    """One rule as the pack's file has it; `fields` are those of a policy's rule."""

    id: str
    level: str
    """`low`, `medium` or `high`: the class of its calls."""
    rest: bool
    """It has what no other rule of the pack has."""
    fields: Mapping[str, object]
    tests: Mapping[str, object]
    index: int
    """Its place in the file's list."""


@dataclass(frozen=True, slots=True)
class Pack:
    name: str
    title: str
    about: str
    hosts: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    credential: object
    """As `inject:` of a credential; None: none is put in."""
    rules: tuple[PackRule, ...]
    file: str
    text: str = field(repr=False)
    lines: Lines


@lru_cache(maxsize=64)
def read_pack(text: str, file: str) -> Pack:
    """Raises InvalidFile with every problem in the pack's own form, in file order."""
    value, lines = parse_yaml(text, file)
    source = Source(file, lines)
    root = Section(source, ())
    if isinstance(value, dict) and "version" in value and "pack" not in value:
        root.at("version").error("this is a policy; what is included is a pack (pack: NAME)")
        raise InvalidFile(source.errors())
    if not isinstance(value, dict) or not value.keys() & set(FIELDS):
        root.error("this is no pack; a pack has pack, title, about, hosts and rules")
        raise InvalidFile(source.errors())
    if "include" in value:
        root.at("include").error("a pack includes no other; include both in the policy")
        raise InvalidFile(source.errors())
    fields = root.mapping(value, FIELDS) or {}
    name = title = about = None
    if root.has(fields, "pack"):
        name = root.at("pack").parsed(fields["pack"], _parse_id)
    if root.has(fields, "title"):
        title = root.at("title").text(fields["title"], 80)
    if root.has(fields, "about"):
        about = root.at("about").text(fields["about"], 1000)
    parameters = {
        key: found
        for key, entry in (root.at("parameters").mapping(fields.get("parameters")) or {}).items()
        if (found := _read_parameter(root.at("parameters", key), key, entry))
    }
    hosts: tuple[str, ...] = ()
    if root.has(fields, "hosts"):
        hosts = root.at("hosts").several(fields["hosts"], str)
    items = fields.get("rules")
    if not isinstance(items, list) or not items:
        root.at("rules").error("rules must be a list, and not empty")
        items = []
    rules = [_read_rule(root.at("rules", i), i, item) for i, item in enumerate(items)]
    _check(root, parameters, fields, [rule for rule in rules if rule])
    if name is None or title is None or about is None or source.errors():
        raise InvalidFile(source.errors())
    return Pack(
        name,
        title,
        about,
        hosts,
        parameters,
        fields.get("credential"),
        tuple(rule for rule in rules if rule),
        file,
        text,
        lines,
    )


def _parse_id(text: str) -> str:
    if not _NAME.fullmatch(text) or len(text) > 60:
        raise ValueError(f'"{text[:80]}" is not a name; use small letters, digits and hyphens')
    return text


def _read_parameter(at: Section, name: str, value: object) -> Parameter | None:
    fields = at.mapping(value, PARAMETER) or {}
    about = at.at("about").text(fields.get("about"), 300)
    kind = at.at("kind").choice(fields.get("kind", "name"), KINDS)
    default: tuple[str, ...] | None = None
    if "default" in fields:
        default = at.at("default").several(fields["default"], str)
    if not _NAME.fullmatch(name.replace("_", "-")):
        at.error("a parameter's name has small letters, digits and _")
    if about is None or kind is None:
        return None
    return Parameter(name, about, default, kind)


def _read_rule(at: Section, index: int, value: object) -> PackRule | None:
    fields = at.mapping(value)
    if fields is None:
        return None
    for name in fields:
        if name in _GIVEN and name != "id":
            by = "class" if name in ("effect", "risk") else "the include"
            at.at(name).error(f"{name} is not a pack's to say: {by} does")
        elif name not in OF_RULE:
            at.at(name).unknown("field", name, OF_RULE)
    found = level = None
    if at.has(fields, "id"):
        found = at.at("id").parsed(fields["id"], _parse_id)
    if at.has(fields, "class"):
        level = at.at("class").choice(fields["class"], CLASSES)
    at.has(fields, "match")
    rest = fields.get("rest", False)
    if not isinstance(rest, bool):
        at.at("rest").error("rest must be true or false")
    tests = at.at("tests").mapping(fields.get("tests"), ("match", "no_match")) or {}
    if found is None or level is None:
        return None
    aside = ("id", "class", "rest", "tests")
    kept = {name: field for name, field in fields.items() if name not in aside}
    return PackRule(found, level, rest is True, kept, tests, index)


def _check(
    root: Section,
    parameters: Mapping[str, Parameter],
    fields: Mapping[str, object],
    rules: Sequence[PackRule],
) -> None:
    """No id twice, no reference that leads nowhere, no parameter that nothing refers to."""
    first: dict[str, PackRule] = {}
    for rule in rules:
        if first.setdefault(rule.id, rule) is not rule:
            line = root.at("rules", first[rule.id].index).line
            root.at("rules", rule.index, "id").error(f'rule id "{rule.id}" is taken by line {line}')
    used = set()
    for part in ("hosts", "rules"):
        for reference in _references(fields.get(part)):
            used.add(reference)
            if reference not in parameters:
                root.at(part).unknown("parameter", reference, parameters)
    for rule in rules:
        for part in ("match", "except"):
            at = root.at("rules", rule.index, part)
            for name in _in_names(rule.fields.get(part)):
                at.error(f"{name[:80]}: a parameter stands in a value, not in a name")
            for reference in _outside_patterns(rule.fields.get(part)):
                if reference in parameters and "*" in (parameters[reference].default or ()):
                    at.error(f"${{{reference}}} may be `*`, which is no pattern here")
    for name in parameters.keys() - used:
        root.at("parameters", name).error(f"nothing refers to ${{{name}}}")


def _references(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield from _REFERENCE.findall(value)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _references(part)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part)


def _in_names(value: object) -> Iterator[str]:
    """Names of fields with a reference in them, which nothing fills in."""
    if isinstance(value, dict):
        yield from (name for name in value if _REFERENCE.search(name))
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _in_names(part)


def _outside_patterns(value: object, field: str = "") -> Iterator[str]:
    """What a match refers to where `*` is a star."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _outside_patterns(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _outside_patterns(part, field)
    elif field not in _PATTERNS:
        yield from _references(value)


type Values = Mapping[str, tuple[str, ...]]
"""Of parameters: each has one, or several, any of which is meant."""


def rules_of(pack: Pack, values: Values) -> list[tuple[PackRule, dict[str, object]]]:
    """The pack's rules with the parameters filled in: fields of a policy's rule, without `id`,
    `agents` and `use`."""
    hosts = _flat(fill(list(pack.hosts), values))
    made = []
    for rule in pack.rules:
        fields: dict[str, object] = {}
        for name, given in rule.fields.items():
            if name in ("match", "except"):
                fields[name] = fill(given, values)
            elif isinstance(given, str):
                fields[name] = _REFERENCE.sub(lambda found: ", ".join(values[found[1]]), given)
            else:
                fields[name] = given
        fields["match"] = at_hosts(fields["match"], hosts)
        if rule.level == "low":
            fields["effect"] = "allow"
        else:
            fields["effect"], fields["risk"] = "hold", rule.level
        made.append((rule, fields))
    for rule, fields in made:
        if rule.rest:
            taken = [
                match
                for other, its in made
                if not other.rest and (rule.level, other.level) != ("low", "low")
                for match in listed(its["match"])
            ]
            holes = [*listed(fields.get("except", [])), *_holes(listed(fields["match"]), taken)]
            if holes:
                fields["except"] = holes
    return made


def fill(value: object, values: Values) -> object:
    """`value` with its references filled in; text may become a list, which a list takes in."""
    if isinstance(value, str):
        return _filled(value, values)
    if isinstance(value, list):
        return _flat([fill(item, values) for item in value])
    if isinstance(value, dict):
        return {name: fill(item, values) for name, item in value.items()}
    return value


def _filled(text: str, values: Values) -> str | list[str]:
    names = list(dict.fromkeys(_REFERENCE.findall(text)))
    if not names:
        return text
    filled = []
    for chosen in product(*(values[name] for name in names)):
        by_name = dict(zip(names, chosen, strict=True))
        filled.append(_REFERENCE.sub(lambda found, by=by_name: by[found[1]], text))  # type: ignore[misc]
    return filled[0] if len(filled) == 1 else filled


def _flat(items: object) -> list[object]:
    flat: list[object] = []
    for item in items if isinstance(items, list) else [items]:
        flat += item if isinstance(item, list) else [item]
    return flat


def at_hosts(value: object, hosts: Sequence[object]) -> object:
    """A match, or several, at these hosts where it names none."""
    if isinstance(value, list):
        return [at_hosts(item, hosts) for item in value]
    if isinstance(value, dict) and "host" not in value:
        return {"host": hosts[0] if len(hosts) == 1 else list(hosts), **value}
    return value


def listed(value: object) -> list[Mapping[str, object]]:
    """One match or several."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, dict)]


def _holes(
    matches: Sequence[Mapping[str, object]], taken: Iterable[Mapping[str, object]]
) -> list[dict[str, object]]:
    """What to except from a rule, so that it leaves the calls of others to them.

    Paths with the same methods and hosts come together, and what cannot meet the rule is left out:
    each is looked at for every call.
    """
    paths: defaultdict[tuple[tuple[str, ...], str], dict[str, None]] = defaultdict(dict)
    hosts: dict[str, object] = {}
    others: list[dict[str, object]] = []
    own_hosts = [match.get("host") for match in matches]
    for match in taken:
        meeting = [own for own in matches if _may_meet(own, match)]
        if not meeting:
            continue
        hole = dict(match)
        if all(host == match.get("host") for host in own_hosts):
            hole.pop("host", None)
        if hole.keys() <= {"method", "path", "host"} and "path" in hole:
            methods = tuple(sorted(words(hole.get("method"))))
            host = repr(hole.get("host"))
            hosts[host] = hole.get("host")
            paths[methods, host].update(dict.fromkeys(words(hole["path"])))
        else:
            others.append(hole)
    joined: list[dict[str, object]] = []
    for (methods, host), templates in paths.items():
        hole = {"path": list(templates)}
        if methods:
            hole["method"] = list(methods)
        if hosts[host] is not None:
            hole["host"] = hosts[host]
        joined.append(hole)
    return joined + others


def _may_meet(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether some call may fall under both, as far as method, host and path can tell."""
    for name in ("method", "host"):
        ours, theirs = set(words(one.get(name))), set(words(other.get(name)))
        # Hosts with wildcards may meet in more ways than one; they are left to the call.
        if ours and theirs and ours.isdisjoint(theirs) and not any("*" in w for w in ours | theirs):
            return False
    mine, its = words(one.get("path")), words(other.get("path"))
    if not mine or not its:
        return True
    try:
        return any(paths_overlap(parse_template(a), parse_template(b)) for a in mine for b in its)
    except ValueError:
        return True  # rules.schema says what is wrong with it


def words(value: object) -> list[str]:
    """One word or several."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str)]
