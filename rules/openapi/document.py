"""A description as operations: what each is called, where it is served, what goes in and comes out.

Follows `$ref` inside the file only; what points elsewhere is named, never fetched. A description
may be broken or hostile in any place: what is not as it should be is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

from rules.openapi.reading import Plain

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "query")
"""Those of a path item that rules can match; TRACE is never forwarded."""
VERSIONS = ("3.0", "3.1", "3.2")
MAX_OPERATIONS = 50_000
_MAX_HOPS = 30
"""References on the way to one value."""
_MAX_PARTS = 400
"""Schemas that are looked at for one operation's fields."""
_MATCHABLE = re.compile("[A-Z][A-Z-]{0,31}")
"""Methods that a rule can name (rules.spellings)."""
_UNFORWARDED = ("CONNECT", "TRACE", "TRACK")
_INDEX = re.compile("0|[1-9][0-9]{0,8}")
"""Of a list's entry in a JSON pointer (RFC 6901); Python refuses to read numbers without end."""
_WRAPPERS = ("data", "items", "results", "value", "values", "entries", "records", "list", "rows")
"""Where lists stand that an answer wraps."""


class Unfit(ValueError):
    """The file is no description that rules can be made of; the sentence says what to do."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a request, by the name of its place (see rules.places); "" if it has none."""

    name: str
    place: str
    required: bool
    within: frozenset[str] = frozenset()
    """Names of the fields of a body's object, in small letters."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    """In capitals."""
    path: str
    """As the description has it, without the server's part."""
    id: str = ""
    summary: str = ""
    text: str = ""
    """The beginning of its longer description."""
    tags: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    """Of the body, then of the query."""
    gives: frozenset[str] = frozenset()
    """Names of the values in a good answer, those in the entries of a list included."""
    within: frozenset[str] = frozenset()
    """Names of the values inside those."""
    items: frozenset[str] = frozenset()
    """Names of the values in each entry, if the answer is a list."""
    statuses: frozenset[str] = frozenset()
    answers: bool = False
    """A good answer (200) has a body."""
    deep: frozenset[str] = frozenset()
    """Path parameters that say they may hold slashes."""
    servers: tuple[str, ...] = ()
    """Its own server URLs; empty: the description's."""


