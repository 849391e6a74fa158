"""multipart/form-data, read strictly (RFC 7578, as browsers and HTTP libraries write it).

Parsers differ in everything but the plain form: what is before the first and after the last
delimiter, bare line feeds, escapes in names, encodings. Whatever is not the plain form is
Unreadable. They also differ on which parts are files; where they do, a part says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import unescape
from typing import Literal

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
_DISPOSITION = re.compile(
    r"form-data((?: *; *(?:(?:file)?name=\"[^\"\\]*\"|filename\*=[a-z0-9'%._~-]+)){1,3})",
    re.IGNORECASE | re.ASCII,
)
_PARAMETER = re.compile(
    r"(name|filename\*?)=(?:\"([^\"\\]*)\"|([a-z0-9'%._~-]+))", re.IGNORECASE | re.ASCII
)
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_INNER = re.compile(r"name\*?[0-9]* *=", re.IGNORECASE)
"""What a parser that searches the line, quotes or not, takes for a parameter."""
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
    """None: it has none."""
    type: str
    """The media type, lower case, without parameters; empty if it has none."""
    value: bytes = field(repr=False)
    kind: Literal["field", "file"] | None
    """None: there are servers that take it for the one, and others for the other; or that leave it
    out, or give it another name."""

    @property
    def text(self) -> str | None:
        """What stands in it, if it has no file name and is text; None if not."""
        try:
            return self.value.decode() if self.filename is None else None
        except UnicodeDecodeError:
            return None


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
    names = _read_disposition(headers.pop("content-disposition", ""))
    kind = headers.pop("content-type", None)
    media_type = "" if kind is None else _read_type(kind)
    encoding = headers.pop("content-transfer-encoding", None)
    if encoding is not None and encoding.lower() not in _IDENTITY:
        raise Unreadable("an encoded part")
    length = headers.pop("content-length", None)
    if length is not None and not (_LENGTH.fullmatch(length) and int(length) == len(value)):
        raise Unreadable("a part whose Content-Length is not its length")
    if headers:
        raise Unreadable("a part with header lines that forms do not have")
    filename = names.get("filename*", names.get("filename"))
    return Part(names["name"], filename, media_type, value, _kind(names, media_type, encoding))


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


def _read_disposition(text: str) -> dict[str, str]:
    """Its `name`, and `filename` and `filename*` where there are such."""
    match = _DISPOSITION.fullmatch(text)
    if match is None:
        raise Unreadable("a part without a plain Content-Disposition")
    found: dict[str, str] = {}
    for key, quoted, bare in _PARAMETER.findall(match[1]):
        if key.lower() in found or _INNER.search(quoted):
            raise Unreadable("a part's name that has two readings")
        found[key.lower()] = quoted or bare
    if not found.get("name"):
        raise Unreadable("a part without a name")
    if _ESCAPE.search(found["name"]):
        raise Unreadable("a part's name that has two readings")
    return found


def _kind(
    names: dict[str, str], media_type: str, encoding: str | None
) -> Literal["field", "file"] | None:
    """What the part is to everybody.

    To some a part is a file if it has a file name, to others if it has a type; of a file whose name
    is no name some make a field, and some nothing. To some all names are Latin-1, and so is a field
    that is said to be binary.
    """
    filename = names.get("filename")
    if not names["name"].isascii() or "filename*" in names:
        return None
    if filename is None:
        return None if media_type or encoding else "field"
    return "file" if media_type and _is_name(filename) else None


def _is_name(filename: str) -> bool:
    """Whether every server finds a name in it: some undo escapes, some take what is behind the last
    slash."""
    last = unescape(filename).replace("\\", "/").rpartition("/")[2]
    return not _ESCAPE.search(filename) and any(character.isalnum() for character in last)


def _read_type(text: str) -> str:
    match = _PART_TYPE.fullmatch(text.lower())
    if match is None or match[1].startswith("multipart/"):
        raise Unreadable("a part with an odd or nested Content-Type")
    for charset in _CHARSET.findall(match[2]):
        if charset not in ("utf-8", "us-ascii"):
            raise Unreadable("a part in another character set")
    return match[1]
