"""Which fields of a form or query an expression asks for, by its text; and whether there is
something else in the call that some server takes for one of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from rules.reading.forms import is_plain, may_be

_NAMED = r"""\.\s*([A-Za-z_][A-Za-z0-9_]*)\b(?!\s*\() | \[\s*(?:"([^"\\\n]*)"|'([^'\\\n]*)')\s*\]"""
_INSIDE = r"""(?:^|[(&|?:,])\s*(?:"([^"\\\n]*)"|'([^'\\\n]*)')\s+in\s+\.?\s*call\s*\.\s*"""

_MOST = 20_000
"""Pairs of names that are compared, in some 10 ms; an agent chooses how many there are."""


def asked(text: str, variable: str) -> frozenset[str] | None:
    """The names that an expression asks `call.VARIABLE` for; None if it may ask for any.

    It asks by name as in `call.form.a`, `call.form["a"]` or `"a" in call.form`, and in no other way
    that is understood here.
    """
    if "//" in text:
        return None  # a comment may stand anywhere
    by_name = re.findall(rf"\b{variable}\s*(?:{_NAMED})", text, re.VERBOSE)
    inside = re.findall(rf"{_INSIDE}{variable}\b(?!\s*[\[.(])", text)
    if len(by_name) + len(inside) < len(re.findall(rf"\b{variable}\b", text)):
        return None
    return frozenset("".join(names) for names in (*by_name, *inside))


def in_doubt(
    names: Collection[str],
    wanted: Collection[str] | None,
    beside: Collection[str],
    hidden: Collection[str],
) -> bool:
    """Whether some server takes something else for one of the `wanted` fields than the fields of
    these `names`. None wants any; letter case and blanks are for others to heed.

    `beside` are names in the other place, form or query, and `hidden` those of parts that are not
    among the fields.
    """
    if wanted is None:
        if hidden or not all(map(is_plain, names)):
            return True
        wanted = names
    if len(wanted) * (len(names) + len(beside) + len(hidden)) > _MOST:
        return True
    return any(
        may_be(name, one)
        for one in wanted
        for name in (*beside, *hidden, *(n for n in names if not _same(n, one)))
    )


def _same(name: str, other: str) -> bool:
    return name.strip().casefold() == other.strip().casefold()
