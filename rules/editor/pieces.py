"""The pieces that a JSON Schema is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

type Json = dict[str, Any]


def fields_of(
    table: Iterable[str],
    fields: Mapping[str, Json],
    about: str = "",
    *,
    required: Iterable[str] = (),
    empty: Iterable[str] = (),
) -> Json:
    """A mapping with the fields of the loader's table; those of `empty` may be null."""
    names = list(table)
    if set(names) != fields.keys():
        raise AssertionError(f"not the loader's fields: {set(names) ^ fields.keys()}")
    bare = set(empty)
    return said(
        about,
        type="object",
        properties={n: or_null(fields[n]) if n in bare else fields[n] for n in names},
        required=list(required),
        additionalProperties=False,
    )


def said(about: str, /, **parts: Any) -> Json:
    return {"description": about, **parts} if about else parts


def ref(name: str) -> Json:
    return {"$ref": f"#/$defs/{name}"}


def text(about: str = "") -> Json:
    return said(about, type="string")


def scalar(about: str = "") -> Json:
    return said(about, type=["string", "integer", "boolean", "null"])


def pattern(pattern: str, about: str = "") -> Json:
    return said(about, type="string", pattern=pattern)


def choice(words: Iterable[str], about: str = "") -> Json:
    return said(about, enum=list(words))


def suggest(words: Iterable[str], about: str = "") -> Json:
    """These words are offered; others may be right."""
    return said(about, anyOf=[{"enum": list(words)}, {"type": "string"}])


def listed(item: Json, about: str = "", *, least: int = 0, most: int | None = None) -> Json:
    found = said(about, type="array", items=item)
    if least:
        found["minItems"] = least
    return found if most is None else found | {"maxItems": most}


def several(item: Json, about: str = "") -> Json:
    """One, or a list of them."""
    return said(about, anyOf=[item, listed(item, least=1)])


def mapped(item: Json, about: str = "") -> Json:
    return said(about, type="object", additionalProperties=item)


def or_null(field: Json) -> Json:
    return {"anyOf": [field, {"type": "null"}]}
