"""Text that an agent wrote, made inert: escaped, and with nothing in it that cannot be seen.

Control, bidirectional, zero-width and other invisible characters are shown by their code points.
Long values are clipped in the middle, with the whole behind a `details`. No links are ever made.
"""

from __future__ import annotations

import unicodedata
from itertools import groupby

from markupsafe import Markup, escape

BLANKS = frozenset("\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\u034f")
"""Letters and marks by category that draw nothing."""
INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
HEAD, TAIL = 240, 80
"""Characters of a clipped value that are shown before and after the gap."""
MOST_MARKS = 2
"""Combining marks on one letter that are drawn; more of them would paint over the neighbours."""
MOST_TEXT = 64 * 1024
"""Characters of one value that a page carries; the rest is to be had as a download."""


def is_odd(char: str) -> bool:
    """Would this character be invisible, or change how its neighbours are shown?"""
    if " " <= char <= "~":
        return False
    category = unicodedata.category(char)
    return (
        category in INVISIBLE
        or (category == "Zs" and char != " ")
        or char in BLANKS
        or "\ufe00" <= char <= "\ufe0f"
        or "\U000e0100" <= char <= "\U000e01ef"
    )


def code_point(char: str) -> str:
    return f"U+{ord(char):04X}"


def visible(text: str, *, lines: bool = False) -> Markup:
    """`text` as HTML that looks like what it is. With `lines`, line feeds break lines."""
    plain: list[str] = []
    out: list[Markup] = []

    def odd(char: str, count: int) -> None:
        out.append(escape("".join(plain)))
        plain.clear()
        name = unicodedata.name(char, "control character")
        times = f"\u00d7{count}" if count > 1 else ""
        label = f"{code_point(char)}{times}"
        out.append(Markup('<span class="odd" title="{}">{}</span>').format(name, label))

    marks = 0
    for char, run in groupby(text):
        count = sum(1 for _ in run)
        marks = marks + count if unicodedata.category(char) in ("Mn", "Me") else 0
        if lines and char == "\n":
            plain.append(char * count)
        elif is_odd(char) or marks > MOST_MARKS:
            odd(char, count)
        else:
            plain.append(char * count)
    out.append(escape("".join(plain)))
    return Markup("").join(out)


def clipped(text: str) -> Markup:
    """As `visible`; a long value shows its two ends, and unfolds."""
    if len(text) <= HEAD + TAIL + 40:
        return visible(text)
    gap = len(text) - HEAD - TAIL
    whole = visible(text[:MOST_TEXT])
    if len(text) > MOST_TEXT:
        whole += Markup('<span class="gap">{} more characters are not shown here</span>').format(
            f"{len(text) - MOST_TEXT:,}"
        )
    return Markup(
        '{}<span class="gap">{} characters left out</span>{}'
        '<details class="clip"><summary>Show all {} characters</summary>'
        '<div class="whole">{}</div></details>'
    ).format(visible(text[:HEAD]), f"{gap:,}", visible(text[-TAIL:]), f"{len(text):,}", whole)


def hexdump(data: bytes, limit: int = 4096) -> str:
    """Offsets, bytes and ASCII of the first `limit` bytes, 16 a line."""
    rows = []
    for offset in range(0, min(len(data), limit), 16):
        piece = data[offset : min(offset + 16, limit)]
        digits = " ".join(f"{byte:02x}" for byte in piece)
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in piece)
        rows.append(f"{offset:08x}  {digits:<47}  {text}")
    return "\n".join(rows)
