"""Fields of queries and of urlencoded forms, with what servers read differently told apart."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

from rules.errors import Unreadable
from rules.reading.json import MAX_PIECES

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

Pairs = tuple[tuple[str, str], ...]

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_FIELDS = re.compile(rb"[^\x00-\x20=&{\[<]+=")
_MOST_GUESSED = 1 << 20
"""Bytes of a body that is looked at for fields though it says that it is something else."""


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


def read_form(body: bytes) -> Pairs:
    """The fields of an urlencoded body. Raises Unreadable if it has no one reading, or too many."""
    if body.count(b"&") > MAX_PIECES:
        raise Unreadable("its form has too many fields")
    try:
        pairs, clear = read_pairs(body.decode("ascii"))
    except UnicodeDecodeError:
        raise Unreadable("its form is not percent-encoded") from None
    if not clear:
        raise Unreadable("its form is read in two ways")
    return pairs


def looks_like_fields(body: bytes) -> bool:
    """Whether a server that does not look at the Content-Type may take the body for a form."""
    return len(body) <= _MOST_GUESSED and _FIELDS.match(body) is not None
