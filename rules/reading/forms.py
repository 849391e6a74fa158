"""Fields of queries and of urlencoded forms, with what servers read differently told apart."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus, unquote_to_bytes

from rules.errors import Unreadable
from rules.reading.json import looks_like_json

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

Pairs = tuple[tuple[str, str], ...]

MAX_FIELDS = 1_000
"""The most that all servers take: PHP, Express and Django stop there."""

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_OTHER = re.compile(rb"[\x00-\x20]*+[{\[<]")
"""How JSON, XML and HTML begin. Links in them look like fields."""
_NAMED_PART = re.compile(rb"content-(?:disposition|id)[ \t]*+:", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]|%00")
_BRACKETED = "[].\0 "
_WELL_FORMED = re.compile(r"[^\[\]]+(?:\[[^\[\]]*\])*")
_NO_LETTERS = re.compile(r"[\W_]+")
_MOST_GUESSED = 100_000
"""Separators and escapes of a body that is looked at for fields though it does not say that it is a
form: of megabytes of them, which keep everybody waiting; 8 MiB of what is no text have as many."""


def read_pairs(text: str) -> tuple[Pairs, bool]:
    """The fields of an urlencoded query or body, decoded, and whether there is only one reading.

    False where servers differ: `;` (some split there), a `?` at its beginning (some leave it out),
    broken percent escapes, bytes that are not UTF-8, more fields than some take (and say nothing of
    the rest).
    """
    pairs = []
    clear = ";" not in text and text[:1] != "?" and not _BAD_ESCAPE.search(text)
    clear = clear and text.count("&") < MAX_FIELDS
    for part in text.split("&"):
        if part:
            name, _, value = part.partition("=")
            name, value = unquote_plus(name), unquote_plus(value)
            clear = clear and "\ufffd" not in name and "\ufffd" not in value
            pairs.append((name, value))
    return tuple(pairs), clear


def may_be(name: str, wanted: str) -> bool:
    """Whether some server takes a field of this name for the wanted one, or for a part of it.

    Letter case, `_` and blanks around it do not count: gRPC's gateways take `page_size` for
    `pageSize`. To Spring `!a` is what `a` is if it is not there. To PHP and Rack `a[b]` is a member
    of `a`, and `a[]` the next one, as `a.b` is to Spring and .NET; PHP writes `_` for a dot or
    blank, and ends a name at NUL. What is made of brackets that do not match, or of what stands
    around them, differs so much that nothing but letters and digits count then.
    """
    one, other = _folded(name), _folded(wanted)
    if one == other:
        return True
    if not any(mark in one or mark in other for mark in _BRACKETED):
        return False
    if not (_WELL_FORMED.fullmatch(one) and _WELL_FORMED.fullmatch(other)):
        one, other = _NO_LETTERS.sub("", one), _NO_LETTERS.sub("", other)
        return bool(one and other) and (one.startswith(other) or other.startswith(one))
    return _lead_alike(one, other) or (
        "." in one + other and _lead_alike(one.replace(".", "["), other.replace(".", "["))
    )


def _lead_alike(one: str, other: str) -> bool:
    pairs = zip(_steps(one), _steps(other), strict=False)
    return all(a == b or (at and "" in (a, b)) for at, (a, b) in enumerate(pairs))


def is_plain(name: str) -> bool:
    """Whether nobody takes the name for anything but itself, letter case and blanks around it
    aside."""
    return not any(mark in name.strip() for mark in _BRACKETED)


def plain_name(name: str) -> str:
    """What any two names without a dot begin with of which one `may_be` the other."""
    return _steps(_folded(name))[0]


def _folded(name: str) -> str:
    plain = name.strip().casefold()
    return plain.replace("_", "").lstrip("!") or plain


def _steps(name: str) -> list[str]:
    first, *inner = name.partition("\0")[0].split("[")
    return [first.replace(".", "").replace(" ", ""), *[step.rstrip("]") for step in inner]]


def read_form(body: bytes) -> Pairs:
    """The fields of an urlencoded body.

    Raises Unreadable if it has no one reading, has too many, or looks like something else.
    """
    if body.count(b"&") >= MAX_FIELDS:
        raise Unreadable("its form has too many fields")
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        raise Unreadable("its form is not percent-encoded") from None
    if looks_like_json(body):
        raise Unreadable("its form looks like JSON")
    if _CONTROL.search(text):
        raise Unreadable("its form holds control characters")
    pairs, clear = read_pairs(text)
    if not clear:
        raise Unreadable("its form is read in two ways")
    return pairs


def looks_like_fields(body: bytes) -> bool:
    """Whether a server that does not look at the Content-Type may take the body for a form."""
    return bool(body) and _OTHER.match(body) is None


def guess_fields(content_type: str, body: bytes) -> Pairs:
    """All that servers may find in a body that does not say that it is a form. Raises Unreadable if
    there is no telling.
    """
    if body.startswith(b"--") or "multipart" in content_type.lower():
        # Rack finds fields in multipart/mixed and multipart/related, formidable in all that is
        # called so, and both only where a part has a name.
        if _NAMED_PART.search(body):
            raise Unreadable("its body has parts with names, as a form has")
        return ()
    if sum(map(body.count, (b"&", b";", b"%"))) > _MOST_GUESSED:
        raise Unreadable("its body is too large to be looked at for fields")
    pieces = body.removeprefix(b"?").split(b"&")
    if b";" in body:
        pieces += [inner for piece in pieces if b";" in piece for inner in piece.split(b";")]
    # A name that is not UTF-8 is nobody's; what is no text has thousands of them.
    pairs = map(_guess_field, pieces)
    return tuple([pair for pair in pairs if "\ufffd" not in pair[0].partition("[")[0]])


def _guess_field(piece: bytes) -> tuple[str, str]:
    name, _, value = piece.replace(b"+", b" ").partition(b"=")
    if b"%" in piece:
        name, value = unquote_to_bytes(name), unquote_to_bytes(value)
    return name.decode("utf-8", "replace"), value.decode("utf-8", "replace")
