"""Masks every spelling of injected values in what streams through. Pure.

The result does not depend on how the input was cut into chunks. Only a tail that can begin a
spelling is held back, so a finished server-sent event passes at once. Where spellings overlap, the
one that begins first is masked, of those the longest.

What it cannot see: values that are encrypted, compressed (see `broker.encodings`), shuffled, sent
in halves, encoded twice, or in a way that `broker.spellings` and `broker.escapes` do not list.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from contextlib import suppress

from broker.escapes import MAX_ESCAPE, SYNTAXES, View
from broker.spellings import MIN_LENGTH, Needle, minimal, narrow, needles, spellings

__all__ = ["MASK", "MIN_LENGTH", "Scrubber", "spellings"]

MASK = b"[keybroker:masked]"
SLICE = 1 << 16
"""Bytes looked at together: bounds the memory that a large chunk takes."""

_Hit = tuple[int, int, View, Needle]
"""Begin, minus the end, and what to search on with; sorts as hits take precedence."""


class Scrubber:
    """One response body, in order: `feed` each chunk, then `finish`."""

    def __init__(self, values: Iterable[bytes], *, keep_length: bool = False) -> None:
        """`values`: everything injected. Those under MIN_LENGTH bytes are not looked for.

        `keep_length`: in bodies a mask is as long as what it covers.
        """
        self._keep_length = keep_length
        self._values = minimal(values)
        self._narrow: list[Needle] = []
        """What can stand in a text without a NUL: all but ASCII in Unicode's wider encodings, for
        which few texts need to be searched."""
        for value in self._values:
            self._narrow += narrow(value) if value.isascii() else needles(value)
        self._every: tuple[Needle, ...] | None = None
        self._letters = b"".join([b"\0", *[needle.full for needle in self._narrow]])
        """Every byte that is in a needle."""
        self._source = b""
        """What is held back, after some bytes that have left (an escape may reach into both)."""
        self._at = 0
        """Where in `_source` the part that is held back begins."""
        self.hits = 0
        """Spellings masked so far, in bodies and texts."""

    def __repr__(self) -> str:
        return f"Scrubber(values={len(self._values)}, hits={self.hits})"

    def feed(self, chunk: bytes) -> bytes:
        """The next part of the scrubbed stream, maybe empty."""
        if not self._narrow:
            return chunk
        if len(chunk) <= SLICE:
            return self._scrub(chunk, final=False) if chunk else b""
        starts = range(0, len(chunk), SLICE)
        return b"".join(self._scrub(chunk[at : at + SLICE], final=False) for at in starts)

    def finish(self) -> bytes:
        """The rest, once there is no more input; afterwards a new stream may begin."""
        held = len(self._source) - self._at
        rest = self._scrub(b"", final=True) if held else b""
        self._source, self._at = b"", 0
        return rest

    def is_clean(self, texts: Iterable[str]) -> bool:
        """Whether `scrub_text` would certainly leave all of them as they are: one look for many."""
        # No escape of any syntax holds a line break, so none is read across it.
        text = "\n".join(texts)
        try:
            readings = [text.encode(errors="surrogateescape")]
        except UnicodeEncodeError:
            return False
        if not text.isascii():
            with suppress(UnicodeEncodeError):  # then it never was on the wire
                readings.append(text.encode("latin-1"))
        return not any(self._hits(self._views(data, final=True), 0) for data in readings)

    def scrub_text(self, text: str) -> str:
        """`text` (a header's value, a reason phrase) masked, whatever characters it has: as text,
        and as the bytes that it stands for where it came off the wire (ISO-8859-1).

        A mask has characters that a header's *name* cannot have: drop a header whose name changes.
        """
        if not self._narrow:
            return text
        errors = "surrogateescape"
        try:
            data = text.encode(errors=errors)
        except UnicodeEncodeError:
            errors = "surrogatepass"
            data = text.encode(errors=errors)
        masked = self._scrub_whole(data).decode(errors=errors)
        if masked.isascii():
            return masked
        try:
            wire = masked.encode("latin-1")
        except UnicodeEncodeError:
            return masked  # never was on the wire
        return self._scrub_whole(wire).decode("latin-1")

    def _scrub_whole(self, data: bytes) -> bytes:
        whole = copy.copy(self)
        whole._source, whole._at = b"", 0
        whole._keep_length = False
        masked = whole._scrub(data, final=True)
        self.hits = whole.hits
        return masked

    def _scrub(self, data: bytes, *, final: bool) -> bytes:
        source, at = self._source + data, self._at
        views = self._views(source, final=final)
        held = len(source) if final else self._first_open(views, at)
        hits = self._hits(views, at)
        out: list[bytes] = []
        while hits:
            start, minus_end, *_ = min(hits, key=lambda hit: hit[:2])
            if start >= held:
                break  # more input could still make an earlier or longer spelling of it
            out.append(source[at:start])
            out.append(_mask(-minus_end - start) if self._keep_length else MASK)
            at = -minus_end
            self.hits += 1
            hits = [
                again
                for hit in hits
                for again in ([hit] if hit[0] >= at else self._hits([hit[2]], at, hit[3]))
            ]
            if at > held:
                held = len(source) if final else self._first_open(views, at)
        out.append(source[at:held])
        context = max(0, held - MAX_ESCAPE)
        self._source, self._at = source[context:], held - context
        return b"".join(out)

    def _views(self, source: bytes, *, final: bool) -> list[View]:
        views = [View(source)]
        for syntax in SYNTAXES:
            if syntax.sign in source:
                view = syntax.view(source, frozenset(self._letters), final=final)
                if view is not None:
                    views.append(view)
        return views

    def _hits(self, views: Sequence[View], at: int, only: Needle | None = None) -> list[_Hit]:
        """The first place from `at` on, for each needle (or one) in each view that has one."""
        hits = []
        for view in views:
            if view.cut is not None and not view.has_escapes:
                continue  # the same text as the source's own
            start = view.index_of(at)
            for needle in self._sought(view.text) if only is None else (only,):
                found = view.text.find(needle.core, start)
                if found >= 0:
                    begin = view.source_of(found)[0]
                    end = view.source_of(needle.extent(view.text, found) - 1)[1]
                    hits.append((begin, -end, view, needle))
        return hits

    def _sought(self, text: bytes) -> Sequence[Needle]:
        return self._needles() if b"\0" in text else self._narrow

    def _needles(self) -> tuple[Needle, ...]:
        if self._every is None:
            self._every = tuple(dict.fromkeys(n for v in self._values for n in needles(v)))
        return self._every

    def _first_open(self, views: Sequence[View], at: int) -> int:
        """The first place from `at` on where a spelling may have begun that needs more input."""
        first = len(views[0].text)
        for view in views:
            open_bytes = 0
            if view.text[-1:] in self._letters:  # or it ends as no beginning of a spelling does
                start = view.index_of(at)
                open_bytes = max(overlap(view.text, start, n.full) for n in self._needles())
            if open_bytes:
                begin = view.begin_of_last(open_bytes)
            elif view.cut is not None:
                begin = max(at, view.cut)
            else:
                continue
            first = min(first, begin)
        return first


def _mask(length: int) -> bytes:
    return (MASK * (length // len(MASK) + 1))[:length]


def overlap(text: bytes, start: int, needle: bytes) -> int:
    """Length of the longest end of `text[start:]` that is a proper beginning of `needle`."""
    limit = min(len(needle) - 1, len(text) - start)
    if limit >= 3:
        # The text's last three bytes must stand in the needle: looked for first, they rarely do.
        last = text[-3:]
        found = needle.rfind(last, 0, limit)
        while found >= 0:
            if text.endswith(needle[: found + 3]):
                return found + 3
            found = needle.rfind(last, 0, found + 2)
    for size in (2, 1):
        if size <= limit and text.endswith(needle[:size]):
            return size
    return 0
