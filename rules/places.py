"""Places in a request: `json:/pointer`, `form:name`, `query:name`, `header:name`.

A body is read only as what its Content-Type says it is and only if it has one reading; else its
places are absent. Nothing is ever guessed or repaired.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["json", "form", "query", "header"]

_SPELLINGS = "json:/pointer, form:name, query:name or header:name"
_KINDS: dict[str, Kind] = {"json": "json", "form": "form", "query": "query", "header": "header"}
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+")
_BAD_POINTER = re.compile(r"~(?![01])")


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
        # Only what goes wrong needs the reader of files: the command line shows its help without.
        from rules.yamlfile import did_you_mean

        hint = did_you_mean(word, _KINDS)
        raise ValueError(f'"{text}" is not a place in a request; write {_SPELLINGS}{hint}')
    if not name:
        raise ValueError(f'"{text}" names nothing; write {_SPELLINGS}')
    if kind == "json" and (not name.startswith("/") or _BAD_POINTER.search(name)):
        raise ValueError(f'"{name}" is not a JSON pointer (RFC 6901), such as /items/0/amount')
    if kind == "header":
        if not _TOKEN.fullmatch(name):
            raise ValueError(f'"{name}" is not a header name')
        name = name.lower()
    return Place(kind, name)
