"""multipart/form-data, read strictly (RFC 7578, as browsers and HTTP libraries write it).

Parsers differ in everything but the plain form: what is before the first and after the last
delimiter, bare line feeds, escapes in names, encodings, `filename*`. Whatever is not the plain form
is Unreadable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from rules.errors import Unreadable

MAX_PARTS = 1_000
MAX_HEAD = 1_000
"""Bytes of one part's header lines."""

_TYPE = re.compile(
    r"multipart/form-data"
    r"[ \t]*;[ \t]*boundary=(?:([!#$%&'*+.^_`|~0-9a-z-]{1,70})"
    r"|\"([0-9a-z'()+_,./:=? -]{0,69}[0-9a-z'()+_,./:=?-])\")"
    r"(?:[ \t]*;[ \t]*charset=(?:utf-8|\"utf-8\"))?",
    re.IGNORECASE | re.ASCII,
)
_LINE = re.compile(rb"([A-Za-z-]+):([ -~\x80-\xff]*)")
_DISPOSITION = re.compile(r"form-data((?: *; *(?:file)?name=\"[^\"\\]*\"){1,2})", re.IGNORECASE)
_PARAMETER = re.compile(r"((?:file)?name)=\"([^\"\\]*)\"", re.IGNORECASE)
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_PART_TYPE = re.compile(
    r"([a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+)"
    r"((?: *; *[a-z0-9-]+=(?:[^ ;\"]++|\"[^\"\\]*+\"))*+)"
)
_CHARSET = re.compile(r"charset[a-z0-9*-]*=\"?([^;\" ]*)")
_IDENTITY = frozenset({"7bit", "8bit", "binary"})
_LENGTH = re.compile(r"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class Part:
    """One field of the form, or one file."""

    name: str
    filename: str | None
    """None: a field, not a file."""
    type: str
    """The media type, lower case, without parameters."""
    value: bytes = field(repr=False)


def read_multipart(content_type: str, body: bytes) -> tuple[Part, ...]:
    """The parts of a form, in order. Raises Unreadable unless there is exactly one reading."""
    match = _TYPE.fullmatch(content_type)
    if match is None:
        raise Unreadable("its Content-Type is not multipart/form-data with one plain boundary")
    delimiter = b"--" + (match[1] or match[2]).encode("ascii")
    # The delimiter may stand nowhere but where it delimits. So there is nothing that one parser
    # takes for content and another for the start of a part.
    before, *pieces = body.split(delimiter, MAX_PARTS + 2)
    if len(pieces) > MAX_PARTS + 1:
        raise Unreadable(f"more than {MAX_PARTS} parts")
    if before or not pieces:
        raise Unreadable("it does not begin with its boundary")
    if pieces.pop() not in (b"--", b"--\r\n"):
        raise Unreadable("it does not end with its boundary")
    parts = tuple([_read_part(piece) for piece in pieces])
    for part in parts:
        if part.name == "_charset_" and part.value.lower() != b"utf-8":
            raise Unreadable("a field sets another character set")
    return parts


def _read_part(piece: bytes) -> Part:
    end = piece.find(b"\r\n\r\n", 0, MAX_HEAD)
    if end < 2 or not piece.startswith(b"\r\n") or len(piece) < end + 6:
        raise Unreadable("a part without the plain form of header lines, empty line and content")
    if not piece.endswith(b"\r\n"):
        raise Unreadable("a boundary within a line")
    value = piece[end + 4 : -2]
    headers = _read_lines(piece[2:end])
    name, filename = _read_disposition(headers.pop("content-disposition", ""))
    kind = _read_type(headers.pop("content-type", "text/plain"))
    if headers.pop("content-transfer-encoding", "binary").lower() not in _IDENTITY:
        raise Unreadable("an encoded part")
    length = headers.pop("content-length", None)
    if length is not None and not (_LENGTH.fullmatch(length) and int(length) == len(value)):
        raise Unreadable("a part whose Content-Length is not its length")
    if headers:
        raise Unreadable("a part with header lines that forms do not have")
    return Part(name, filename, kind, value)


def _read_lines(head: bytes) -> dict[str, str]:
    lines: dict[str, str] = {}
    for line in head.split(b"\r\n"):
        match = _LINE.fullmatch(line)
        if match is None:
            raise Unreadable("an odd header line in a part")
        name = match[1].decode("ascii").lower()
        if name in lines:
            raise Unreadable("a header line twice in a part")
        try:
            lines[name] = match[2].strip(b" ").decode("utf-8")
        except UnicodeDecodeError:
            raise Unreadable("a header line in a part that is not UTF-8") from None
    return lines


def _read_disposition(text: str) -> tuple[str, str | None]:
    match = _DISPOSITION.fullmatch(text)
    if match is None:
        raise Unreadable("a part without a plain Content-Disposition")
    found: dict[str, str] = {}
    for key, value in _PARAMETER.findall(match[1]):
        if key.lower() in found or _ESCAPE.search(value):
            raise Unreadable("a part's name that has two readings")
        found[key.lower()] = value
    if not found.get("name"):
        raise Unreadable("a part without a name")
    return found["name"], found.get("filename")


def _read_type(text: str) -> str:
    match = _PART_TYPE.fullmatch(text.lower())
    if match is None or match[1].startswith("multipart/"):
        raise Unreadable("a part with an odd or nested Content-Type")
    for charset in _CHARSET.findall(match[2]):
        if charset not in ("utf-8", "us-ascii"):
            raise Unreadable("a part in another character set")
    return match[1]
