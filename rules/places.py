"""Places in a request: `json:/pointer`, `form:name`, `query:name`, `header:name`.

Reads values for people and for conditions. A body is read only as what its Content-Type says it is
and only if it has one reading; else its places are absent. Nothing is ever guessed or repaired.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal
from urllib.parse import unquote_plus

from rules.reading.json import MAX_PIECES, Json, Unreadable, json_text, read_json
from rules.request import Request

Kind = Literal["json", "form", "query", "header"]
Pairs = tuple[tuple[str, str], ...]

_SPELLINGS = "json:/pointer, form:name, query:name or header:name"
_KINDS: dict[str, Kind] = {"json": "json", "form": "form", "query": "query", "header": "header"}
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_BAD_POINTER = re.compile(r"~(?![01])")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Place:
    """One place; `name` is a JSON pointer for `json`, lower case for `header`."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


def parse_place(text: str) -> Place:
    """The place that `text` names. Raises ValueError with a sentence."""
    word, colon, name = text.partition(":")
    kind = _KINDS.get(word)
    if kind is None or not colon:
        raise ValueError(f'"{text}" is not a place in a request; write {_SPELLINGS}')
    if not name:
        raise ValueError(f'"{text}" names nothing; write {_SPELLINGS}')
    if kind == "json" and (not name.startswith("/") or _BAD_POINTER.search(name)):
        raise ValueError(f'"{name}" is not a JSON pointer (RFC 6901), such as /items/0/amount')
    if kind == "header":
        if not _TOKEN.fullmatch(name):
            raise ValueError(f'"{name}" is not a header name')
        name = name.lower()
    return Place(kind, name)


def read_place(place: Place, request: Request) -> str | None:
    """The value at `place` as text, None if there is none.

    A parameter or header given several times shows all its values, joined by ", ": which of them
    the upstream will take is not known, so none is hidden.
    """
    return Reading(request).at(place)


def read_pairs(text: str) -> tuple[Pairs, bool]:
    """The fields of an urlencoded query or body, decoded, and whether there is only one reading.

    False where servers differ: `;` (some split there), broken percent escapes, bytes that are not
    UTF-8.
    """
    pairs = []
    clear = ";" not in text and not _BAD_ESCAPE.search(text)
    for part in text.split("&"):
        if part:
            name, _, value = part.partition("=")
            name, value = unquote_plus(name), unquote_plus(value)
            clear = clear and "\ufffd" not in name and "\ufffd" not in value
            pairs.append((name, value))
    return tuple(pairs), clear


class Reading:
    """A request's places; the body is parsed once, when it is first asked for."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def at(self, place: Place) -> str | None:
        match place.kind:
            case "query":
                return _joined(v for n, v in self.query[0] if n == place.name)
            case "header":
                return self.request.header(place.name)
            case "form":
                return _joined(v for n, v in self.form or () if n == place.name)
            case "json":
                return self._json_at(place.name)

    @cached_property
    def query(self) -> tuple[Pairs, bool]:
        """The query's fields, and whether there is only one reading of them."""
        return read_pairs(self.request.query or "")

    @cached_property
    def form(self) -> Pairs | None:
        """The fields of an urlencoded body; None if it is not one, has no one reading or too many
        fields."""
        if self._media_type() != "application/x-www-form-urlencoded":
            return None
        if self.request.body.count(b"&") > MAX_PIECES:
            return None
        try:
            pairs, clear = read_pairs(self.request.body.decode("ascii"))
        except UnicodeDecodeError:
            return None
        return pairs if clear else None

    @cached_property
    def json(self) -> Json:
        """The JSON body. Raises Unreadable if it is not one, or has no one reading."""
        kind = self._media_type()
        if kind != "application/json" and not kind.endswith("+json"):
            raise Unreadable("not JSON by its Content-Type")
        return read_json(self.request.body)

    def _media_type(self) -> str:
        """The body's media type, lower case; empty if there is none or the body is encoded."""
        if self.request.header("content-encoding") not in (None, "identity"):
            return ""
        kind, *parameters = (self.request.header("content-type") or "").lower().split(";")
        for parameter in parameters:
            name, _, value = parameter.strip().partition("=")
            if name == "charset" and value.strip('"') not in ("utf-8", "us-ascii"):
                return ""
        return kind.strip()

    def _json_at(self, pointer: str) -> str | None:
        try:
            value = self.json
            for token in pointer[1:].split("/"):
                step = token.replace("~1", "/").replace("~0", "~")
                if isinstance(value, dict) and step in value:
                    value = value[step]
                elif isinstance(value, list) and _INDEX.fullmatch(step) and int(step) < len(value):
                    value = value[int(step)]
                else:
                    return None
            return json_text(value)
        except (Unreadable, RecursionError):
            return None


def _joined(values: Iterable[str]) -> str | None:
    found = list(values)
    return ", ".join(found) if found else None
