"""HTTP/1.1 as far as Vault's API needs it: requests out, whole answers in. Pure.

Strict: an answer that could be read in two ways, that does not say where it ends, or after which
anything follows is Garbled, and nothing of it is used. Source: RFC 9112.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_HEAD = 32 * 1024
MAX_BODY = 1024 * 1024

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n\x00]*)?")
_LINES = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[^\r\n]*+\r\n)*+")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,7})[ \t]*(?:;[^\r\n\x00]*)?")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_MAX_INTERIM = 8
_SINGLE = frozenset({b"content-length", b"transfer-encoding", b"content-encoding", b"retry-after"})


class Garbled(Exception):
    """What came is no answer that can be used."""


class TooLong(Garbled):
    """It is longer than anything that Vault has to say here."""


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. It may hold secrets, so it shows only its status."""

    status: int
    headers: Mapping[bytes, bytes] = field(repr=False)
    """By lower-case name; of a name that came twice the last."""
    body: bytes = field(repr=False)
    keep: bool
    """Whether the connection may be used again."""


def head(method: str, path: str, fields: Mapping[str, str]) -> bytes:
    """A request's head, but for the blank line.

    Raises ValueError for a path or a value that is not visible ASCII: it could smuggle in a field.
    """
    for text in (method, path, *fields, *fields.values()):
        if not _VISIBLE.fullmatch(text):
            raise ValueError("not visible ASCII")
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n"


class Reader:
    """Takes the bytes of one answer as they come."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: tuple[int, dict[bytes, bytes], bool] | None = None
        self._body = bytearray()
        self._left: int | None = None
        """Bytes of the body, or of its chunk, still to come; None: a chunk's size comes next."""
        self._chunked = False
        self._trailers = False
        self._interim = 0

    @property
    def begun(self) -> bool:
        """Whether a first byte came."""
        return bool(self._buffer) or self._head is not None or self._interim > 0

    def feed(self, data: bytes) -> Response | None:
        """The answer once it is whole, else None. Raises Garbled, after which it is not fed."""
        self._buffer += data
        while self._head is None:
            if not self._read_head():
                return None
        done = self._read_chunks() if self._chunked else self._read_plain()
        if not done:
            return None
        if self._buffer:
            raise Garbled("more than one answer")
        status, headers, keep = self._head
        return Response(status, headers, bytes(self._body), keep)

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if (end if end >= 0 else len(self._buffer)) > MAX_HEAD:
            raise TooLong("a head without end")
        if end < 0:
            return False
        status_line, _, lines = bytes(self._buffer[: end + 2]).partition(b"\r\n")
        del self._buffer[: end + 4]
        found = _STATUS.fullmatch(status_line)
        if found is None:
            raise Garbled("no status line")
        if not _LINES.fullmatch(lines):
            raise Garbled("no field line")
        headers: dict[bytes, bytes] = {}
        for line in lines.split(b"\r\n")[:-1]:
            name, _, value = line.partition(b":")
            name = name.lower()
            if name in _SINGLE and name in headers:
                raise Garbled("a field twice")
            headers[name] = value.strip(b" \t")
        status = int(found[2])
        if status < 200:
            self._interim += 1
            if status == 101 or self._interim > _MAX_INTERIM:
                raise Garbled("interim answers only")
            return bool(self._buffer)
        keep = found[1] == b"1" and b"close" not in headers.get(b"connection", b"").lower()
        self._head = status, headers, keep
        self._frame(status, headers)
        return True

    def _frame(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Garbled("encoded, which was not asked for")
        length = headers.get(b"content-length")
        coding = headers.get(b"transfer-encoding")
        if status in {204, 304}:
            self._left = 0
        elif coding is not None:
            if coding.lower() != b"chunked" or length is not None:
                raise Garbled("no single framing")
            self._chunked = True
        elif length is None or not length.isdigit() or len(length) > 10:
            raise Garbled("no end in sight")
        else:
            self._left = int(length)
            if self._left > MAX_BODY:
                raise TooLong("a long body")

    def _read_plain(self) -> bool:
        return self._take() == 0

    def _take(self) -> int:
        """Moves what is there to the body; how many bytes are still to come."""
        left = self._left or 0
        self._body += self._buffer[:left]
        taken = min(left, len(self._buffer))
        del self._buffer[:taken]
        self._left = left - taken
        return self._left

    def _read_chunks(self) -> bool:
        while True:
            if self._trailers:
                line = self._line()
                if not line:
                    return line is not None
            elif self._left is None:
                line = self._line()
                if line is None:
                    return False
                found = _SIZE.fullmatch(line)
                if found is None:
                    raise Garbled("no chunk size")
                size = int(found[1], 16)
                if len(self._body) + size > MAX_BODY:
                    raise TooLong("a long body")
                if size:
                    self._left = size
                else:
                    self._trailers = True
            else:
                if self._take():
                    return False
                if len(self._buffer) < 2:
                    return False
                if self._buffer[:2] != b"\r\n":
                    raise Garbled("a chunk without end")
                del self._buffer[:2]
                self._left = None

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if (end if end >= 0 else len(self._buffer)) > MAX_HEAD:
            raise TooLong("a line without end")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line
