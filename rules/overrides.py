"""What in a request would have the upstream take another method than the one that was matched.

Frameworks replace it by a parameter in the query, a field of a form, a part of a multipart body or
a member of a JSON object. Any of these is refused, and so is a body in which they could hide. The
time is bounded: what is too large to be taken apart is refused once it speaks of such a parameter.
"""

from __future__ import annotations

import json
import re
from urllib.parse import unquote

from rules.errors import Ambiguous
from rules.hosts import shown
from rules.media import MediaType

MAX_FIELDS = 500_000
"""Of a query or form that speaks of overrides, or writes plain letters as escapes."""
MAX_PARTS = 10_000
MAX_SEARCHED = 1 << 20
"""Bytes of a body that are taken apart where a quick look cannot settle it."""
MAX_PART_HEADER = 8_192

# Rails, Symfony, Laravel, Spring and others; ASP.NET; Google's front end; Salesforce; Plack.
_OVERRIDES = frozenset(
    {
        "_method",
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-tunneled-method",
        "$httpmethod",
        "$httpheaders",
        "_httpmethod",
    }
)
_MARKS = (b"method", b"httpheaders")  # each of these names holds one
_ESCAPED_LETTER = re.compile(rb"%(?:[46][458df]|[57][0234])")
"""A letter of a mark in escapes, in lower case."""


def _in_escapes(name: str) -> str:
    """A pattern for the name as a form may spell it, in lower case."""
    # PHP turns a dot into `_`.
    spellings = ({c, c.upper(), "." if c == "_" else c} for c in name)
    return "".join(
        "(?:" + "|".join(f"{re.escape(c.lower())}|%{ord(c):02x}" for c in sorted(each)) + ")"
        for each in spellings
    )


_BLANKS_IN_FORM = r"(?:[+ ]|%20)*+"
# PHP strips blanks before a name, and cuts it at NUL and `[`.
_FIELD = (
    rf"{_BLANKS_IN_FORM}({'|'.join(map(_in_escapes, sorted(_OVERRIDES)))})"
    rf"{_BLANKS_IN_FORM}(?=[=&;\[\0]|%5b|%00|\Z)"
).encode()
_FIRST_FIELD = re.compile(_FIELD)
_LATER_FIELD = re.compile(b"[&;]" + _FIELD)

_PART = b"content-disposition"
# Possessive: lines without end are read in one go, with nothing kept to go back to.
_PART_HEADER = re.compile(rb"(?i)content-disposition[ \t]*+:([^\r\n]*+(?:\r?\n[ \t][^\r\n]*+)*+)")
_PART_NAME = re.compile(rb'(?i)name\*?[ \t]*+=[ \t]*+"?([^";\r\n]*+)')
_EXTENDED = re.compile(r"(?:[A-Za-z0-9-]+'[^']*')?(.*)", re.DOTALL)
_CONTINUED = re.compile(rb"(?i)name\*[0-9]")
"""A parameter in pieces (RFC 2231 3), which form data must not have (RFC 7578 4.2)."""

_JSON_MEMBER = re.compile(rb'(?i)"_method"[ \t\r\n]*+:')
_JSON_LETTER = re.compile(rb"\\u00(?:5[Ff]|[46][458DdFf]|[57]4)")
_CASES = zip(b"_method", b"_METHOD", strict=True)
_JSON_ESCAPED = re.compile(
    rb'(?i)"' + b"".join(rb"(?:%c|\\u00(?:%02x|%02x))" % (a, a, b) for a, b in _CASES) + rb'"'
)
_UTF16 = (b"\xfe\xff", b"\xff\xfe")
_BLANKS = b" \t\r\n\xef\xbb\xbf"


def check_query(query: str) -> None:
    """Returns if no parameter of the query replaces the method; raises Ambiguous."""
    _check_fields(query.encode("ascii", "replace"), "query")


def is_searched(media: MediaType, method: str) -> bool:
    """Whether a body like this may hold such a parameter, so that it must be read."""
    # Rack takes a POST that does not say what it is for a form.
    untyped = not media.name and method == "POST"
    return media.is_form or media.is_json or media.is_multipart or untyped


