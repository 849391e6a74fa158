"""How a secret value can be written: the literal byte strings that a response is searched for.

Escapes of single characters (%XX, \\uXXXX, &#...;) are read by `broker.escapes`. Pure.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote, quote_plus

MIN_LENGTH = 4
"""Bytes. A shorter value turns up by chance in most responses, and masking it would wreck them
while hiding nothing: it is not searched for, and no such secret is stored or injected."""
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")


class Needle(NamedTuple):
    """A literal to search for: `core`, and as much of the rest of `full` as follows it.

    `full` begins with `core`; what is beyond it (base64's last character and padding) is there only
    when the value stood at the end of what was encoded.
    """

    core: bytes
    full: bytes

    def extent(self, text: bytes, start: int) -> int:
        """Where the match ends whose core begins at `start`."""
        end = start + len(self.core)
        for expected in self.full[len(self.core) :]:
            if text[end : end + 1] != bytes([expected]):
                break
            end += 1
        return end


def minimal(values: Iterable[bytes]) -> tuple[bytes, ...]:
    """`values` without those too short to mask and those that hold another one inside.

    A spelling of `Bearer X` contains a spelling of `X`, so looking for `X` is enough.
    """
    kept: list[bytes] = []
    for value in sorted({value for value in values if len(value) >= MIN_LENGTH}, key=len):
        if not any(shorter in value for shorter in kept):
            kept.append(value)
    return tuple(sorted(kept))


def needles(value: bytes) -> tuple[Needle, ...]:
    """Every literal that gives `value` away: raw, hex, base64 wherever it stands in the whole,
    and the wider encodings of Unicode."""
    return tuple(dict.fromkeys((*narrow(value), *wide(value))))


def narrow(value: bytes) -> list[Needle]:
    """Those of one byte a character. No other byte is in them than ASCII's and the value's own."""
    literals = [value, value.hex().encode(), value.hex().upper().encode()]
    if b" " in value:
        literals.append(value.replace(b" ", b"+"))
    if b"\\" in value:
        # JSON's escape for a backslash is not read as one (see broker.escapes).
        literals.append(value.replace(b"\\", b"\\\\"))
    found = [Needle(literal, literal) for literal in literals]
    for before in range(3):
        core, full = needle = _base64(value, before)
        found += (needle, Needle(core.translate(_TO_URL_SAFE), full.translate(_TO_URL_SAFE)))
    return list(dict.fromkeys(found))


def wide(value: bytes) -> list[Needle]:
    """Those in UTF-16 and UTF-32. Each has a NUL if the value has an ASCII character."""
    text = _text(value)
    literals = [] if text is None else [text.encode(encoding) for encoding in _WIDE]
    return [Needle(literal, literal) for literal in literals]


_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")
"""RFC 4648 5."""


def _base64(value: bytes, before: int) -> Needle:
    """`value` in base64 with `before` other bytes ahead of it in its first group of three.

    The core has only the characters that `value` alone decides; at either end up to four of its
    bits may share a character with a neighbour and stay.
    """
    full = base64.b64encode(bytes(before) + value)[(0, 2, 3)[before] :]
    padding = full.count(b"=")
    core = full if not padding else full[: -padding - 1]
    return Needle(core, full)


def spellings(value: bytes) -> tuple[bytes, ...]:
    """The usual spellings of `value` one by one, for who wants to search a text for them.

    The scrubber masks more than this list: any mixture of escaped and plain characters.
    """
    found = {needle.core for needle in needles(value)}
    for each in ("%{:02X}", "%{:02x}"):
        found.add("".join(each.format(byte) for byte in value).encode())
    found.add(quote(value, safe="").encode())
    found.add(quote_plus(value).encode())
    if (text := _text(value)) is not None:
        units = [pair.hex() for pair in _pairs(text.encode("utf-16-be", "surrogatepass"))]
        found.add("".join(rf"\u{unit}" for unit in units).encode())
        found.add("".join(rf"\u{unit.upper()}" for unit in units).encode())
        found.add(json.dumps(text)[1:-1].encode())
        found.add(json.dumps(text)[1:-1].replace("/", r"\/").encode())
        found.add(html.escape(text).encode())
        found.add("".join(f"&#{ord(letter)};" for letter in text).encode())
        found.add("".join(f"&#x{ord(letter):x};" for letter in text).encode())
    return tuple(sorted(found))


def _pairs(data: bytes) -> list[bytes]:
    return [data[i : i + 2] for i in range(0, len(data), 2)]


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