@dataclass(slots=True)
class Document:
    """A description, with what was noticed on the way."""

    root: dict[str, Plain]
    remote: dict[str, None] = field(default_factory=dict)
    """References that lead out of the file, or nowhere."""
    unruled: dict[str, None] = field(default_factory=dict)
    """What stands where an operation would, and is none that a rule can be made of."""
    callbacks: int = 0
    traces: int = 0
    _shapes: dict[int, _Shape] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Plain) -> Document:
        """Raises Unfit with what to do."""
        if not isinstance(value, dict):
            raise Unfit("the file holds no mapping, so it is no OpenAPI description")
        if "swagger" in value:
            version = _text(value["swagger"])[:10]
            raise Unfit(
                f"this is Swagger {version}, and rules are made of OpenAPI 3; convert it first: "
                "npx swagger2openapi FILE -o openapi.yaml"
            )
        if "openapi" not in value:
            raise Unfit("the file has no `openapi:` field, so it is no OpenAPI description")
        version = _text(value["openapi"])
        if ".".join(version.split(".")[:2]) not in VERSIONS:
            known = ", ".join(VERSIONS)
            raise Unfit(f"OpenAPI {version[:20]!r} is not known here; the versions are {known}")
        if not isinstance(value.get("paths"), dict):
            raise Unfit("the description has no `paths:`, so there is no call to make a rule of")
        return cls(value)

    @property
    def title(self) -> str:
        return _text(self._info.get("title"))

    @property
    def version(self) -> str:
        return _text(self._info.get("version"))

    @property
    def _info(self) -> Mapping[str, Plain]:
        return _mapping(self.root.get("info"))

    @property
    def servers(self) -> tuple[str, ...]:
        return self._servers(self.root)

    @property
    def webhooks(self) -> int:
        """How many calls the service says it makes itself."""
        named = self.root.get("webhooks"), self.root.get("x-webhooks")
        return sum(len(_mapping(value)) for value in named)

    @property
    def schemes(self) -> list[Mapping[str, Plain]]:
        """The ways in which callers say who they are."""
        components = _mapping(self.root.get("components"))
        named = _mapping(components.get("securitySchemes"))
        return [_mapping(self.resolve(scheme)) for scheme in named.values()]

    def resolve(self, value: Plain) -> Plain:
        """What `value` is, references inside the file followed; None if they lead nowhere."""
        reference = ""
        for _ in range(_MAX_HOPS):
            if not isinstance(value, dict) or not isinstance(found := value.get("$ref"), str):
                return value
            reference = found
            if not reference.startswith("#"):
                self.remote[reference] = None
                return None
            value, there = self._at(reference[1:])
            if not there:
                self.remote[reference] = None
        self.remote[reference] = None  # in a circle
        return None

    def _at(self, pointer: str) -> tuple[Plain, bool]:
        value: Plain = self.root
        if not pointer.startswith("/"):
            return value, pointer == ""
        for token in pointer[1:].split("/"):
            step = unquote(token).replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and step in value:
                value = value[step]
            elif isinstance(value, list) and _INDEX.fullmatch(step) and int(step) < len(value):
                value = value[int(step)]
            else:
                return None, False
        return value, True

    def operations(self) -> Iterator[Operation]:
        """Every operation in the file's order. Raises Unfit if there are too many."""
        count = 0
        for path, item in _mapping(self.root.get("paths")).items():
            if path.startswith("x-"):
                continue
            # Beside a $ref a path item may have fields of its own, which then count too.
            found = {**_mapping(self.resolve(item)), **_mapping(item)}
            self.traces += "trace" in found
            self.unruled.update((f"{key} {path}", None) for key in _unruled(found))
            for method, operation in _methods(found):
                count += 1
                if count > MAX_OPERATIONS:
                    raise Unfit(f"the description has more than {MAX_OPERATIONS:,} operations")
                yield self._operation(method, path, found, _mapping(self.resolve(operation)))

    def _operation(
        self, method: str, path: str, item: Mapping[str, Plain], own: Mapping[str, Plain]
    ) -> Operation:
        self.callbacks += len(_mapping(own.get("callbacks")))
        # The operation's parameters stand in for those of its path.
        parameters: dict[tuple[str, str], Mapping[str, Plain]] = {}
        for listed in (item.get("parameters"), own.get("parameters")):
            for value in _list(listed):
                parameter = _mapping(self.resolve(value))
                key = _text(parameter.get("in")), _text(parameter.get("name"))
                parameters[key] = parameter
        query = tuple(
            Field(name, f"query:{name}", parameter.get("required") is True)
            for (where, name), parameter in parameters.items()
            if where == "query" and name
        )
        deep = {n for (w, n), p in parameters.items() if w == "path" and p.get("x-multi-segment")}
        responses = _mapping(own.get("responses"))
        gives, within, items, answers = self._answer(responses)
        return Operation(
            method=method,
            path=path,
            id=_text(own.get("operationId")),
            summary=_text(own.get("summary")) or _text(item.get("summary")),
            text=_text(own.get("description"))[:2000],
            tags=tuple(_text(tag) for tag in _list(own.get("tags"))),
            fields=self._body(own.get("requestBody")) + query,
            gives=gives,
            within=within,
            items=items,
            statuses=frozenset(responses),
            answers=answers,
            deep=frozenset(deep),
            servers=self._servers(own) or self._servers(item),
        )

    def _servers(self, where: Mapping[str, Plain]) -> tuple[str, ...]:
        """URLs with their variables filled in by their defaults."""
        found = []
        for value in _list(where.get("servers")):
            server = _mapping(value)
            url = _text(server.get("url"))
            for name, variable in _mapping(server.get("variables")).items():
                default = _mapping(variable).get("default")
                if isinstance(default, str):
                    url = url.replace("{" + name + "}", default)
            found.append(url)
        return tuple(dict.fromkeys(found))

    def _body(self, value: Plain) -> tuple[Field, ...]:
        content = _mapping(_mapping(self.resolve(value)).get("content"))
        for kind, media in content.items():
            way = _way(kind)
            if way is None:
                continue
            shape = self._shape(_mapping(media).get("schema"))
            return tuple(
                Field(name, _place(way, name), name in shape.required, self._within(schema, index))
                for index, (name, schema) in enumerate(shape.properties.items())
            )
        return ()

    def _within(self, schema: Plain, index: int) -> frozenset[str]:
        if index >= _MAX_PARTS:
            return frozenset()
        return frozenset(name.lower() for name in self._shape(schema).properties)

    def _answer(
        self, responses: Mapping[str, Plain]
    ) -> tuple[frozenset[str], frozenset[str], frozenset[str], bool]:
        gives: set[str] = set()
        within: set[str] = set()
        items: set[str] = set()
        answers = False
        for status, value in responses.items():
            if not status.startswith("2"):
                continue
            content = _mapping(_mapping(self.resolve(value)).get("content"))
            answers = answers or (bool(content) and status in ("200", "2XX", "2xx"))
            for media in content.values():
                shape = self._shape(_mapping(media).get("schema"))
                gives |= shape.properties.keys()
                items |= self._shape(shape.items).properties.keys()
                for name, schema in list(shape.properties.items())[:_MAX_PARTS]:
                    inner = self._shape(schema)
                    within |= inner.properties.keys()
                    if inner.items is not None and (name in _WRAPPERS or len(shape.lists) == 1):
                        items |= self._shape(inner.items).properties.keys()
        return frozenset(gives | items), frozenset(within), frozenset(items), answers

    def _shape(self, schema: Plain) -> _Shape:
        """The fields of a schema, those of what it is composed of included."""
        whole = self.resolve(schema)
        if not isinstance(whole, dict):
            return _NOTHING
        # Every value lives as long as the description, so an id stands for one schema.
        known = self._shapes.get(id(whole))
        if known is None:
            known = self._shapes[id(whole)] = self._compose(whole)
        return known

    def _compose(self, whole: dict[str, Plain]) -> _Shape:
        properties: dict[str, Plain] = {}
        required: set[str] = set()
        items: Plain = None
        pending: list[tuple[dict[str, Plain], bool]] = [(whole, True)]
        seen: set[int] = set()
        while pending and len(seen) < _MAX_PARTS:
            part, surely = pending.pop(0)
            if id(part) in seen:
                continue
            seen.add(id(part))
            for name, value in list(_mapping(part.get("properties")).items())[:_MAX_PARTS]:
                properties.setdefault(name, value)
            if surely:
                required.update(n for n in _list(part.get("required")) if isinstance(n, str))
            if items is None:
                items = part.get("items")
            for word in ("allOf", "anyOf", "oneOf"):
                for value in _list(part.get(word))[:_MAX_PARTS]:
                    inner = self.resolve(value)
                    if isinstance(inner, dict):
                        pending.append((inner, surely and word == "allOf"))
        lists = tuple(
            name
            for name, value in list(properties.items())[:_MAX_PARTS]
            if isinstance(inner := self.resolve(value), dict) and "items" in inner
        )
        return _Shape(properties, frozenset(required), items, lists)