def check_body(media: MediaType, coding: str, method: str, body: bytes) -> None:
    """Returns if nothing in the body replaces the method; raises Ambiguous.

    `coding` is its Content-Encoding.
    """
    if not body or not is_searched(media, method):
        return
    if not media.name:
        _check_untyped(body)
        return
    what = "JSON body" if media.is_json else "form"
    if coding.lower() not in ("", "identity"):
        raise Ambiguous(f"The {what} is compressed; send it without Content-Encoding.")
    if not media.keeps_ascii:
        raise Ambiguous(f"The {what} is not in UTF-8; encode its text as UTF-8.")
    if media.is_json:
        _check_json(body)
    elif media.is_multipart:
        _check_parts(body)
    else:
        _check_form(body)


def _check_untyped(body: bytes) -> None:
    try:
        _check_form(body)
    except Ambiguous:
        raise Ambiguous(
            "The body does not say what it is, and taken for a form it could override the request;"
            " send its Content-Type."
        ) from None


def _check_form(body: bytes) -> None:
    _check_fields(body, "form")
    if body.lstrip(_BLANKS)[:1] == b"{":
        _check_json(body)  # as curl sends it when it was not told a type


def _check_fields(text: bytes, where: str) -> None:
    text = text.lower()
    if not any(mark in text for mark in _MARKS) and not _ESCAPED_LETTER.search(text):
        return
    if text.count(b"&") + text.count(b";") > MAX_FIELDS:
        raise Ambiguous(f"The {where} has more than {MAX_FIELDS} parameters; send fewer.")
    found = _FIRST_FIELD.match(text) or _LATER_FIELD.search(text)
    if found:
        raise _override(unquote(found[1].decode("ascii")), where)


def _check_parts(body: bytes) -> None:
    found = 0
    lower = body.lower()
    at = lower.find(_PART)
    while at >= 0:
        # A window that cuts a longer one ends it two bytes early at most, within a line break.
        header = _PART_HEADER.match(body, at, at + MAX_PART_HEADER + 3)
        if header is not None and (at == 0 or body[at - 1] in b"\r\n"):
            if header.end() - at > MAX_PART_HEADER:
                raise Ambiguous(
                    f"A part of the form has a header of more than {MAX_PART_HEADER} bytes; send a"
                    " shorter one."
                )
            if _CONTINUED.search(header[1]):
                raise Ambiguous("The form has a part whose name comes in pieces; write it as one.")
            for name in _PART_NAME.findall(header[1]):
                _refuse_override(_part_name(name.decode("latin-1")), "form")
        found += 1
        if found > MAX_PARTS:
            raise Ambiguous(f"The form has more than {MAX_PARTS} parts; send fewer.")
        at = lower.find(_PART, at + len(_PART))


def _part_name(text: str) -> str:
    """The name as the most lenient readers see it: RFC 8187 notation, quotes, escapes undone."""
    extended = _EXTENDED.fullmatch(text)
    return unquote(extended[1] if extended else text).replace("\\", "").strip("'\"")


def _check_json(body: bytes) -> None:
    """Laravel takes the method from a member of the outermost object."""
    if body.startswith(_UTF16) or b"\0" in body[:4]:
        raise Ambiguous("The JSON body is not in UTF-8; encode its text as UTF-8.")
    escaped = _JSON_LETTER.search(body) is not None
    if escaped and len(body) > MAX_SEARCHED:
        raise Ambiguous("The JSON body is large and escapes plain letters; write them as they are.")
    if not (_JSON_ESCAPED if escaped else _JSON_MEMBER).search(body):
        return
    if len(body) > MAX_SEARCHED:
        raise Ambiguous(
            "The JSON body is large and has a member `_method`, which would override the request"
            " if it stands outermost; send less or leave it out."
        )
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise Ambiguous("The JSON body cannot be read; send well-formed JSON.") from None
    if isinstance(document, dict) and any(name.lower() == "_method" for name in document):
        _refuse_override("_method", "JSON")


def _refuse_override(name: str, where: str) -> None:
    # PHP, as above; it turns a space into `_` too.
    plain = re.split(r"[\[\0]", name.lstrip(" "), maxsplit=1)[0].rstrip(" ")
    if plain.translate(_AS_PHP).lower() in _OVERRIDES:
        raise _override(plain, where)


def _override(name: str, where: str) -> Ambiguous:
    return Ambiguous(
        f"The {where} parameter {shown(name)} would override the request; leave it out and send"
        " the request as you mean it."
    )


_AS_PHP = str.maketrans({".": "_", " ": "_"})
