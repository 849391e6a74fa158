"""Reads a stretch of bytes as if it were percent-encoded, a JSON string or HTML: one view each.

A view is the text with the escapes in it replaced by what they stand for, and knows where in the
source each byte of it came from. What is an escape does not depend on what stands before it, so a
view of a part agrees with the view of the whole. Pure.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MAX_ESCAPE = 12
"""Bytes of the longest escape that is read (`\\ud83d\\ude00`, `&#x00000041;`)."""


class View:
    """A text and the way back to its source. Without escapes both have the same positions."""

    def __init__(
        self,
        source: bytes,
        escape: re.Pattern[bytes] | None = None,
        meanings: Mapping[bytes, bytes] | None = None,
        cut: int | None = None,
    ) -> None:
        """`meanings` says what each escape to be read stands for.

        `cut` is where in the source an unfinished escape begins, which the text leaves out.
        """
        self.cut = cut
        self._source = source if cut is None else source[:cut]
        self._escape = escape
        self._meanings = meanings or {}
        self.text = self._source
        if escape and meanings:
            self.text = escape.sub(lambda m: meanings.get(m[0], m[0]), self._source)
        # Where escapes begin and end, in the source and in the text; made when first needed.
        self._starts: list[int] | None = None
        self._ends: list[int] = []
        self._plains: list[int] = []
        self._plain_ends: list[int] = []

    @property
    def has_escapes(self) -> bool:
        return bool(self._meanings)

    def source_of(self, index: int) -> tuple[int, int]:
        """Begin and end, in the source, of what the byte `index` of the text was written as."""
        starts = self._located()
        before = bisect_right(self._plains, index) - 1
        if before < 0:
            return index, index + 1
        if index < self._plain_ends[before]:
            return starts[before], self._ends[before]
        begin = self._ends[before] + index - self._plain_ends[before]
        return begin, begin + 1

    def begin_of_last(self, count: int) -> int:
        """Where, in the source, the text's last `count` bytes begin."""
        if self._starts is None:  # not worth locating every escape
            base = max(0, len(self._source) - count * MAX_ESCAPE)
            tail = View(self._source[base:], self._escape, self._meanings)
            return base + tail.source_of(len(tail.text) - count)[0]
        return self.source_of(len(self.text) - count)[0]

    def index_of(self, source: int) -> int:
        """The first byte of the text that is written wholly at or after `source`."""
        if source == 0 or not self._meanings:
            return source
        if self._starts is None and source <= MAX_ESCAPE < len(self._source) // 2:
            head = View(self._source[: 2 * MAX_ESCAPE], self._escape, self._meanings)
            return head.index_of(source)
        starts = self._located()
        before = bisect_right(starts, source) - 1
        if before < 0:
            return source
        if source == starts[before]:
            return self._plains[before]
        return self._plain_ends[before] + max(0, source - self._ends[before])

    def _located(self) -> list[int]:
        if self._starts is None:
            self._starts = []
            shift = 0  # how much shorter the text is than the source, so far
            for match in self._escape.finditer(self._source) if self._escape else ():
                meaning = self._meanings.get(match[0])
                if meaning is None:
                    continue
                start, end = match.span()
                self._starts.append(start)
                self._ends.append(end)
                self._plains.append(start - shift)
                shift += end - start - len(meaning)
                self._plain_ends.append(end - shift)
        return self._starts


@dataclass(frozen=True, slots=True)
class Syntax:
    """One way to escape characters. No two escapes of one syntax overlap."""

    sign: bytes
    """What every escape begins with. Most bodies do not have it, and that is quickly seen."""
    escape: re.Pattern[bytes]
    unfinished: re.Pattern[bytes]
    """Matches, up to the end, what more bytes could make an escape (or a longer one)."""
    decode: Callable[[bytes], bytes]
    """What an escape stands for; empty if for nothing."""

    def view(self, source: bytes, alphabet: frozenset[int], *, final: bool) -> View | None:
        """`source` with its escapes read; None if it has none that could matter.

        Only escapes that stand for bytes of `alphabet` are read, the others stay as they are:
        nothing that is looked for can contain them. `final`: nothing follows `source`.
        """
        if self.sign not in source:
            return None
        meanings = {
            escape: plain
            for escape in set(self.escape.findall(source))
            if (plain := self.decode(escape)) and alphabet.issuperset(plain)
        }
        unfinished = None if final else self.unfinished.search(source, len(source) - MAX_ESCAPE)
        if not meanings and not unfinished:
            return None
        return View(source, self.escape, meanings, unfinished.start() if unfinished else None)


_SHORT = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def _json(escape: bytes) -> bytes:
    kind = escape[1:2]
    if kind not in b"ux":
        return _SHORT.get(kind, kind)
    if len(escape) == 12:
        units = bytes.fromhex(escape[2:6].decode() + escape[8:12].decode())
        return units.decode("utf-16-be").encode()
    return _character(int(escape[2:], 16))


def _html(escape: bytes) -> bytes:
    return html.unescape(escape.decode()).encode(errors="ignore")


def _character(code: int) -> bytes:
    return chr(code).encode(errors="ignore")  # half of a surrogate pair stands for nothing


PERCENT = Syntax(
    b"%",
    re.compile(rb"%[0-9a-fA-F]{2}"),
    re.compile(rb"%[0-9a-fA-F]?\Z"),
    lambda escape: bytes([int(escape[1:], 16)]),
)
"""RFC 3986 2.1."""

# `\\` is left out: with it, what is an escape would depend on how many backslashes stand before.
# So JSON inside JSON (`\\u0041`) is read too.
JSON = Syntax(
    b"\\",
    re.compile(
        rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}"
        rb"|x[0-9a-fA-F]{2}|[/\"'bfnrt])"
    ),
    re.compile(
        rb"\\(?:u[0-9a-fA-F]{0,3}|x[0-9a-fA-F]?"
        rb"|u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?)?\Z"
    ),
    _json,
)
"""RFC 8259 7, and JavaScript's `\\xXX` and `\\'`."""

HTML = Syntax(
    b"&",
    re.compile(rb"&(?:#[0-9]{1,8}|#[xX][0-9a-fA-F]{1,8}|amp|apos|gt|lt|quot);"),
    re.compile(
        rb"&(?:#(?:[0-9]{0,8}|[xX][0-9a-fA-F]{0,8})"
        rb"|a(?:mp?|p(?:os?)?)?|gt?|lt?|q(?:u(?:ot?)?)?)?\Z"
    ),
    _html,
)
"""Numeric references and the five names that every encoder uses."""

SYNTAXES = (PERCENT, JSON, HTML)