@dataclass(frozen=True, slots=True)
class _Shape:
    properties: Mapping[str, Plain]
    required: frozenset[str]
    items: Plain
    lists: tuple[str, ...]


_NOTHING = _Shape({}, frozenset(), None, ())


def split_server(url: str) -> tuple[str, str, str]:
    """Scheme, authority and base path (without `/` at its end) of a server URL; the first two are
    empty where it is relative."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", "", ""
    # Relative to wherever the file came from, or no URL at all.
    base = parts.path.rstrip("/") if parts.path.startswith("/") else ""
    return parts.scheme.lower(), parts.netloc.lower(), base


def _extensions(item: Mapping[str, Plain]) -> Iterator[tuple[str, Plain, bool]]:
    """OpenAPI 3.2's methods beyond the named ones, and whether a rule can be made of each."""
    for method, operation in _mapping(item.get("additionalOperations")).items():
        known = method.lower() in METHODS and method.lower() in item
        matchable = _MATCHABLE.fullmatch(method) and method not in _UNFORWARDED
        yield method, operation, bool(matchable and not known and isinstance(operation, dict))


def _unruled(item: Mapping[str, Plain]) -> Iterator[str]:
    """The names in a path item that mean a method, and that no rule is made of."""
    for key, value in item.items():
        method = key.lower() in METHODS or key.lower() == "trace"
        if method and (key != key.lower() or (key in METHODS and not isinstance(value, dict))):
            yield key
    yield from (method for method, _, fit in _extensions(item) if not fit)


def _methods(item: Mapping[str, Plain]) -> Iterator[tuple[str, Plain]]:
    for method in METHODS:
        if isinstance(item.get(method), dict):
            yield method.upper(), item[method]
    yield from ((method, operation) for method, operation, fit in _extensions(item) if fit)


def _way(kind: str) -> Literal["json", "form", ""] | None:
    """How places name the fields of a body of this type; "" for none, None for a type without
    fields."""
    media = kind.partition(";")[0].strip().lower()
    if media in ("application/json", "*/*") or media.endswith("+json"):
        return "json"
    if media == "application/x-www-form-urlencoded":
        return "form"
    return "" if media == "multipart/form-data" else None


def _place(way: Literal["json", "form", ""], name: str) -> str:
    if way == "json":
        return "json:/" + name.replace("~", "~0").replace("/", "~1")
    return f"form:{name}" if way == "form" else ""


def _mapping(value: Plain) -> dict[str, Plain]:
    return value if isinstance(value, dict) else {}


def _list(value: Plain) -> list[Plain]:
    return value if isinstance(value, list) else []


def _text(value: Plain) -> str:
    return value if isinstance(value, str) else ""
